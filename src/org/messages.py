"""Messages of a room, and the view of them that one model is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from org.tooling import ToolCall, ToolSpec

Role: TypeAlias = Literal["person", "model", "system"]


@dataclass(frozen=True, slots=True)
class Audience:
    """Who a message is for: everyone, some participants by name, or a file of the workspace."""

    kind: Literal["group", "direct", "file"] = "group"
    names: tuple[str, ...] = ()
    path: str = ""

    @classmethod
    def everyone(cls) -> Audience:
        return EVERYONE

    @classmethod
    def only(cls, *names: str) -> Audience:
        return cls("direct", names)

    @classmethod
    def file(cls, path: str) -> Audience:
        return cls("file", path=path)

    def includes(self, name: str) -> bool:
        """Whether a model of that name is addressed (people see everything besides)."""
        return self.kind == "group" or name in self.names

    def __str__(self) -> str:
        if self.kind == "group":
            return "group"
        return "direct:" + ",".join(self.names) if self.kind == "direct" else "file:" + self.path


EVERYONE = Audience()


@dataclass(frozen=True, slots=True)
class Message:
    """One committed message.

    `id` counts from 1 within the room; `at` is Unix time in seconds; `cause` is the id of the
    newest message it answers (None for a person's own); `hop` counts answers since a person spoke.
    """

    id: int
    sender: str
    role: Role
    audience: Audience
    content: str
    at: float
    cause: int | None = None
    hop: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion as the server counted them; `cached` of `prompt` came from its cache."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached
        )

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a view, in the terms of chat completions.

    `calls` only with role assistant; `call_id` only with role tool.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    @property
    def size(self) -> int:
        """Characters of the entry in a prompt, about; a chat template adds a few to each."""
        calls = sum(len(call.name) + len(str(call.arguments)) + 24 for call in self.calls)
        return len(self.content) + calls + 24


class View:
    """What one model is sent, in order. It only ever grows at its end.

    Whoever turns a view into bytes may therefore keep what it made for the entries so far:
    a view is hashable by identity and can be weakly referenced for that.
    """

    __slots__ = ("__weakref__", "_entries", "size")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)
        self.size = sum(entry.size for entry in self._entries)
        """Characters of all entries in a prompt, about."""

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.size += entry.size

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def since(self, index: int) -> Sequence[Entry]:
        """The entries from `index` on."""
        return self._entries[index:]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One completion to ask for. `stop` are texts at which the server ends it."""

    model: str
    view: View
    tools: tuple[ToolSpec, ...] = ()
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 4096
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered: cleaned text, and the calls it declared or wrote, in order.

    `finish` is the server's word (`stop`, `length`, `tool_calls`), or empty when it gave none.
    `incomplete` says that a call was cut off; that call is not among `calls`.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    finish: str = ""
    incomplete: bool = False
    usage: Usage | None = None
