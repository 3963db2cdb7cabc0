"""What an extraction comes to, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from org.tooling import ToolCall


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A call that was cut off. It is never run; `name` is empty when the cut came before it.

    `grammar` names the format; `span` is its (start, end) in characters of the raw text.
    """

    name: str
    grammar: str
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that looks like a call and is none: it stays in the visible text."""

    span: tuple[int, int]
    grammar: str
    reason: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """The calls found in a text, and the text without them.

    `calls` are in order, with empty ids and the origin `embedded`. `content` is the visible text:
    everything but the calls and their wrappers. `tail` is the end of it that no `feed` of a stream
    has returned (all of it for a whole text). `incomplete` are calls that were cut off, neither run
    nor shown.
    """

    calls: tuple[ToolCall, ...]
    content: str
    incomplete: tuple[Incomplete, ...] = ()
    tail: str = ""
    refused: tuple[Refusal, ...] = ()
