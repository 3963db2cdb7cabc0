"""Tools as values: what a model may call, what it called, what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

ToolErrorKind: TypeAlias = Literal[
    "unknown_tool",  # no tool of that name was declared
    "bad_arguments",  # not a JSON object, or it does not fit the tool's schema
    "denied",  # the policy or a person said no
    "unattended",  # the policy says to ask, and there is nobody to ask
    "failed",  # the command ran and ended with an error
    "timeout",  # it ran longer than it may
    "repeated",  # the same call with the same result, again
    "interrupted",  # a person stopped the turn
    "sandbox_gone",  # the place where commands run does not answer
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from.

    `kind` is `declared` (the server reported it) or `embedded` (found in the text);
    for an embedded call `grammar` names the format and `span` is its (start, end) in
    characters of the raw text of the completion.
    """

    kind: Literal["declared", "embedded"] = "declared"
    grammar: str = ""
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. `arguments` is a JSON object; when the model wrote something that is none,
    it is empty and `error` says what was wrong (such a call is answered, never run)."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    origin: Origin = Origin()
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolError:
    kind: ToolErrorKind
    message: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to. `output` is text for the model, already bounded in size.

    `exit_code` is the command's, negative for a signal, None where no command ran;
    `seconds` is wall time.
    """

    call_id: str
    output: str
    error: ToolError | None = None
    exit_code: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of a participant: its spec, and what runs it.

    `run(call, on_output)` answers with a result, whatever happened, except that it lets
    `SandboxGone` and cancellation through; `on_output(text)` may be called with pieces of
    output while the call runs. `policy` decides who allows a call.
    """

    spec: ToolSpec
    run: Callable[[ToolCall, Callable[[str], None]], Awaitable[ToolResult]] = field(repr=False)
    policy: Literal["run", "ask", "off"] = "run"
