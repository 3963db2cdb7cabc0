"""A machine as a place where commands run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from org.errors import EnvironmentProblem
from org.ports import Command, ExecResult
from org.sandbox.vm import frames, git_guest
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.link import linked
from org.sandbox.vm.machine import Machine, Status
from org.wording import one_line

WORKSPACES = "/srv/org"
"""The folder in a guest that holds the workspaces, one for each room."""


class ThisMachine:
    """The machine that this process itself runs in, whose agent runs commands as another user."""

    def __init__(self, socket: Path = Path(frames.JOBS)) -> None:
        self._socket = socket

    @property
    def there(self) -> bool:
        """Whether this process is in one, and may have commands run there."""
        return os.access(self._socket, os.R_OK | os.W_OK)

    @asynccontextmanager
    async def channel(self, surroundings: Surroundings) -> AsyncIterator[Channel]:
        """Commands and files, as `job`, in the workspaces. Raises `SandboxGone`."""
        async with linked(self._socket, "the agent of this machine") as link:
            yield Channel(link, surroundings)


class VirtualMachine:
    """A `Sandbox` in a machine, in the workspace `/srv/org/<workspace>` there.

    Each call connects anew: a machine that went down and came up again is the same place.
    """

    def __init__(self, machine: Machine | ThisMachine, workspace: str, *, memory: int) -> None:
        """`memory` bounds each command with all that it starts, in bytes."""
        self._machine = machine
        self.folder = f"{WORKSPACES}/{workspace}"
        self._surroundings = Surroundings(self.folder, memory=memory)

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        async with self._machine.channel(self._surroundings) as channel:
            return await channel.exec(command, on_output)

    async def clear(self) -> None:
        """Empty the workspace, where an earlier room of the same name may have left something; one into
        which work was pushed since then stays as it is.

        Raises `SandboxGone`, `EnvironmentProblem` when something stays.
        """
        result = await self.exec(Command(["sh", "-c", git_guest.EMPTIED]))
        if result.exit_code:
            said = (result.head + result.tail).decode(errors="replace").strip()
            raise EnvironmentProblem(f"{self.folder} in the machine cannot be emptied: {one_line(said, 200)}")

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        async with self._machine.channel(self._surroundings) as channel:
            return await channel.read_file(path, limit)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        async with self._machine.channel(self._surroundings) as channel:
            await channel.write_file(path, data, append=append)


def memory_here() -> int:
    """What one command may use of the machine that this process is in, likewise."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def memory_of(status: Status) -> int:
    """What one command may use of a machine that is up, in bytes: half of what it has."""
    return int(status.facts["memory_mib"]) * 1024**2 // 2
