"""The four protocols at which effects plug in. Everything that does I/O for a room stands
behind one of them; there are no others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from org.events import Committed, Delta, Event, Joined
from org.messages import ChatRequest, Completion, Message, View

Emit: TypeAlias = Callable[[Event], None]


class ChatModel(Protocol):
    async def complete(self, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        """Ask for one completion; `emit` gets its pieces as they come.

        Raises `ModelError`. Cancelling it ends the generation on the server too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in a sandbox.

    `timeout_s` is wall time, after which the whole process family is killed. `output_limit` is the
    number of bytes of output kept (head and tail). `scratch` gives it a working folder of its own
    that is removed afterwards, instead of the workspace.
    """

    argv: Sequence[str]
    stdin: bytes = b""
    timeout_s: float = 60.0
    output_limit: int = 16_384
    scratch: bool = False


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended. `exit_code` is negative for a signal, as in `subprocess`.

    `output` is standard output and error as they came, at most `Command.output_limit` bytes of it
    kept: its beginning, and its end with `left_out` bytes missing between the two.
    """

    exit_code: int
    head: bytes
    tail: bytes = b""
    left_out: int = 0
    timed_out: bool = False
    seconds: float = 0.0


class Sandbox(Protocol):
    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        """Run a command to its end; `on_output` gets its output as it comes (up to the limit).

        Raises `SandboxGone` when the place does not answer; a command that fails is a result.
        Cancelling it kills the whole process family before it returns.
        """
        ...

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        """Up to `limit` bytes of a file of the workspace. Raises `UsageError` for a path outside
        of it or a file that is not there."""
        ...

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file of the workspace, making its folders. Raises `UsageError` for a path
        outside of it, through a symbolic link that leads out too."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """An invitation to speak.

    `causes` are the messages that are new to the participant; `view` gives everything it sees,
    these included, and what it commits is in it the next time. `names` are all who are in the
    room. `commit` writes an event to the journal, then shows it; `emit` only shows. `post` says
    something before the turn is over (with `addressed`, only what is under an explicit address).
    `limit` names the limit that is reached, or is empty.
    """

    id: int
    participant: str
    causes: tuple[Message, ...]
    names: tuple[str, ...]
    view: Callable[[], View] = field(repr=False)
    commit: Callable[[Committed], Awaitable[None]] = field(repr=False)
    emit: Emit = field(repr=False)
    post: Callable[[str, bool], Awaitable[None]] = field(repr=False)
    limit: Callable[[], str] = field(repr=False)


class Participant(Protocol):
    @property
    def introduction(self) -> Joined:
        """Its name, and what the journal keeps of it when it enters."""
        ...

    async def respond(self, turn: Turn) -> str:
        """Answer. The text may address (`@id`, `#file:path`); `PASS` says nothing.

        Raises `OrgError` when it cannot; the room says so and goes on. When it is cancelled, a
        person interrupted: it stops what it started and may return what it had said so far.
        """
        ...


class Journal(Protocol):
    async def append(self, events: Sequence[Committed]) -> None:
        """Make the events durable, all or none, before returning. Raises `JournalError`."""
        ...
