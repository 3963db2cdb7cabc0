"""Whose a machine is: one process at a time holds its lock. The one that it lives in has its number there."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from org.errors import Busy, SandboxGone
from org.sandbox.vm.layout import MachineFolder

_LOCK_S = 1.0  # somebody who only looks holds the lock for a moment
_POLL_S = 0.02
_MOST_DIGITS = 20
_BEAT_S = 1.0


class Hold:
    """A machine's lock, held."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    def in_place(self) -> bool:
        """Whether the machine's folder is there, with this very lock in it."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.lstat())
        except OSError:
            return False

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Show meanwhile that its process goes on, to who has `Patience`."""
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    async def _beat(self) -> None:
        while True:
            os.utime(self._fd)
            await asyncio.sleep(_BEAT_S)


class Patience:
    """With the process that a machine lives in: `over` once it has not been seen to go on for so many
    seconds, however long all that it does may take."""

    def __init__(self, folder: MachineFolder, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._beat = self._last()
        self._deadline = asyncio.get_running_loop().time() + seconds

    def over(self) -> bool:
        now = asyncio.get_running_loop().time()
        if (beat := self._last()) != self._beat:
            self._beat, self._deadline = beat, now + self._seconds
        return now > self._deadline

    def _last(self) -> int:
        with suppress(FileNotFoundError):
            return self._folder.lock.stat().st_mtime_ns
        return 0


@asynccontextmanager
async def holding(folder: MachineFolder, pid: int = 0) -> AsyncIterator[Hold]:
    """Be the only one who does something with the machine, which lives in the process `pid`, if any.

    Raises `Busy`, and `SandboxGone` when there is no such machine any more.
    """
    gone = SandboxGone(f"the machine `{folder.path.name}` is not there any more", "`org vm up`")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(folder.lock, flags, 0o600)
    except FileNotFoundError as error:
        raise gone from error
    try:
        await _locked(lock, folder)
        hold = Hold(lock, folder.lock)
        if not hold.in_place():
            raise gone
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % pid if pid else b"", 0)
        yield hold
    finally:
        os.close(lock)


async def _locked(lock: int, folder: MachineFolder) -> None:
    deadline = asyncio.get_running_loop().time() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if asyncio.get_running_loop().time() > deadline:
                pid = holder(folder)
                which = f" (process {pid})" if pid else ""
                raise Busy(
                    f"the machine `{folder.path.name}` runs already{which}", "`org vm down` ends it"
                ) from error
        await asyncio.sleep(_POLL_S)


def holder(folder: MachineFolder) -> int | None:
    """The process that the machine lives in, None when it is down."""
    try:
        lock = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        said = os.pread(lock, _MOST_DIGITS, 0)
        return (int(said) or None) if said.isdigit() else None
    finally:
        os.close(lock)
