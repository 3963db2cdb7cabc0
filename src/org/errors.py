"""Every error that `org` expects, and the exit code each one ends a command with.

    OrgError
    ├── UsageError              2   the words of a command or a call are off
    │   └── ConfigError         2   a setting is unknown, mistyped or not allowed here
    ├── ModelError              1   a completion failed; the room goes on
    │   ├── ServerUnreachable   7   nothing answered at that address
    │   ├── ServerRefused       1   the server answered with an error (status, message)
    │   │   └── ContextExceeded 1   the prompt is longer than the model's context
    │   ├── StreamBroken        1   the answer stopped before its end
    │   └── StreamStalled       1   nothing came for longer than the idle timeout
    ├── EnvironmentProblem      7   a package, disk, port or permission is missing
    │   ├── SandboxGone         7   the place where commands run does not answer (not: a command failed)
    │   └── JournalError        7   the journal cannot be read or written
    │       ├── JournalCorrupt  7
    │       └── JournalTooNew   7
    ├── Inconclusive            3   a gate could not decide
    ├── Conflict                4   two changes do not go together (files)
    ├── Stale                   5   what was decided on has changed since
    ├── Busy                    6   somebody else holds it; the message names the holder
    │   └── LockTimeout         6
    └── Denied                 10   the policy says ask, and there is nobody to ask

Standard library only, no import of `org`: the rescue path uses it too.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The one table of exit codes; `docs/operations.md` explains each."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    CONFLICT = 4
    STALE = 5
    BUSY = 6
    ENVIRONMENT = 7
    LIMIT = 8
    STAGNATION = 9
    DENIED = 10
    INTERRUPTED = 130


class OrgError(Exception):
    """Base of all expected errors: one line that names the thing, and the next step.

    `message` is the line; `hint` is what to type or change next, or empty.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OrgError):
    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    pass


class ModelError(OrgError):
    """`said` is what the model had said of its answer until then."""

    said = ""


class ServerUnreachable(ModelError):
    exit_code = ExitCode.ENVIRONMENT


class ServerRefused(ModelError):
    """The server answered with an HTTP error, or with an error event inside the stream.

    `status` is the HTTP status, or 0 for an error inside a stream.
    """

    def __init__(self, message: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class ContextExceeded(ServerRefused):
    pass


class StreamBroken(ModelError):
    pass


class StreamStalled(ModelError):
    pass


class EnvironmentProblem(OrgError):
    exit_code = ExitCode.ENVIRONMENT


class SandboxGone(EnvironmentProblem):
    pass


class JournalError(EnvironmentProblem):
    pass


class JournalCorrupt(JournalError):
    pass


class JournalTooNew(JournalError):
    pass


class Inconclusive(OrgError):
    exit_code = ExitCode.INCONCLUSIVE


class Conflict(OrgError):
    """`files` are the paths that both sides changed in ways that do not fit."""

    exit_code = ExitCode.CONFLICT

    def __init__(self, message: str, hint: str = "", *, files: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.files = files


class Stale(OrgError):
    exit_code = ExitCode.STALE


class Busy(OrgError):
    exit_code = ExitCode.BUSY


class LockTimeout(Busy):
    pass


class Denied(OrgError):
    exit_code = ExitCode.DENIED
