"""Commands on this machine itself, without a wall: for the inside of a guest, or at one's own risk.

What holds: the limits on memory, file size and CPU time of each process, the timeout, and that
the family is ended. What escapes: a process that left the session *and* scrubbed its environment
and closed its output; and everything that a wall would keep out.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from org.errors import EnvironmentProblem, SandboxGone
from org.ports import Command, ExecResult
from org.sandbox import files, process
from org.sandbox.limits import Limits, limited, within

GUEST_MARKER = Path("/run/org-guest")
_OUT_OF = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


class Local:
    """A `Sandbox` without walls. Raises `EnvironmentProblem` outside of a guest unless `unsafe`."""

    def __init__(self, workspace: Path, limits: Limits | None = None, *, unsafe: bool = False) -> None:
        guest = GUEST_MARKER.exists()
        if not (guest or unsafe):
            raise EnvironmentProblem(
                "commands would run on this machine without a sandbox",
                "install bubblewrap: `apt-get install bubblewrap`, or allow it: `--unsafe-local`",
            )
        self._workspace = workspace.absolute()
        self._limits = within(limits or Limits())
        # The kernel counts processes per user. A guest's user has no others; a person's desktop does,
        # and would not fit below any useful number.
        self._count = guest
        self._sh = os.path.realpath("/bin/sh")

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        if not command.scratch:
            return await self._exec(command, str(self._workspace), on_output)
        # What an escaped process still writes there must not become an error of this command.
        with tempfile.TemporaryDirectory(prefix="org-", ignore_cleanup_errors=True) as folder:
            return await self._exec(command, folder, on_output)

    async def _exec(
        self, command: Command, cwd: str, on_output: Callable[[bytes], None] | None
    ) -> ExecResult:
        mark = secrets.token_hex(8)
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": cwd,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            process.MARK: mark,
        }
        argv = limited(command.argv, self._limits, self._sh, processes=self._count)
        held = True
        try:
            ended = await process.run(command, argv, cwd=cwd, env=env, on_output=on_output)
            held = ended.held
        except process.NotStarted as error:
            held = False
            return _not_started(error, command, cwd)
        finally:
            if held:
                await process.sweep(mark)
        return ended.result

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        return files.read(self._workspace, path, limit)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        files.write(self._workspace, path, data, append=append)


def _not_started(error: OSError, command: Command, cwd: str) -> ExecResult:
    """What a shell would say of a program that it cannot start, unless the place is at fault."""
    if error.errno in _OUT_OF or not os.path.isdir(cwd):
        raise SandboxGone(f"no process can be started in `{cwd}`: {error.strerror}") from error
    text = f"{command.argv[0]}: {error.strerror}\n".encode(errors="replace")
    return ExecResult(127 if error.errno == errno.ENOENT else 126, text)
