"""The room: who is in it, who hears what, whose turn it is, and when it is over.

The room is the only writer: everything that happens goes through its ledger, which makes it durable,
folds it into the state, and shows it, in this order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from org.chat.exchange import CUTTING, Exchange, Limits
from org.chat.ledger import Ledger
from org.chat.routing import NAME, is_pass, parse_mode, route
from org.chat.schedule import Policy, Schedule, Seat, next_speaker
from org.chat.state import Member, State
from org.errors import JournalError, ModelError, OrgError, UsageError
from org.events import (
    Cleared,
    Committed,
    Event,
    Invited,
    Joined,
    Left,
    ModeChanged,
    ModelChanged,
    Notice,
    Posted,
    Stopped,
    StopReason,
    TurnEnded,
    TurnStarted,
    TurnStatus,
    Undone,
)
from org.lock import ChannelLock
from org.messages import Audience, Message, Role, Usage, View
from org.ports import Journal, Participant, Sandbox, Turn

__all__ = ["Limits", "Policy", "Room", "Schedule"]

ROOM = "room"
"""The sender of what the room itself says."""

FILE_TIMEOUT_S = 30.0

NAMED_REFUSALS = 5
"""How many different refusals are told of one text; the rest are counted."""

REFUSAL_LENGTH = 300
"""Characters of one refusal: a path can be as long as the text that it was read from."""


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
        self._files = files
        self._file_lock = ChannelLock("a file of the workspace")
        self._exchange = Exchange(self.limits)
        self._running: asyncio.Task[Stopped] | None = None
        self._left = False
        self._turns: dict[asyncio.Task[None], str] = {}
        self._replies: dict[str, asyncio.Task[str]] = {}
        self._news = asyncio.Event()  # something was posted, or a turn is over

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
        if self._running is not None:
            self.interrupt()
            await asyncio.shield(self._running)

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
        if self._member(sender).joined.kind != "person":
            raise UsageError(f"`{sender}` is not a person of this room")
        posted, refusals = await self._deliver(sender, "person", text, stamp=(key, digest))
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
        while self._running is not None and self._exchange.halt is not None:
            await asyncio.wait([self._running])
        return await self.run()

    async def run(self) -> Stopped:
        """Let whoever has something unread speak, until the exchange is over; says why it is.
        While an exchange runs, waits for that one. Raises `UsageError` in a room that was left."""
        if self._running is None:
            if self._left:
                raise UsageError("the room is closed")
            self._exchange = Exchange(self.limits)
            self._running = asyncio.create_task(self._run(self._exchange))
        return await asyncio.shield(self._running)

    def interrupt(self) -> bool:
        """Stop the exchange now: cancel its turns and the tools they run. Partial replies are kept.

        Returns whether anything ran. Waiting for `say` or `run` tells when it has stopped.
        """
        if self._running is None:
            return False
        self._halt("interrupted")
        return True

    async def invite(self, participant: Participant) -> None:
        """Let a participant in. Raises `UsageError` when its name is taken or no name."""
        name = _valid_name(participant.introduction.name)
        if name in self.state.members or name in self._participants:
            raise UsageError(f"`{name}` is in the room already")
        self._participants[name] = participant
        await self._ledger.commit(participant.introduction)
        await self._post(ROOM, "system", [(Audience.everyone(), f"{name} has joined the room.")])

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
            raise UsageError(f"no participant is called `{name}`", self._present())
        del self._participants[name]
        if name in self._replies:
            self._replies[name].cancel()
        await self._ledger.commit(Left(name))
        await self._post(ROOM, "system", [(Audience.everyone(), f"{name} has left the room.")])

    async def set_mode(self, name: str, mode: str) -> Audience:
        """Set somebody's standing audience: `group`, `direct:<id>` or `file:<path>`."""
        self._member(name)
        audience = parse_mode(mode, name, self.state.members)
        await self._ledger.commit(ModeChanged(name, audience))
        return audience

    async def note_model(self, name: str, model: str) -> None:
        """Keep that a participant speaks through another model from now on."""
        self._member(name)
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
        self._member(name)
        return self._occasion(name, self.state.turns, ())

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
        return self._exchange.usage

    # -- the exchange

    async def _run(self, exchange: Exchange) -> Stopped:
        timer = None
        if self.limits.seconds > 0:
            timer = asyncio.get_running_loop().call_later(self.limits.seconds, self._halt, "seconds")
        try:
            self._invite()
            while self._turns:
                self._news.clear()
                await self._news.wait()
                for task in [task for task in self._turns if task.done()]:
                    del self._turns[task]
                    task.result()  # a bug in a turn ends the room's work here
                self._invite()
        finally:
            if timer is not None:
                timer.cancel()
            if self._turns:
                self._halt("interrupted")
                await asyncio.gather(*self._turns, return_exceptions=True)
                self._turns.clear()
            self._running = None
        stopped = exchange.stopped()
        await self._ledger.commit(stopped)
        return stopped

    def _halt(self, reason: StopReason) -> None:
        """End the exchange for this reason; whoever speaks is cut short, except by a mere count."""
        if self._exchange.halt not in CUTTING:
            self._exchange.halt = reason
            if reason in CUTTING:
                for reply in self._replies.values():
                    reply.cancel()

    def _invite(self) -> None:
        """Begin the turns of all whose turn it is now."""
        exchange = self._exchange
        while exchange.halt is None:
            members = self.state.members
            roster = [
                Seat(name, participant.introduction.model, members[name].unread)
                for name, participant in self._participants.items()
                if name in members
            ]
            name = next_speaker(self.schedule, roster, self._turns.values(), exchange.last_speaker)
            if not name:
                return
            if reason := exchange.full():
                self._halt(reason)
                return
            exchange.turns += 1
            exchange.last_speaker = name
            causes = tuple(members[name].unread)
            self.state.turns += 1
            turn = self._occasion(name, self.state.turns, causes)
            task = asyncio.create_task(self._turn(self._participants[name], turn))
            task.add_done_callback(lambda _: self._news.set())
            self._turns[task] = name

    async def _turn(self, participant: Participant, turn: Turn) -> None:
        began = time.monotonic()
        name = turn.participant
        memory = self.state.members[name].memory if name in self.state.members else None
        introduction = participant.introduction
        causes = tuple(message.id for message in turn.causes)
        await self._ledger.commit(Invited(name, turn.id, causes, introduction.limit))
        self._ledger.emit(TurnStarted(name, turn.id, introduction.model))
        status, text, detail = await self._answer(participant, turn)
        if text:
            await turn.post(text, False)
        # A participant that commits no steps, or was cut short, finds its words in the end of its turn.
        seen = memory is None or memory.view.since(-1)[0].role == "assistant"
        seconds = round(time.monotonic() - began, 3)
        await turn.commit(TurnEnded(name, turn.id, status, seconds, detail, "" if seen else text))

    async def _answer(self, participant: Participant, turn: Turn) -> tuple[TurnStatus, str, str]:
        """(how a turn ended, what is to be posted, why it was cut short or failed)."""
        name = turn.participant
        if self._is_cut(participant, name):
            return "interrupted", "", ""
        reply = self._replies[name] = asyncio.create_task(participant.respond(turn))
        try:
            text = await reply
        except asyncio.CancelledError:
            return "interrupted", "", ""
        except JournalError:
            raise  # it is the room that cannot go on
        except OrgError as error:
            self._ledger.emit(Notice(f"{name}'s turn failed: {error.message}", error.hint, name))
            return "failed", error.said if isinstance(error, ModelError) else "", error.message
        finally:
            del self._replies[name]
        silent = not text.strip()
        if self._is_cut(participant, name):
            return "interrupted", "" if is_pass(text) else text.strip(), ""
        if silent and (limit := self._exchange.spent()):
            self._halt(limit)
            return "interrupted", "", f"limit reached: {limit}"
        return ("passed", "", "") if silent or is_pass(text) else ("answered", text, "")

    def _is_cut(self, participant: Participant, name: str) -> bool:
        """Whether a turn is interrupted, or its participant was sent out."""
        return self._exchange.halt in CUTTING or self._participants.get(name) is not participant

    def _occasion(self, name: str, turn_id: int, causes: tuple[Message, ...]) -> Turn:
        """What a participant is handed to speak with."""
        exchange, memory = self._exchange, self.state.members[name].memory
        participant = self._participants.get(name)

        async def commit(event: Committed) -> None:
            exchange.note(event)
            await self._ledger.commit(event)

        async def post(text: str, addressed: bool) -> None:
            # Who was sent out while it spoke is not heard any more: the end of its turn keeps its words.
            if self._participants.get(name) is participant:
                await self._reply(name, causes, text, only_addressed=addressed)

        return Turn(
            id=turn_id,
            participant=name,
            causes=causes,
            names=self.names,
            view=lambda: memory.view if memory else View(),
            commit=commit,
            emit=self._ledger.emit,
            post=post,
            limit=lambda: exchange.spent() or "",
        )

    # -- posting

    async def _reply(
        self, name: str, causes: tuple[Message, ...], text: str, *, only_addressed: bool
    ) -> None:
        """Post what a participant said. An address that names nobody goes back to it, once an exchange."""
        exchange = self._exchange
        cause = causes[-1].id if causes else None
        hop = 1 + max((message.hop for message in causes), default=0)
        posted, refusals = await self._deliver(name, "model", text, cause, hop, only_addressed=only_addressed)
        for event in posted:
            exchange.note(event)
        for refusal in refusals:
            self._ledger.emit(Notice(f"{name}: {refusal}", participant=name))
        if refusals and name not in exchange.refused and exchange.halt is None:
            exchange.refused.add(name)
            await self._post(ROOM, "system", [(Audience.only(name), "\n".join(refusals))], cause, hop)

    async def _deliver(
        self,
        sender: str,
        role: Role,
        text: str,
        cause: int | None = None,
        hop: int = 0,
        *,
        only_addressed: bool = False,
        stamp: tuple[str, str] = ("", ""),
    ) -> tuple[Sequence[Committed], list[str]]:
        """(what was posted, why the rest was not), by the addresses in a text."""
        routed = route(text, sender, {*self.names, *self.state.gone}, self._member(sender).mode)
        refusals = [str(refusal) for refusal in routed.refused]
        accepted: list[tuple[Audience, str]] = []
        for segment in routed.segments:
            if only_addressed and not segment.addressed:
                continue
            audience = segment.audience
            left = [name for name in audience.names if name not in self.state.members]
            if left:
                refusals.append(f"{' and '.join(left)} left and did not get your words")
                audience = Audience.only(*[name for name in audience.names if name not in left])
            elif audience.kind == "file" and (
                problem := await self._write_file(audience.path, segment.content)
            ):
                refusals.append(problem)
                continue
            if audience.kind != "direct" or audience.names:
                accepted.append((audience, segment.content))
        return await self._post(sender, role, accepted, cause, hop, stamp), _bounded(refusals)

    async def _write_file(self, path: str, content: str) -> str:
        """Append to a file of the workspace; why that could not be done, or empty."""
        if self._files is None:
            return f"this room has no workspace: nothing was written to `{path}`"
        try:
            async with self._file_lock.hold(FILE_TIMEOUT_S):
                await self._files.write_file(path, f"{content}\n".encode(errors="replace"), append=True)
        except OrgError as error:
            return f"nothing was written to `{path}`: {error.message}"
        return ""

    async def _post(
        self,
        sender: str,
        role: Role,
        contents: Sequence[tuple[Audience, str]],
        cause: int | None = None,
        hop: int = 0,
        stamp: tuple[str, str] = ("", ""),
    ) -> Sequence[Committed]:
        """Post messages, numbered in the order in which they are written."""

        def make() -> list[Committed]:
            now = time.time()
            return [
                Posted(Message(number, sender, role, audience, content, now, cause, hop), *stamp)
                for number, (audience, content) in enumerate(contents, self.state.next_id)
            ]

        posted = await self._ledger.write(make)
        self._news.set()
        return posted

    # -- small questions

    def _member(self, name: str) -> Member:
        if name not in self.state.members:
            raise UsageError(f"nobody here is called `{name}`", self._present())
        return self.state.members[name]

    def _present(self) -> str:
        return "here are: " + ", ".join(self.state.members)

    def _refuse_while_running(self) -> None:
        if self._running is not None:
            raise UsageError("the room is busy", "interrupt it first")


def _bounded(refusals: Sequence[str]) -> list[str]:
    """What is told of refusals: each once, the first few, and how many there are beside."""
    short = (
        refusal if len(refusal) <= REFUSAL_LENGTH else f"{refusal[:REFUSAL_LENGTH]}…" for refusal in refusals
    )
    told = list(dict.fromkeys(short))
    more = len(told) - NAMED_REFUSALS
    return [*told[:NAMED_REFUSALS], f"and {more} more"] if more > 0 else told


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name) or name in ("group", ROOM):
        raise UsageError(
            f"not a name: `{name}`", "small letters, digits, `-` and `_`, beginning with a letter, at most 32"
        )
    return name
