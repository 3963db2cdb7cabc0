"""One process and its group: started, streamed, timed, ended and reaped. Linux only.

Nothing here polls. The kernel tells of output through the pipe and of the end through a pidfd, and
both wake the one coroutine that waits. There is no `preexec_fn` either, so that the child is made
with vfork, and no thread or transport per child.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import select
import signal
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from org.errors import UsageError
from org.ports import Command, ExecResult

MARK = "ORG_JOB"  # the variable by which a family is known, wherever its members went
_PIPE_BYTES = 65_536  # what a pipe holds: one read empties it
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class NotStarted(OSError):
    """The system refused to start the process; `errno` and `strerror` say why."""


class Collector:
    """Keeps the beginning and the end of a stream of bytes, `limit` bytes in all, however long it is.

    The first half of the limit is the head; the rest is the end, wherever that turns out to be.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._head_limit = limit // 2
        self._tail_limit = limit - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_limit :] if self._tail_limit else b""
        # Cut only when it has doubled: each byte is then moved once on average.
        if len(self._tail) > 2 * self._tail_limit:
            del self._tail[: -self._tail_limit]

    def finish(self) -> tuple[bytes, bytes, int]:
        """(head, tail, bytes left out between them); everything is head when nothing was left out."""
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        left_out = self.total - len(self._head) - len(tail)
        if left_out:
            return bytes(self._head), tail, left_out
        return bytes(self._head) + tail, b"", 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `held` says that something outlived it or may have: it was killed, or
    its output was still open to somebody after its whole group had been killed."""

    result: ExecResult
    held: bool


class _Running:
    """A started process with the descriptors that tell of it, and what they told so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.output = output
        self.pidfd = os.pidfd_open(process.pid)
        self.news = asyncio.Event()
        self.exited = False
        self.late = False
        self.open = True

    def watch(self, timeout_s: float) -> asyncio.TimerHandle:
        os.set_blocking(self.output, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.output, self.news.set)
        loop.add_reader(self.pidfd, self._on_exit)
        return loop.call_later(timeout_s, self._on_timeout)

    def unwatch(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.output)
        loop.remove_reader(self.pidfd)

    def _on_exit(self) -> None:
        self.exited = True
        self.news.set()

    def _on_timeout(self) -> None:
        self.late = not self.exited
        self.news.set()

    def read(self, size: int) -> bytes:
        """What is there, at most `size` bytes; empty when nothing is, or nobody can write any more."""
        try:
            data = os.read(self.output, size)
        except BlockingIOError:
            return b""
        if not data:
            self.open = False
            asyncio.get_running_loop().remove_reader(self.output)
        return data

    def pending(self) -> int:
        """The number of bytes that stand in the pipe now."""
        count = array.array("i", [0])
        fcntl.ioctl(self.output, termios.FIONREAD, count)
        return count[0]


async def run(
    command: Command,
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    on_output: Callable[[bytes], None] | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Run `argv` in a session of its own; stdin, time and output limit are those of `command`.

    When this returns or raises, cancelled or not, the process is reaped and every member of its
    process group was killed. Whoever left the group (`setsid`) is the caller's to end. Raises
    `NotStarted`, and `UsageError` for words with zero bytes; nothing is left behind then.
    """
    started = asyncio.get_running_loop().time()
    try:
        running = _start(argv, cwd, env, command.stdin, pass_fds)
    except OSError as error:
        raise NotStarted(error.errno, error.strerror) from error
    except ValueError as error:
        raise UsageError(f"no program can be given these words: {error}") from error
    collector = Collector(command.output_limit)
    timer = running.watch(command.timeout_s)
    try:
        while not (running.exited or running.late):
            await running.news.wait()
            running.news.clear()
            _take(running, _PIPE_BYTES, collector, command.output_limit, on_output)
        running.unwatch()
        await _end(running)
        # What was written before the end still stands in the pipe. Not one byte more is read: a
        # process that escaped the group may go on writing for ever.
        _take(running, running.pending(), collector, command.output_limit, on_output)
        held = running.late or (running.open and not _hung_up(running.output))
    finally:
        timer.cancel()
        try:
            await _end(running)
        finally:
            running.unwatch()
            os.close(running.pidfd)
            os.close(running.output)
    head, tail, left_out = collector.finish()
    seconds = asyncio.get_running_loop().time() - started
    exit_code = running.process.returncode
    return Ended(ExecResult(exit_code, head, tail, left_out, running.late, seconds), held)


def _start(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], stdin: bytes, pass_fds: Sequence[int]
) -> _Running:
    with ExitStack() as ours, ExitStack() as theirs:
        source = sealed(stdin) if stdin else os.open(os.devnull, os.O_RDONLY)
        theirs.callback(os.close, source)
        output, write_end = os.pipe()
        ours.callback(os.close, output)
        theirs.callback(os.close, write_end)
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=write_end,
            stderr=write_end,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        ours.callback(process.wait)
        ours.callback(process.kill)
        running = _Running(process, output)
        ours.pop_all()
    return running


def sealed(data: bytes) -> int:
    """A descriptor that reads `data` and then ends.

    Unlike a pipe it needs nobody to feed it, whether the command reads it or not; sealed, it cannot
    be written by the command.
    """
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _take(
    running: _Running,
    size: int,
    collector: Collector,
    limit: int,
    on_output: Callable[[bytes], None] | None,
) -> None:
    data = running.read(size) if running.open and size else b""
    shown = data[: max(0, limit - collector.total)]
    collector.feed(data)
    if shown and on_output is not None:
        on_output(shown)


async def _end(running: _Running) -> None:
    """Kill the group and reap its leader. Called again, it does nothing."""
    if running.process.returncode is not None:
        return
    # Before the leader is reaped: until then nobody else can be given its number.
    with suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    try:
        await gone(running.pidfd)
    finally:
        running.process.wait()


async def gone(pidfd: int) -> None:
    """Wait until the process of `pidfd` has ended, through cancellation too, which is raised then."""
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    while not _readable(pidfd):
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        except asyncio.CancelledError as error:
            cancelled = error
        finally:
            loop.remove_reader(pidfd)
    if cancelled is not None:
        raise cancelled


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _hung_up(fd: int) -> bool:
    """Whether nobody holds the other end of the pipe any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


async def sweep(mark: str) -> None:
    """Kill whoever has `MARK` set to `mark` in its environment, until nobody has."""
    entry = f"{MARK}={mark}".encode()
    while pids := [int(name) for name in os.listdir("/proc") if name.isdigit() and _carries(name, entry)]:
        for pid in pids:
            with suppress(ProcessLookupError):
                await _kill(pid, entry)


def _carries(pid: str, entry: bytes) -> bool:
    # Somebody else's process may not be read, and one that just ended has nothing to read.
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environ:
        return entry in environ.read().split(b"\0")
    return False


async def _kill(pid: int, entry: bytes) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        if _carries(str(pid), entry):  # the number may belong to somebody new by now
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await gone(pidfd)
    finally:
        os.close(pidfd)
