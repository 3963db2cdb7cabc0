from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeAlias

import pytest

from org.chat.ledger import Ledger
from org.chat.present import Present
from org.chat.state import State
from org.events import (
    Cleared,
    Committed,
    Invited,
    Joined,
    Left,
    ModeChanged,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    Undone,
)
from org.messages import EVERYONE, Audience, Entry, Message
from org.tui.scene import Scene


def said(number: int, content: str, sender: str = "me", audience: Audience = EVERYONE) -> Posted:
    role = "person" if sender == "me" else "model"
    return Posted(Message(number, sender, role, audience, content, 0.0))  # type: ignore[arg-type]


def turn(name: str, number: int, *causes: int, text: str = "ok") -> list[Committed]:
    return [
        Invited(name, number, causes),
        Stepped(name, number, text),
        TurnEnded(name, number, "answered"),
    ]


ROSTER: list[Committed] = [Joined("me", "person"), *(Joined(n, "model", system=n) for n in ("ann", "bob"))]


def unread(state: State) -> dict[str, list[int]]:
    return {name: [m.id for m in member.unread] for name, member in state.members.items() if member.memory}


def view(state: State, name: str) -> list[Entry]:
    memory = state.members[name].memory
    assert memory
    return list(memory.view)


def test_a_message_is_unread_by_its_audience_but_not_its_author() -> None:
    state = State.of(
        [
            *ROSTER,
            said(1, "a"),
            said(2, "b", "ann"),
            said(3, "c", "ann", Audience.only("me")),
            said(4, "d", audience=Audience.only("bob")),
            said(5, "e", "bob", Audience.file("f")),
        ]
    )
    assert unread(state) == {"ann": [1], "bob": [1, 2, 4]}
    assert state.next_id == 6


def test_an_invitation_reads_what_it_names_and_no_more() -> None:
    state = State.of([*ROSTER, said(1, "a"), said(2, "b"), Invited("ann", 1, (1,))])
    assert unread(state) == {"ann": [2], "bob": [1, 2]}
    assert [e.content for e in view(state, "ann")] == ["ann", "me: a"]


def test_undoing_takes_back_a_message_and_all_that_followed() -> None:
    before = [*ROSTER, said(1, "a"), *turn("ann", 1, 1), said(2, "ok", "ann")]
    after = [said(3, "b"), *turn("bob", 2, 1, 2, 3), ModeChanged("ann", Audience.only("bob")), Cleared()]
    undone, plain = State.of([*before, *after, Undone(3)]), State.of(before)
    assert undone.transcript == plain.transcript
    assert unread(undone) == unread(plain)
    assert all(view(undone, name) == view(plain, name) for name in ("ann", "bob"))
    assert undone.members["ann"].mode == EVERYONE
    assert State.of([*before, *after, Undone(3), said(3, "c"), Undone(3), Undone(1)]).transcript == []


def test_undoing_lets_those_who_came_stay_and_those_who_left_go() -> None:
    events = [*ROSTER, said(1, "a"), Joined("eve", "model"), Left("ann"), said(2, "b"), Undone(1)]
    state = State.of(events)
    assert list(state.members) == ["me", "bob", "eve"]
    assert unread(state) == {"bob": [], "eve": []}


def test_clearing_empties_views_and_inboxes_and_keeps_the_transcript() -> None:
    state = State.of([*ROSTER, said(1, "a"), *turn("ann", 1, 1), Cleared()])
    assert unread(state) == {"ann": [], "bob": []}
    assert [e.content for e in view(state, "ann")] == ["ann"]
    assert len(state.transcript) == 1


def test_a_turn_that_outlives_its_participant_does_not_reach_its_successor() -> None:
    state = State.of(
        [
            *ROSTER,
            said(1, "a"),
            Invited("ann", 1, (1,)),
            Left("ann"),
            Joined("ann", "model", system="new"),
            Stepped("ann", 1, "secret"),
            TurnEnded("ann", 1, "interrupted", text="secret"),
        ]
    )
    assert [e.content for e in view(state, "ann")] == ["new"]
    state.apply(said(2, "b"))
    for event in turn("ann", 2, 2):
        state.apply(event)
    assert [e.content for e in view(state, "ann")] == ["new", "me: b", "ok"]


# -- how long it takes


class Id(int):
    """The number of a message; each look at it is a call, and so is counted."""

    def __hash__(self) -> int:
        return int(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and int(self) == int(other)


Fold: TypeAlias = Callable[[Sequence[Committed]], object]


def silent(size: int) -> list[Committed]:
    """Somebody is asked who has not read anything so far."""
    ids = [Id(number) for number in range(1, size + 1)]
    return [*ROSTER, *(said(id, "a") for id in ids), *turn("ann", 1, *ids)]


def talk(size: int) -> list[Committed]:
    """Each message is answered at once; one who is there never is."""
    events = [*ROSTER]
    for number in range(1, size):
        question, answer = Id(2 * number), Id(2 * number + 1)
        events += [said(question, "a"), *turn("ann", number, question), said(answer, "b", "ann")]
        events.append(Stopped("quiet"))
    return events


def regrets(size: int) -> list[Committed]:
    """Every second message is taken back."""
    events = [*ROSTER]
    for number in range(1, size):
        kept, dropped = Id(2 * number), Id(2 * number + 1)
        events += [said(kept, "a"), said(dropped, "b"), *turn("ann", number, kept, dropped), Undone(dropped)]
    return events


def into_a_ledger(events: Sequence[Committed]) -> None:
    Ledger(None).take(*events)


def onto_the_screen(events: Sequence[Committed]) -> None:
    Scene(dict).load(events, 0.0)


def into_the_present(events: Sequence[Committed]) -> None:
    present = Present()
    for event in events:
        present.take(event)


def calls(fold: Fold, events: Sequence[Committed]) -> int:
    """How many calls a fold makes, of Python and of what it is made of."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, kind: str, argument: object) -> None:
        counted[kind] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        fold(events)
    finally:
        sys.setprofile(before)
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize("fold", [State.of, into_a_ledger, onto_the_screen, into_the_present])
@pytest.mark.parametrize("make", [silent, talk, regrets])
def test_work_grows_with_what_happened_and_no_faster(
    make: Callable[[int], list[Committed]], fold: Fold
) -> None:
    """Four times the events take four times the work; the square would be sixteen."""
    assert calls(fold, make(800)) < 5 * calls(fold, make(200))
