"""A git on this host that talks to one in the guest: their streams joined, and the guest's bounded."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from org.errors import EnvironmentProblem
from org.sandbox.vm.channel import Attached, Channel
from org.sandbox.vm.git_host import Done, Repository

MOST_BYTES = 2 * 1024**3
"""Bytes that a guest may send at a time."""
MOST_S = 3600.0
"""Seconds that it may take."""

_MOST_REFS = 10_000
_MOST_LISTED = 4_194_304  # bytes of their list
_MOST_SAID = 65_536
_READ = 65_536
_LAST_WORD_S = 10.0
_SIZE = re.compile(rb"[0-9a-fA-F]{4}")


class Intake:
    """Counts what a guest sends, and reads along its list of refs, which git would keep whole in memory."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._total = 0
        self._held = bytearray()
        self._listed = 0
        self._refs = 0
        self._in_list = True

    def count(self, size: int) -> None:
        """So many bytes came. Raises `EnvironmentProblem` when these are too many."""
        self._total += size
        if self._total > self._most_bytes:
            raise EnvironmentProblem(
                f"the machine sent more than {self._most_bytes:,} bytes; nothing was kept"
            )

    def take(self, data: bytes) -> None:
        """Bytes that go to git. Raises `EnvironmentProblem` for too many, and for what is no list of refs."""
        self.count(len(data))
        if not self._in_list:
            return
        self._held += data
        self._listed += len(data)
        while self._in_list and len(self._held) >= 4 and (size := self._next()):
            del self._held[:size]
        if self._in_list and self._listed > _MOST_LISTED:
            raise EnvironmentProblem("the machine lists too many branches; nothing was kept")

    def _next(self) -> int:
        """Bytes of the line that is complete, or 0."""
        if not _SIZE.fullmatch(self._held, 0, 4):
            raise EnvironmentProblem("what answers in the machine is no git")
        size = int(self._held[:4], 16)
        if size == 0:
            self._in_list = False
            self._held.clear()
            return 0
        if size < 5 or self._held.startswith(b"version ", 4):  # of a protocol that was not asked for
            raise EnvironmentProblem("what answers in the machine is not the git that was asked for")
        if size > len(self._held):
            return 0
        self._refs += 1
        if self._refs > _MOST_REFS:
            raise EnvironmentProblem(f"the machine lists more than {_MOST_REFS:,} branches; nothing was kept")
        return size


@dataclass(frozen=True, slots=True)
class Talked:
    """How both sides ended. `code` and `said` are the guest's; it may not have said how it ended."""

    host: Done
    code: int | None
    said: bytes


async def talk(
    repository: Repository,
    words: Sequence[str],
    refspecs: Sequence[str],
    *,
    channel: Channel,
    argv: Sequence[str],
    env: Mapping[str, str],
    intake: Intake,
    on_said: Callable[[bytes], None],
) -> Talked:
    """Run git with `words`, the guest's `argv` in place of a remote, and `refspecs`.

    Raises `SandboxGone`, and `EnvironmentProblem` for a guest that sends too much.
    """
    ours, theirs = socket.socketpair()
    async with channel.attached(argv, env=env) as attached:
        # `fd::` is git's own way to a remote that somebody else has connected already.
        full = [*words, f"fd::{theirs.fileno()}", *refspecs]
        git = asyncio.create_task(repository.run(full, end=theirs, on_said=on_said))
        guest = asyncio.create_task(_join(attached, ours, intake))
        try:
            await asyncio.wait((git, guest), return_when=asyncio.FIRST_COMPLETED)
            if guest.done():
                guest.result()
            done = await git
            with suppress(TimeoutError):  # it has nothing to say to a git that is gone
                async with asyncio.timeout(_LAST_WORD_S):
                    await guest
            said = b"" if guest.cancelled() else guest.result()
        finally:
            git.cancel()
            guest.cancel()
            await asyncio.gather(git, guest, return_exceptions=True)
            ours.close()  # had one of the tasks not begun
            theirs.close()
    return Talked(done, attached.code, said)


async def _join(attached: Attached, ours: socket.socket, intake: Intake) -> bytes:
    """Pass bytes between the guest's command and the socket, to the end of both; what the guest
    complained of, the beginning of it."""
    reader, writer = await asyncio.open_connection(sock=ours)
    said = bytearray()
    feeding = asyncio.create_task(_feed(attached, reader))
    try:
        while (piece := await attached.next()) is not None:
            stream, data = piece
            if stream == 2:
                intake.count(len(data))
                said += data[: _MOST_SAID - len(said)]
                continue
            intake.take(data)
            writer.write(data)
            with suppress(ConnectionError):  # that git is gone: its end says why
                await writer.drain()
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return bytes(said)


async def _feed(attached: Attached, reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_READ):
            await attached.write(data)
    attached.finish()
