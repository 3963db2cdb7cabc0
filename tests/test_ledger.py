from __future__ import annotations

import asyncio

import pytest

from org.chat.ledger import Ledger
from org.errors import JournalError
from org.events import Committed, Event, Joined, Left, Notice, Posted, Undone
from org.messages import EVERYONE, Message
from room_kit import Memo

ANN, BOB = Joined("ann", "model"), Joined("bob", "model")


async def test_durable_then_in_the_state_then_shown() -> None:
    journal = Memo()
    ledger = Ledger(journal)
    shown: list[tuple[Event, list[Committed], list[str]]] = []
    ledger.observe(lambda event: shown.append((event, list(journal.events), list(ledger.state.members))))
    await ledger.commit(ANN, BOB)
    assert shown == [(ANN, [ANN, BOB], ["ann", "bob"]), (BOB, [ANN, BOB], ["ann", "bob"])]


@pytest.mark.parametrize("moment", range(8))
async def test_a_writer_that_is_cancelled_leaves_journal_and_state_alike(moment: int) -> None:
    journal = Memo()
    ledger = Ledger(journal)
    one, two = (asyncio.create_task(ledger.commit(event)) for event in (ANN, BOB))
    for _ in range(moment):
        await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait([one, two])
    assert journal.events == ledger.events
    assert list(ledger.state.members) == (["ann", "bob"] if moment else ["bob"])


async def test_what_cannot_be_written_has_not_happened() -> None:
    ledger = Ledger(Memo(broken=1, error=JournalError("no space left")))
    shown: list[Event] = []
    ledger.observe(shown.append)
    await ledger.commit(ANN)
    for _ in range(2):
        with pytest.raises(JournalError):
            await ledger.commit(BOB, Left("ann"))
    assert ledger.events == shown == [ANN]
    assert list(ledger.state.members) == ["ann"]


async def test_numbers_are_given_in_the_order_of_writing() -> None:
    journal = Memo()
    ledger = Ledger(journal)

    def make(sender: str) -> list[Committed]:
        return [Posted(Message(ledger.state.next_id, sender, "person", EVERYONE, "hi", 0.0))]

    senders = [f"p{n}" for n in range(5)]
    await asyncio.gather(*[ledger.write(lambda sender=sender: make(sender)) for sender in senders])  # type: ignore[misc]
    assert [(m.id, m.sender) for m in ledger.state.transcript] == list(enumerate(senders, 1))
    await ledger.commit(Undone(3))
    await ledger.write(lambda: make("late"))
    assert [m.id for m in ledger.state.transcript] == [1, 2, 6]


async def test_observers_see_what_only_passes_too_until_they_end() -> None:
    ledger = Ledger(None)
    shown: list[Event] = []
    end = ledger.observe(shown.append)
    ledger.emit(Notice("one"))
    end()
    end()
    ledger.emit(Notice("two"))
    assert shown == [Notice("one")]
