"""The room: who is in it, who hears what, whose turn it is, and when it is over.

The room is the only writer: everything that happens goes through its ledger, which makes it durable,
folds it into the state, and shows it, in this order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from org.chat.delivery import ROOM, Delivery
from org.chat.exchange import Limits
from org.chat.ledger import Ledger
from org.chat.routing import NAME, parse_mode
from org.chat.schedule import Policy, Schedule
from org.chat.state import State
from org.chat.turns import Turns
from org.errors import UsageError
from org.events import (
    Cleared,
    Committed,
    Event,
    Joined,
    Left,
    ModeChanged,
    ModelChanged,
    Notice,
    Posted,
    Stopped,
    TurnEnded,
    Undone,
)
from org.messages import Audience, Message, Usage
from org.ports import Journal, Participant, Sandbox, Turn

__all__ = ["Limits", "Policy", "Room", "Schedule"]


class Room:
    """A room of people and participants.

    `history` are the events of a journal to go on from. Use it as an async context manager: entering
    introduces whoever is new, leaving stops what runs. `files` takes what is addressed to files.
    """

    def __init__(
        self,
        *,
        participants: Iterable[Participant] = (),
        people: Sequence[str] = ("me",),
        journal: Journal | None = None,
        files: Sandbox | None = None,
        limits: Limits | None = None,
        schedule: Schedule | None = None,
        history: Iterable[Committed] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.schedule = schedule or Schedule()
        self._people = tuple(_valid_name(name) for name in people)
        self._participants: dict[str, Participant] = {}
        for participant in participants:
            name = _valid_name(participant.introduction.name)
            if name in self._participants or name in people:
                raise UsageError(f"two in the room are called `{name}`")
            self._participants[name] = participant
        self._ledger = Ledger(journal, history)
        self._left = False
        news = asyncio.Event()
        self._delivery = Delivery(self._ledger, files, news)
        self._turns = Turns(
            self._ledger, self._delivery, self._participants, self.schedule, self.limits, news
        )

    # -- life

    async def __aenter__(self) -> Room:
        events: list[Committed] = []
        for name, member in self.state.members.items():
            if member.memory and member.memory.open_turn:
                detail = "the process ended during the turn"
                events.append(TurnEnded(name, member.memory.open_turn, "interrupted", detail=detail))
            if name not in self._participants and name not in self._people:
                events.append(Left(name))
        events += [Joined(name, "person") for name in self._people if name not in self.state.members]
        for name, participant in self._participants.items():
            if name not in self.state.members:
                events.append(participant.introduction)
        await self._ledger.commit(*events)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        await self._turns.stop()

    def observe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Call `observer` with every event, after it is durable; returns what ends that. It is called
        within the room's own work: it must be quick, and what it raises is a bug that stops the room."""
        return self._ledger.observe(observer)

    # -- what people do

    async def say(self, sender: str, text: str) -> Stopped:
        """Post what a person says, and wait until the exchange that it causes is over.

        Giving up the wait does not stop the exchange, `interrupt` does. Raises `UsageError` when it is
        addressed to nobody who is here; then nothing is posted.
        """
        await self.post(sender, text)
        return await self.answer()

    async def post(self, sender: str, text: str, key: str = "", digest: str = "") -> list[Message]:
        """Post what a person says; `answer` gets it answered. `key` and `digest` are kept with it.
        Raises as `say`."""
        if self.state.member(sender).joined.kind != "person":
            raise UsageError(f"`{sender}` is not a person of this room")
        posted, refusals = await self._delivery.deliver(sender, "person", text, stamp=(key, digest))
        if not posted:
            raise UsageError(refusals[0] if refusals else "there is nothing in this message")
        for refusal in refusals:
            self._ledger.emit(Notice(refusal))
        messages = [event.message for event in posted if isinstance(event, Posted)]
        if self.schedule.policy == "mention" and all(m.audience.kind == "group" for m in messages):
            example = next(iter(self._participants), "name")
            self._ledger.emit(
                Notice("nobody was addressed; policy `mention` waits for a name", f"begin with `@{example}`")
            )
        return messages

    async def answer(self) -> Stopped:
        """Wait until what was posted is answered: as a part of the exchange that runs, or, when none
        does or that one is ending already, by the next."""
        await self._turns.ended()
        return await self.run()

    async def run(self) -> Stopped:
        """Let whoever has something unread speak, until the exchange is over; says why it is.
        While an exchange runs, waits for that one. Raises `UsageError` in a room that was left."""
        if self._left and not self._turns.running:
            raise UsageError("the room is closed")
        return await self._turns.run(self.limits)

    def interrupt(self) -> bool:
        """Stop the exchange now: cancel its turns and the tools they run. Partial replies are kept.

        Returns whether anything ran. Waiting for `say` or `run` tells when it has stopped.
        """
        return self._turns.interrupt()

    async def invite(self, participant: Participant) -> None:
        """Let a participant in. Raises `UsageError` when its name is taken or no name."""
        name = _valid_name(participant.introduction.name)
        if name in self.state.members or name in self._participants:
            raise UsageError(f"`{name}` is in the room already")
        self._participants[name] = participant
        await self._ledger.commit(participant.introduction)
        await self._delivery.announce(f"{name} has joined the room.")

    async def admit(self, person: str) -> None:
        """Let one more person in, until the room is left. Raises `UsageError` when the name is a
        participant's or no name; somebody who is here already stays."""
        name = _valid_name(person)
        if name in self._participants:
            raise UsageError(f"`{name}` is a participant of this room", "take another name")
        if name not in self.state.members:
            await self._ledger.commit(Joined(name, "person"))

    async def kick(self, name: str) -> None:
        """Send a participant out, in the middle of its turn too. Raises `UsageError` when nobody of
        that name is here."""
        if name not in self._participants:
            raise UsageError(f"no participant is called `{name}`", self.state.present)
        del self._participants[name]
        self._turns.silence(name)
        await self._ledger.commit(Left(name))
        await self._delivery.announce(f"{name} has left the room.")

    async def set_mode(self, name: str, mode: str) -> Audience:
        """Set somebody's standing audience: `group`, `direct:<id>` or `file:<path>`."""
        self.state.member(name)
        audience = parse_mode(mode, name, self.state.members)
        await self._ledger.commit(ModeChanged(name, audience))
        return audience

    async def note_model(self, name: str, model: str) -> None:
        """Keep that a participant speaks through another model from now on."""
        self.state.member(name)
        await self._ledger.commit(ModelChanged(name, model))

    async def clear(self) -> None:
        """Start everybody's view afresh; the transcript stays."""
        self._refuse_while_running()
        await self._ledger.commit(Cleared())

    async def undo(self) -> Message:
        """Take back the newest message of a person and all that came of it. Raises `UsageError`."""
        self._refuse_while_running()
        for message in reversed(self.transcript):
            if message.role == "person":
                await self._ledger.commit(Undone(message.id))
                return message
        raise UsageError("there is nothing to undo")

    def aside(self, name: str) -> Turn:
        """An occasion for a participant to tidy its view between exchanges. Raises `UsageError`."""
        self._refuse_while_running()
        self.state.member(name)
        return self._turns.occasion(name, self.state.turns, ())

    # -- what can be seen

    @property
    def state(self) -> State:
        return self._ledger.state

    @property
    def transcript(self) -> Sequence[Message]:
        return self.state.transcript

    @property
    def events(self) -> Sequence[Committed]:
        """All committed events, the undone ones included."""
        return self._ledger.events

    @property
    def participants(self) -> Mapping[str, Participant]:
        """The participants by name; people are not among them."""
        return self._participants

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.state.members)

    @property
    def usage(self) -> Usage:
        """Tokens of the newest exchange so far."""
        return self._turns.usage

    def _refuse_while_running(self) -> None:
        if self._turns.running:
            raise UsageError("the room is busy", "interrupt it first")


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name) or name in ("group", ROOM):
        raise UsageError(
            f"not a name: `{name}`", "small letters, digits, `-` and `_`, beginning with a letter, at most 32"
        )
    return name
