"""The room: who is in it, who hears what, whose turn it is, and when it is over.

The room is the only writer: everything that happens goes through `_commit`, which makes it durable,
folds it into the state, and shows it, in this order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeAlias

from org.chat.guards import Stagnation
from org.chat.routing import NAME, is_pass, parse_mode, route
from org.chat.state import Member, State
from org.errors import OrgError, UsageError
from org.events import (
    CallFinished,
    Cleared,
    Committed,
    Event,
    Invited,
    Joined,
    Left,
    ModeChanged,
    Notice,
    Posted,
    Stepped,
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

ROOM = "room"
"""The sender of what the room itself says."""

CUTTING: tuple[StopReason, ...] = ("interrupted", "seconds")
"""Reasons that cut a turn short at once; the others let it come to the end of its step."""

FILE_TIMEOUT_S = 30.0

Policy: TypeAlias = Literal["in-turn", "parallel", "mention"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange (all that a person's message causes) may take; 0 is no limit.

    `repeats` is how many near-identical messages going round end it.
    """

    turns: int = 30
    seconds: float = 900.0
    tokens: int = 200_000
    tools: int = 60
    repeats: int = 3


@dataclass(frozen=True, slots=True)
class Schedule:
    """Whose turn it is.

    `in-turn`: one after another in the order of the roster. `parallel`: all who have something
    unread, at most `parallel` at once and `per_model` of one model; turns of one model are grouped,
    so that a server need not swap models. `mention`: only who is addressed by name, one by one.
    """

    policy: Policy = "in-turn"
    parallel: int = 4
    per_model: int = 1


class _Exchange:
    """The account of one exchange."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.began = time.monotonic()
        self.turns = 0
        self.tools = 0
        self.usage = Usage()
        self.posted = 0
        self.failed = 0
        self.unattended = False
        self.halt: StopReason | None = None
        self.refused: set[str] = set()
        self.stagnation = Stagnation(limits.repeats)

    def limit(self) -> StopReason | None:
        """The limit that is reached, if one is."""
        limits = self.limits
        if 0 < limits.seconds <= time.monotonic() - self.began:
            return "seconds"
        if 0 < limits.tokens <= self.usage.total:
            return "tokens"
        if 0 < limits.tools <= self.tools:
            return "tools"
        return None

    def stopped(self) -> Stopped:
        """Why it is over, once nobody has anything left to read or `halt` is set."""
        if self.halt is not None:
            return Stopped(self.halt, self._detail(self.halt))
        if self.unattended:
            return Stopped("denied", "a tool call needed approval and nobody was there to give it")
        if self.failed:
            return Stopped("failed", f"{self.failed} of {self.turns} turns failed")
        return Stopped("quiet" if self.posted or not self.turns else "passed")

    def _detail(self, reason: StopReason) -> str:
        limits = self.limits
        details: dict[StopReason, str] = {
            "turns": f"{self.turns} of {limits.turns} turns",
            "seconds": f"{time.monotonic() - self.began:.0f} of {limits.seconds:.0f} s",
            "tokens": f"{self.usage.total:,} of {limits.tokens:,} tokens",
            "tools": f"{self.tools} of {limits.tools} tool calls",
            "stagnation": "the same message keeps going round",
        }
        return details.get(reason, "")


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
        limits: Limits = Limits(),
        schedule: Schedule = Schedule(),
        history: Iterable[Committed] = (),
    ) -> None:
        self.limits = limits
        self.schedule = schedule
        self.state = State()
        self._people = tuple(people)
        self._participants: dict[str, Participant] = {}
        for participant in participants:
            name = participant.introduction.name
            if name in self._participants or name in people:
                raise UsageError(f"two in the room are called `{name}`")
            self._participants[_valid_name(name)] = participant
        self._journal = journal
        self._files = files
        self._log: list[Committed] = list(history)
        self._observers: list[Callable[[Event], None]] = []
        self._writing = asyncio.Lock()
        self._file_lock = ChannelLock()
        self._running: asyncio.Task[Stopped] | None = None
        self._turns: dict[asyncio.Task[None], str] = {}
        self._replies: dict[str, asyncio.Task[str]] = {}
        self._exchange = _Exchange(limits)
        self._last_speaker = ""
        self._last_model = ""

    # -- life

    async def __aenter__(self) -> Room:
        self.state = State.of(self._log)
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
        await self._commit(*events)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self.interrupt()
            await asyncio.wait([self._running])

    def observe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Call `observer` with every event, after it is durable; returns what ends that. It is called
        within the room's own work: it must be quick, and what it raises is a bug that stops the room."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    # -- what people do

    async def say(self, sender: str, text: str) -> Stopped:
        """Post what a person says, and wait until the exchange that it causes is over.

        Said while an exchange runs, it becomes a part of that one. Raises `UsageError` when it is
        addressed to nobody who is here; then nothing is posted.
        """
        member = self._member(sender)
        if member.joined.kind != "person":
            raise UsageError(f"`{sender}` is not a person of this room")
        posted, refusals = await self._deliver(sender, "person", text, None, 0)
        if not posted:
            raise UsageError(refusals[0] if refusals else "there is nothing in this message")
        for refusal in refusals:
            self._emit(Notice(refusal))
        return await self.run()

    async def run(self) -> Stopped:
        """Let whoever has something unread speak, until the exchange is over; says why it is."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
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
        if name in self.state.members:
            raise UsageError(f"`{name}` is in the room already")
        self._participants[name] = participant
        await self._commit(participant.introduction)
        await self._announce(f"{name} has joined the room.")

    async def kick(self, name: str) -> None:
        """Send a participant out. Raises `UsageError` when nobody of that name is here."""
        if name not in self._participants:
            raise UsageError(f"no participant is called `{name}`", self._present())
        del self._participants[name]
        if name in self._replies:
            self._replies[name].cancel()
        await self._commit(Left(name))
        await self._announce(f"{name} has left the room.")

    async def set_mode(self, name: str, mode: str) -> Audience:
        """Set somebody's standing audience: `group`, `direct:<id>` or `file:<path>`."""
        self._member(name)
        audience = parse_mode(mode, name, self.state.members)
        await self._commit(ModeChanged(name, audience))
        return audience

    def aside(self, name: str) -> Turn:
        """An occasion for a participant to tidy its view between exchanges. Raises `UsageError`."""
        self._refuse_while_running()
        self._member(name)
        return self._occasion(name, self.state.turns, (), 0, 0)

    async def clear(self) -> None:
        """Start everybody's view afresh; the transcript stays."""
        self._refuse_while_running()
        await self._commit(Cleared())

    async def undo(self) -> Message:
        """Take back the newest message of a person and all that came of it. Raises `UsageError`."""
        self._refuse_while_running()
        for message in reversed(self.state.transcript):
            if message.role == "person":
                await self._commit(Undone(message.id))
                self.state = State.of(self._log)
                return message
        raise UsageError("there is nothing to undo")

    # -- what can be seen

    @property
    def transcript(self) -> Sequence[Message]:
        return self.state.transcript

    @property
    def events(self) -> Sequence[Committed]:
        """All committed events, the undone ones included."""
        return self._log

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

    async def _run(self) -> Stopped:
        exchange = self._exchange = _Exchange(self.limits)
        timer = None
        if self.limits.seconds > 0:
            timer = asyncio.get_running_loop().call_later(self.limits.seconds, self._halt, "seconds")
        try:
            while True:
                while exchange.halt is None and (name := self._next()):
                    if 0 < self.limits.turns <= exchange.turns:
                        self._halt("turns")
                        break
                    exchange.turns += 1
                    self._last_speaker = name
                    self._last_model = self.state.members[name].joined.model
                    task = asyncio.create_task(self._turn(self._participants[name], name))
                    self._turns[task] = name
                if not self._turns:
                    break
                done, _ = await asyncio.wait(self._turns, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del self._turns[task]
                    task.result()  # a bug in a turn ends the room's work here
                if exchange.halt is None and (reason := exchange.limit()):
                    self._halt(reason)
        finally:
            if timer is not None:
                timer.cancel()
            if self._turns:
                self._cancel_replies()
                await asyncio.wait(self._turns)
                self._turns.clear()
            self._running = None
        stopped = exchange.stopped()
        await self._commit(stopped)
        return stopped

    def _halt(self, reason: StopReason) -> None:
        """End the exchange for this reason; whoever speaks is cut short, except by a mere count."""
        if self._exchange.halt is None:
            self._exchange.halt = reason
            if reason in CUTTING:
                self._cancel_replies()

    def _cancel_replies(self) -> None:
        for reply in self._replies.values():
            reply.cancel()

    def _next(self) -> str:
        """Who is to be invited now, or empty."""
        policy = self.schedule.policy
        at_once = self.schedule.parallel if policy == "parallel" else 1
        if len(self._turns) >= at_once:
            return ""
        speaking = set(self._turns.values())
        waiting = [
            name
            for name in self._in_order()
            if name not in speaking and self._has_reason(self.state.members[name], policy)
        ]
        if policy != "parallel":
            return waiting[0] if waiting else ""
        busy: dict[str, int] = {}
        for name in speaking:
            model = self._model_of(name)
            busy[model] = busy.get(model, 0) + 1
        waiting = [
            n
            for n in waiting
            if not self._model_of(n) or busy.get(self._model_of(n), 0) < self.schedule.per_model
        ]
        same = [name for name in waiting if self._model_of(name) == self._last_model]
        return (same or waiting or [""])[0]

    def _in_order(self) -> list[str]:
        """The participants in the order of the roster, beginning after who spoke last."""
        names = [name for name in self.state.members if name in self._participants]
        if self._last_speaker in names:
            start = names.index(self._last_speaker) + 1
            names = names[start:] + names[:start]
        return names

    def _model_of(self, name: str) -> str:
        return self.state.members[name].joined.model if name in self.state.members else ""

    @staticmethod
    def _has_reason(member: Member, policy: Policy) -> bool:
        if policy != "mention":
            return bool(member.unread)
        return any(message.audience.kind == "direct" for message in member.unread)

    async def _turn(self, participant: Participant, name: str) -> None:
        exchange = self._exchange
        causes = tuple(self.state.members[name].unread)
        turn_id = self.state.turns + 1
        self.state.turns = turn_id
        began = time.monotonic()
        cause, hop = causes[-1].id, max(message.hop for message in causes) + 1
        await self._commit(Invited(name, turn_id, tuple(message.id for message in causes)))
        self._emit(TurnStarted(name, turn_id, self._model_of(name)))

        member = self.state.members[name]
        turn = self._occasion(name, turn_id, causes, cause, hop)
        status: TurnStatus = "answered"
        text = detail = ""
        try:
            reply = self._replies[name] = asyncio.create_task(_reply(participant, turn))
            if exchange.halt in CUTTING:
                reply.cancel()
            text = await reply
        except asyncio.CancelledError:
            status = "interrupted"
        except OrgError as error:
            status, detail = "failed", error.message
            exchange.failed += 1
            self._emit(Notice(f"{name}'s turn failed: {error.message}", error.hint, name))
        finally:
            self._replies.pop(name, None)
        if status == "answered" and (exchange.halt in CUTTING or name not in self._participants):
            status = "interrupted"
        unseen = text if status == "interrupted" or _unanswered(member) else ""
        if status == "answered" and (not text.strip() or is_pass(text)):
            status = "passed"
        elif text.strip() and not is_pass(text):
            await self._post_reply(name, text, cause, hop)
        seconds = round(time.monotonic() - began, 3)
        await self._commit(TurnEnded(name, turn_id, status, seconds, detail, unseen))

    def _occasion(self, name: str, turn_id: int, causes: tuple[Message, ...], cause: int, hop: int) -> Turn:
        """What a participant is handed to speak with."""
        exchange = self._exchange

        async def commit(event: Committed) -> None:
            if isinstance(event, Stepped) and event.usage:
                exchange.usage += event.usage
            elif isinstance(event, CallFinished):
                exchange.tools += 1
                if event.result.error and event.result.error.kind == "unattended":
                    exchange.unattended = True
            await self._commit(event)

        async def post(text: str, addressed: bool) -> None:
            await self._post_reply(name, text, cause, hop, only_addressed=addressed)

        def limit() -> str:
            return exchange.halt or exchange.limit() or ""

        member = self.state.members[name]
        return Turn(
            id=turn_id,
            participant=name,
            causes=causes,
            names=self.names,
            view=lambda: member.memory.view if member.memory else View(),
            commit=commit,
            emit=self._emit,
            post=post,
            limit=limit,
        )

    async def _post_reply(
        self, name: str, text: str, cause: int, hop: int, *, only_addressed: bool = False
    ) -> None:
        """Post what a model said. An address that names nobody goes back to it, once an exchange."""
        exchange = self._exchange
        posted, refusals = await self._deliver(name, "model", text, cause, hop, only_addressed=only_addressed)
        exchange.posted += len(posted)
        for message in posted:
            if exchange.stagnation.note(message.content) and exchange.halt is None:
                self._halt("stagnation")
        for refusal in refusals:
            self._emit(Notice(f"{name}: {refusal}", participant=name))
        if refusals and name not in exchange.refused:
            exchange.refused.add(name)
            content = "\n".join(refusals)
            await self._write(
                lambda: [self._message(ROOM, "system", Audience.only(name), content, cause, hop)]
            )

    async def _deliver(
        self,
        sender: str,
        role: Role,
        text: str,
        cause: int | None,
        hop: int,
        *,
        only_addressed: bool = False,
    ) -> tuple[list[Message], list[str]]:
        """(messages posted, why others were not), by the addresses in a text."""
        member = self._member(sender)
        routed = route(text, sender, self.names, member.mode)
        refusals = [str(refusal) for refusal in routed.refused]
        accepted: list[tuple[Audience, str]] = []
        for segment in routed.segments:
            audience = segment.audience
            if only_addressed and not segment.addressed:
                continue
            if audience.kind == "direct" and not any(n in self.state.members for n in audience.names):
                refusals.append(f"{' and '.join(audience.names)} left; your words were not delivered")
                continue
            if audience.kind == "file" and (
                problem := await self._append_to_file(audience.path, segment.content)
            ):
                refusals.append(problem)
                continue
            accepted.append((audience, segment.content))
        if not accepted:
            return [], refusals

        def make() -> list[Committed]:
            first = self.state.next_id
            return [
                self._message(sender, role, audience, content, cause, hop, number)
                for number, (audience, content) in enumerate(accepted, first)
            ]

        events = await self._write(make)
        return [event.message for event in events if isinstance(event, Posted)], refusals

    async def _append_to_file(self, path: str, content: str) -> str:
        """Append to a file of the workspace; returns why it could not be done."""
        if self._files is None:
            return f"this room has no workspace: nothing was written to `{path}`"
        try:
            async with self._file_lock.hold(FILE_TIMEOUT_S):
                await self._files.write_file(path, f"{content}\n".encode(errors="replace"), append=True)
        except UsageError as error:
            return f"nothing was written to `{path}`: {error.message}"
        return ""

    def _message(
        self,
        sender: str,
        role: Role,
        audience: Audience,
        content: str,
        cause: int | None,
        hop: int,
        number: int = 0,
    ) -> Posted:
        number = number or self.state.next_id
        return Posted(Message(number, sender, role, audience, content, time.time(), cause, hop))

    async def _announce(self, text: str) -> None:
        await self._write(lambda: [self._message(ROOM, "system", Audience.everyone(), text, None, 0)])

    # -- writing

    async def _commit(self, *events: Committed) -> None:
        await self._write(lambda: events)

    async def _write(self, make: Callable[[], Sequence[Committed]]) -> Sequence[Committed]:
        """Commit the events that `make` builds from the state as it then is. Once begun, it is done
        whole: a caller that is cancelled meanwhile does not leave the journal ahead of the state."""
        if self._journal is None:
            events = make()
            self._apply(events)
            return events
        return await asyncio.shield(self._write_durably(self._journal, make))

    async def _write_durably(
        self, journal: Journal, make: Callable[[], Sequence[Committed]]
    ) -> Sequence[Committed]:
        async with self._writing:
            events = make()
            if events:
                await journal.append(events)
                self._apply(events)
            return events

    def _apply(self, events: Sequence[Committed]) -> None:
        for event in events:
            self._log.append(event)
            self.state.apply(event)
        for event in events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

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


def _unanswered(member: Member) -> bool:
    """Whether a turn left nothing in the view: its participant answers without committing steps."""
    return member.memory is not None and member.memory.view.since(-1)[0].role == "user"


async def _reply(participant: Participant, turn: Turn) -> str:
    return await participant.respond(turn)


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name) or name in ("group", ROOM):
        raise UsageError(
            f"not a name: `{name}`", "small letters, digits, `-` and `_`, beginning with a letter, at most 32"
        )
    return name
