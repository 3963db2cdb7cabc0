"""What happens in a room, as values.

*Committed* events are written to the journal before anybody sees them, and the state of a room
(transcript, roster, inboxes, views) is a fold over them, live and on resume alike. *Passing*
events (`Delta`, `CallStarted`, `CallOutput`, `TurnStarted`, `SoFar`, `Asked`, `Notice`) are only
shown; an observer that is slow may lose them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from org.messages import Audience, Message, Usage
from org.tooling import ToolCall, ToolResult

TurnStatus: TypeAlias = Literal["answered", "passed", "interrupted", "failed"]
StopReason: TypeAlias = Literal[
    "quiet",  # nobody has anything unread
    "passed",  # everybody who was asked passed
    "turns",
    "seconds",
    "tokens",
    "tools",
    "stagnation",
    "interrupted",
    "failed",  # turns failed and nobody is left to speak
    "denied",  # a call needed a person's word and there was no terminal
]


# -- committed


@dataclass(frozen=True, slots=True)
class Joined:
    """A participant entered, with what resuming needs to ask it the same way again.

    `limit` is how many characters of its prompts one entry may take, 0 for any number."""

    name: str
    kind: Literal["person", "model"]
    profile: str = ""
    model: str = ""
    system: str = ""
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    name: str


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """The standing audience of a participant."""

    name: str
    audience: Audience


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """The model that a participant speaks through from now on."""

    name: str
    model: str


@dataclass(frozen=True, slots=True)
class Posted:
    """Something was said. `key` is what whoever sent it told it apart by, so that asking twice says it
    once; one text may have become several messages. `digest` is of all that was sent with the key."""

    message: Message
    key: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Invited:
    """A turn begins: `participant` is shown the messages `causes` (ids, in order).

    `limit` is how many characters an entry of its view may take from here on, 0 for any number; it
    is kept, so that the view comes out the same when the room is gone on with."""

    participant: str
    turn: int
    causes: tuple[int, ...]
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Stepped:
    """One completion of a turn: the text as the model will see it again, and its calls."""

    participant: str
    turn: int
    text: str
    calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    finish: str = ""


@dataclass(frozen=True, slots=True)
class CallFinished:
    participant: str
    turn: int
    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Nudged:
    """The room tells a model something within its turn (go on, say it again); only it sees that."""

    participant: str
    turn: int
    text: str


NO_SUMMARY = "(no summary could be made)"
"""How a `Compacted.summary` begins that is none but says something else; an empty one is none either."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """The first `dropped` entries after the system prompt were replaced by `summary`
    (by a marker that says so when there is none)."""

    participant: str
    dropped: int
    summary: str

    @property
    def summarised(self) -> bool:
        return bool(self.summary) and not self.summary.startswith(NO_SUMMARY)


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn is over. `detail` says why when it failed; `text` is what was said and not committed as
    a step: before an interrupt or a failure, or by a participant that has no steps."""

    participant: str
    turn: int
    status: TurnStatus
    seconds: float = 0.0
    detail: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Everybody's view starts afresh; the transcript stays in the journal."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The message `message` (an id) and everything after it no longer count."""

    message: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """An exchange is over, and why. `detail` names the numbers of a limit."""

    reason: StopReason
    detail: str = ""


# -- passing


@dataclass(frozen=True, slots=True)
class TurnStarted:
    participant: str
    turn: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a completion as it comes; the room fills in who speaks."""

    text: str
    kind: Literal["text", "reasoning"] = "text"
    participant: str = ""


@dataclass(frozen=True, slots=True)
class CallStarted:
    participant: str
    call: ToolCall


@dataclass(frozen=True, slots=True)
class CallOutput:
    participant: str
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class SoFar:
    """What a turn has come to since its last step, for whoever begins to watch in the middle of it: it
    takes the place of what was shown of that before. `call` is the one that runs, if any."""

    participant: str
    turn: int
    model: str = ""
    text: str = ""
    reasoning: str = ""
    call: ToolCall | None = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call waits for a person's word, under the name `id`, until it starts or finishes."""

    id: str
    participant: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people should know; `hint` is the next step."""

    text: str
    hint: str = ""
    participant: str = ""


Committed: TypeAlias = (
    Joined
    | Left
    | ModeChanged
    | ModelChanged
    | Posted
    | Invited
    | Stepped
    | CallFinished
    | Nudged
    | Compacted
    | TurnEnded
    | Cleared
    | Undone
    | Stopped
)
Passing: TypeAlias = TurnStarted | Delta | CallStarted | CallOutput | SoFar | Asked | Notice
Event: TypeAlias = Committed | Passing

_LASTING = (Joined, Left, ModelChanged)


def counting(events: Iterable[Committed]) -> list[Committed]:
    """The events without those that were undone: a message, and all that came after it up to the
    undoing, except who came, left or changed model, which an undo does not take back."""
    kept: list[Committed] = []
    for event in events:
        if not isinstance(event, Undone):
            kept.append(event)
            continue
        place = begin = len(kept)
        # From the end, since that is where it is; numbers of messages only grow.
        while place and not _posted_before(kept[place - 1], event.message):
            place -= 1
            if isinstance(kept[place], Posted):
                begin = place
        kept[begin:] = [later for later in kept[begin:] if isinstance(later, _LASTING)]
    return kept


def _posted_before(event: Committed, message: int) -> bool:
    return isinstance(event, Posted) and event.message.id < message
