"""What tests of a room are made of: models that answer from functions, and what was sent to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from org.chat.loop import Approval
from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES
from org.errors import ModelError, UsageError
from org.events import Committed, Delta, Event, Joined, Posted, TurnEnded
from org.messages import ChatRequest, Completion, Entry, Usage
from org.ports import Turn
from org.tooling import Origin, Tool, ToolCall, ToolError, ToolResult, ToolSpec

Answer: TypeAlias = "str | Completion | ModelError | Broken"

EMBEDDED = Origin("embedded", "hermes", (0, 1))


@dataclass
class Broken:
    """An answer that breaks off with `error` after `text`."""

    text: str
    error: ModelError


@dataclass
class Model:
    """Answers with what `answers` holds, one after another, then PASS; keeps every prompt it got.

    An answer may be a function of the request. With `gate` set, a completion waits for it after its
    first half was shown.
    """

    answers: list[Answer | Callable[[ChatRequest], Answer]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    usage: bool = False
    prompts: list[tuple[Entry, ...]] = field(default_factory=list)
    requests: list[ChatRequest] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    running: int = 0
    most: int = 0

    async def complete(self, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        self.prompts.append(tuple(request.view))
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else "PASS"
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, ModelError):
            raise answer
        if isinstance(answer, Broken):
            emit(Delta(answer.text))
            raise answer.error
        completion = Completion(answer, finish="stop") if isinstance(answer, str) else answer
        half = len(completion.text) // 2
        emit(Delta(completion.text[:half]))
        self.running += 1
        self.most = max(self.most, self.running)
        self.started.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        emit(Delta(completion.text[half:]))
        if self.usage and completion.usage is None:
            size = sum(entry.size for entry in request.view)
            return replace(completion, usage=Usage(size // 4, len(completion.text) // 4))
        return completion


def participant(
    name: str,
    *answers: Answer | Callable[[ChatRequest], Answer],
    model: Any = None,
    tools: Sequence[Tool] = (),
    profile: str = "simple",
    approval: Approval | None = None,
    model_name: str = "",
    system: str = "",
    **sampling: Any,
) -> ModelParticipant:
    return ModelParticipant(
        Joined(name, "model", profile, model_name, system or f"You are {name}."),
        PROFILES[profile],
        model if model is not None else Model(list(answers)),
        tools,
        Sampling(**sampling),
        approval or Approval(),
    )


def model_of(participant: ModelParticipant) -> Model:
    assert isinstance(participant.model, Model)
    return participant.model


@dataclass
class Echo:
    """A participant of our own: answers with a function of its turn."""

    name: str
    answer: Callable[[Turn], str]

    @property
    def introduction(self) -> Joined:
        return Joined(self.name, "model")

    async def respond(self, turn: Turn) -> str:
        await asyncio.sleep(0)
        return self.answer(turn)


def call(tool: str, id: str = "call00001", origin: Origin | None = None, **arguments: Any) -> ToolCall:
    return ToolCall(id, tool, arguments, origin or Origin())


def calling(*calls: ToolCall, text: str = "") -> Completion:
    return Completion(text, calls, finish="tool_calls")


def tool(
    name: str = "sh",
    run: Callable[[ToolCall], str | ToolError] = lambda call: "done",
    policy: Any = "run",
) -> Tool:
    async def go(call: ToolCall, on_output: Callable[[str], None]) -> ToolResult:
        on_output("working")
        output = run(call)
        if isinstance(output, ToolError):
            return ToolResult(call.id, "", output, exit_code=1)
        return ToolResult(call.id, output, exit_code=0)

    return Tool(ToolSpec(name, f"runs {name}", {"type": "object", "properties": {}}), go, policy)


@dataclass
class Files:
    """A workspace in memory. It runs nothing."""

    written: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        if path.startswith("/") or ".." in path:
            raise UsageError(f"outside of the workspace: `{path}`")
        self.written[path] = (self.written.get(path, "") if append else "") + data.decode()

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        return self.written[path].encode()[:limit]

    async def exec(self, command: Any, on_output: Any = None) -> Any:
        raise AssertionError("nothing is run here")


@dataclass
class Memo:
    """A journal in memory that takes its time; from event number `broken` on it fails with `error`,
    or with `once` only that time."""

    events: list[Committed] = field(default_factory=list)
    broken: int = -1
    error: Exception | None = None
    once: bool = False

    async def append(self, events: Sequence[Committed]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        if self.error and len(self.events) + len(events) > self.broken >= 0:
            if self.once:
                self.broken = -1
            raise self.error
        self.events += events


def posts(events: Sequence[Event]) -> list[tuple[str, str, str]]:
    """(sender, audience, content) of what was said, announcements of the room left out."""
    return [
        (e.message.sender, str(e.message.audience), e.message.content)
        for e in events
        if isinstance(e, Posted) and e.message.role != "system"
    ]


def endings(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(e.participant, e.status) for e in events if isinstance(e, TurnEnded)]
