"""What is on the screen, as values: a fold over a room's events, committed and passing. Pure.

Settled blocks stand in the order of the transcript; below them whoever speaks has a live block, in
the order in which they began. What is said moves from the one to the other when the room has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from org.chat.flow import Flow
from org.chat.routing import is_pass
from org.chat.state import Member
from org.events import (
    CallFinished,
    CallOutput,
    CallStarted,
    Cleared,
    Committed,
    Delta,
    Event,
    Invited,
    ModeChanged,
    ModelChanged,
    Notice,
    Posted,
    SoFar,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
    Undone,
    counting,
)
from org.messages import Audience, Role
from org.tooling import ToolCall
from org.wording import address, describe, duration

KEPT_BLOCKS = 400
"""Settled blocks that stay on the screen at least; the transcript keeps all."""

PRUNED_AT_ONCE = 100
OUTPUT_TAIL = 2000
"""Characters of a running command's output that are shown."""

Kind: TypeAlias = Literal["message", "thought", "call", "notice", "problem", "over", "output"]


@dataclass(slots=True, eq=False)
class Block:
    """Something settled. `title` is a line of our own about it, `text` what somebody wrote.

    `at` is Unix time; `message` the id of what was said, for taking it back. `folded` is None where
    there is nothing to fold.
    """

    kind: Kind
    who: str = ""
    title: str = ""
    text: str = ""
    audience: Audience | None = None
    role: Role = "model"
    at: float = 0.0
    message: int = 0
    call: CallFinished | None = None
    folded: bool | None = None


@dataclass(slots=True, eq=False)
class Live:
    """Somebody's turn as it goes. Times are seconds on the screen's own clock.

    `said` only grows, (audience when it changes, text), until `take` begins it anew; that raises `number`.
    """

    who: str
    model: str
    since: float
    doing: str = "thinking"
    doing_since: float = 0.0
    said: list[tuple[Audience | None, str]] = field(default_factory=list)
    number: int = 0
    thoughts: list[str] = field(default_factory=list)
    thought_size: int = 0
    call: ToolCall | None = None
    output: str = ""
    unsaid: str = ""  # of the newest step, what the room has not got (yet)
    flow: Flow | None = None
    folded: bool | None = True

    def do(self, what: str, now: float) -> None:
        if self.doing != what:
            self.doing, self.doing_since = what, now

    def take(self) -> None:
        """What was said so far is settled, or is no longer to be seen."""
        self.said = []
        self.flow = None
        self.number += 1


@dataclass(slots=True)
class Figures:
    """What the newest exchange took. `began` and `ended` are on the screen's own clock, or None."""

    turns: int = 0
    tokens: int = 0
    tools: int = 0
    began: float | None = None
    ended: float | None = None

    def seconds(self, now: float) -> float:
        if self.began is None:
            return 0.0
        return (now if self.ended is None else self.ended) - self.began


class Scene:
    """Fed with events and the time at which they came. `members` are all who are in the room now."""

    def __init__(self, members: Callable[[], Mapping[str, Member]]) -> None:
        self._members = members
        self.blocks: list[Block] = []
        self.live: dict[str, Live] = {}
        self.figures = Figures()
        self.pruned = 0
        """How many blocks before the first of `blocks` are no longer kept."""
        self.rebuilt = 0
        """Grows when `blocks` are no longer what they were, but for new ones at the end."""

    @property
    def running(self) -> bool:
        return bool(self.live) or (self.figures.began is not None and self.figures.ended is None)

    def load(self, events: Iterable[Committed], now: float) -> None:
        """Begin anew with these events of the past."""
        self.blocks, self.live, self.figures, self.pruned = [], {}, Figures(), 0
        self.rebuilt += 1
        kept = counting(events)
        for event in kept:
            self.apply(event, now)
        if kept and isinstance(kept[-1], Stopped):
            self.figures = Figures()

    def apply(self, event: Event, now: float) -> None:
        match event:
            case Delta():
                self._delta(event, now)
            case Posted():
                self._posted(event, now)
            case Invited(name) | TurnStarted(name):
                self._turn(event, name, now)
            case Stepped(name):
                self._stepped(event, self._live(name, now))
            case CallStarted(name, call):
                live = self._live(name, now)
                self._settle_thought(live)
                live.take()
                live.call, live.output = call, ""
                live.do(f"running {describe(call)}", now)
            case CallOutput(name, _, text):
                live = self._live(name, now)
                live.output = (live.output + text)[-OUTPUT_TAIL:]
            case CallFinished(name):
                live = self._live(name, now)
                self._settle_thought(live)
                live.take()
                live.call, live.output = None, ""
                live.do("thinking", now)
                self.figures.tools += 1
                self._add(Block("call", name, call=event, folded=True))
            case SoFar(name):
                self._so_far(event, self._live(name, now), now)
            case TurnEnded():
                self._ended(event, now)
            case Stopped(reason, detail):
                self._stopped(reason, detail, now)
            case _:
                self._remark(event)

    def add(self, kind: Kind, text: str, title: str = "") -> None:
        """Show something that is no event: an answer to a command, say."""
        self._add(Block(kind, title=title, text=text))

    # -- speech

    def _delta(self, event: Delta, now: float) -> None:
        live = self._live(event.participant, now)
        self._settle_unsaid(live)
        if event.kind == "reasoning":
            live.thoughts.append(event.text)
            live.thought_size += len(event.text)
            live.do("thinking", now)
            return
        live.do("speaking", now)
        if live.flow is None:
            members = self._members()
            standing = members[live.who].mode if live.who in members else Audience.everyone()
            live.flow = Flow(live.who, standing, members)
        live.said += live.flow.feed(event.text)

    def _so_far(self, event: SoFar, live: Live, now: float) -> None:
        """What was shown of it may lack something: it is begun anew."""
        live.model = event.model or live.model
        live.thoughts, live.thought_size = [], 0
        live.take()
        if event.reasoning:
            self._delta(Delta(event.reasoning, "reasoning", event.participant), now)
        if event.text:
            self._delta(Delta(event.text, "text", event.participant), now)
        live.call, live.output = event.call, event.output[-OUTPUT_TAIL:]
        if event.call is not None:
            live.do(f"running {describe(event.call)}", now)

    def _stepped(self, event: Stepped, live: Live) -> None:
        if event.usage:
            self.figures.tokens += event.usage.total
        if live.flow is not None:
            live.said += live.flow.finish()
            live.flow = None
        self._settle_unsaid(live)
        self._settle_thought(live)
        live.unsaid = event.text

    def _posted(self, event: Posted, now: float) -> None:
        message = event.message
        if message.role == "person" and not self.running:
            self.figures = Figures(began=now)
        if message.role == "model" and message.sender in self.live:
            live = self.live[message.sender]
            live.unsaid = ""
            self._settle_thought(live)
            live.take()
        self._add(
            Block(
                "message",
                message.sender,
                text=message.content,
                audience=message.audience,
                role=message.role,
                at=message.at,
                message=message.id,
            )
        )

    def _settle_thought(self, live: Live) -> None:
        if live.thoughts:
            text = "".join(live.thoughts)
            self._add(Block("thought", live.who, "thought", text, folded=True))
            live.thoughts, live.thought_size = [], 0

    def _settle_unsaid(self, live: Live) -> None:
        """What a step said and nobody was sent is for the person to look up, like a thought."""
        text, live.unsaid = live.unsaid.strip(), ""
        if text and not is_pass(text):
            self._add(Block("thought", live.who, "said to itself", text, folded=True))
        if text:
            live.take()

    # -- turns

    def _turn(self, event: Invited | TurnStarted, name: str, now: float) -> None:
        live = self._live(name, now)
        if isinstance(event, TurnStarted):
            live.model = event.model or live.model
            return
        if self.figures.began is None or self.figures.ended is not None:
            self.figures = Figures(began=now)
        self.figures.turns += 1

    def _live(self, name: str, now: float) -> Live:
        """The live block of a participant; whoever joins late begins it with what comes first."""
        if name not in self.live:
            member = self._members().get(name)
            model = member.joined.model if member else ""
            self.live[name] = Live(name, model, now, doing_since=now)
        return self.live[name]

    def _ended(self, event: TurnEnded, now: float) -> None:
        live = self.live.pop(event.participant, None)
        if live is not None:
            self._settle_thought(live)
            self._settle_unsaid(live)
        name, how = event.participant, event.status
        if how == "passed":
            self._add(Block("notice", title=f"{name} passes"))
        elif how == "interrupted":
            if live is None:
                return  # that was said already, when the server was found to have ended
            reason = f": {event.detail}" if event.detail else ""
            self._add(Block("problem", title=f"{name} was interrupted{reason}"))
        elif how == "failed":
            title = f"{name}'s turn failed: {event.detail}"
            if not any(block.title.startswith(title) for block in self.blocks[-20:]):
                self._add(Block("problem", title=title))  # a notice with a hint may have said so

    def _stopped(self, reason: str, detail: str, now: float) -> None:
        figures = self.figures
        figures.ended = now
        parts = [f"{figures.turns} turn{'s' * (figures.turns != 1)}"]
        if figures.began is not None and now > figures.began:
            parts.append(duration(now - figures.began))
        if figures.tokens:
            parts.append(f"{figures.tokens:,} tokens")
        words = " · ".join(parts)
        if reason not in ("quiet", "passed"):
            words = f"stopped ({reason}{f': {detail}' if detail else ''}) · {words}"
        self._add(Block("over", title=words))

    # -- the rest

    def _remark(self, event: Event) -> None:
        match event:
            case Notice(text, hint):
                self._add(Block("problem", title=f"{text}{f' ({hint})' if hint else ''}"))
            case ModeChanged(name, audience):
                self._add(Block("notice", title=f"{name} now speaks to {address(audience)}"))
            case ModelChanged(name, model):
                self._add(Block("notice", title=f"{name} now speaks through {model}"))
            case Cleared():
                self._add(Block("over", title="everybody starts afresh"))
            case Undone(message):
                self._undo(message)
            case _:
                pass

    def _undo(self, message: int) -> None:
        for place, block in enumerate(self.blocks):
            if block.message and block.message >= message:
                del self.blocks[place:]
                break
        self.rebuilt += 1

    def _add(self, block: Block) -> None:
        self.blocks.append(block)
        if len(self.blocks) >= KEPT_BLOCKS + PRUNED_AT_ONCE:
            del self.blocks[:PRUNED_AT_ONCE]
            self.pruned += PRUNED_AT_ONCE
