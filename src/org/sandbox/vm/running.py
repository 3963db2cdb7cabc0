"""Commands in the guest: as a host asked for them, over a channel or on their own.
Standard library only."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import signal
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from org.sandbox.vm import channels, child, family, frames, groups, loop, places
else:  # beside this file in the guest
    import channels
    import child
    import family
    import frames
    import groups
    import loop
    import places

MOST_DAEMONS = 64
_MOST_KEPT = 67_108_864  # bytes of output that a command may ask to be kept
_LOG = 262_144  # bytes of its output that are kept of a command that stays
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_SCRATCH = "/tmp"
_READ = 65_536
_END_OF_INPUT = b"\x04"  # what a terminal's reader takes for the end


class Wanted(NamedTuple):
    """A command as it was asked for. `limit` are the bytes of output to keep, None for all of it;
    `apart` keeps standard error apart; `terminal` is (rows, columns) of one to run in."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    workspace: str
    cwd: str
    who: child.Identity
    scratch: bool
    timeout_s: float | None
    limit: int | None
    stdin: bool
    apart: bool
    terminal: tuple[int, int] | None
    memory: int
    pids: int

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Wanted:
        """Raises `Refused`, or `KeyError`, `TypeError`, `ValueError` for what is no request."""
        argv = tuple(map(_word, request["argv"]))
        if not argv:
            raise channels.Refused("usage", "a command needs a program")
        limit = request.get("limit")
        if limit is not None and not 0 <= limit <= _MOST_KEPT:
            raise channels.Refused("usage", f"at most {_MOST_KEPT} bytes of output can be kept")
        terminal = request.get("terminal")
        return cls(
            argv=argv,
            env={_word(name): _word(value) for name, value in request.get("env", {}).items()},
            workspace=_word(request["workspace"]),
            cwd=_word(request.get("cwd", "")),
            who=identity(request["user"]),
            scratch=bool(request.get("scratch")),
            timeout_s=request.get("timeout_s"),
            limit=limit,
            stdin=bool(request.get("stdin")),
            apart=bool(request.get("apart")),
            terminal=None if terminal is None else (int(terminal[0]), int(terminal[1])),
            memory=int(request["memory"]),
            pids=int(request["pids"]),
        )

    def plan(self, cwd: str, stdio: tuple[int, int, int], entrances: list[int]) -> child.Plan:
        env = {"PATH": _PATH, "HOME": cwd, "LANG": "C.UTF-8", "TERM": "dumb", **self.env}
        return child.Plan(self.argv, env, cwd, self.who, stdio, entrances, self.terminal is not None)


def _word(text: str) -> str:
    """`text`, which a program can be given. Raises `Refused`."""
    try:
        if b"\0" not in os.fsencode(text):
            return text
    except UnicodeEncodeError as error:
        raise channels.Refused("usage", f"no program can be given {text[:80]!r}") from error
    raise channels.Refused("usage", f"no program can be given {text[:80]!r}: it holds a zero byte")


def identity(user: str) -> child.Identity:
    try:
        return child.identity(user)
    except KeyError as error:
        raise channels.Refused("environment", f"the guest has no user `{user}`") from error


class _Kept:
    """The last bytes of a stream, `limit` at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > 2 * self._limit:  # each byte is then moved once on average
            del self._data[: len(self._data) - self._limit]

    def last(self, count: int) -> bytes:
        count = min(count, self._limit)
        return bytes(self._data[-count:]) if count else b""


class _Source:
    """The reading end of a command's output. `left` counts what may still come once all are gone:
    a descriptor that was handed to somebody else could otherwise bring bytes for ever."""

    def __init__(self, fd: int, kind: int) -> None:
        self.fd = fd
        self.kind = kind
        self.left: int | None = None
        self.quiet = False
        os.set_blocking(fd, False)

    def settle(self) -> None:
        self.quiet = False
        count = array.array("i", [0])
        fcntl.ioctl(self.fd, termios.FIONREAD, count)
        self.left = count[0]

    def read(self, size: int) -> bytes | None:
        """Some bytes; none at the end; None when there are none yet."""
        size = size if self.left is None else min(size, self.left)
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody has open any more
                raise
            return b""
        if self.left is not None:
            self.left -= len(data)
        return data


class _Input:
    """The writing end of a command's input, and what waits for it."""

    def __init__(self, events: loop.Loop, channel: channels.Channel, fd: int, at_end: bytes) -> None:
        self._loop = events
        self._channel = channel
        self._fd = fd
        self._at_end = at_end
        self._queue: deque[memoryview] = deque()
        self._ended = False
        os.set_blocking(fd, False)

    def take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.EOF:
            self._ended = True
        elif self._fd < 0:  # nobody reads it any more
            self._channel.used(len(frame.payload))
            return
        else:
            self._queue.append(memoryview(frame.payload))
        if self._fd >= 0:
            self._write()

    def _write(self, _events: int = 0) -> None:
        while self._queue:
            try:
                written = os.write(self._fd, self._queue[0])
            except BlockingIOError:
                self._loop.watch(self._fd, loop.WRITE, self._write)
                return
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                self.close()
                return
            self._channel.used(written)
            if written == len(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue[0] = self._queue[0][written:]
        self._loop.forget(self._fd)
        if self._ended:
            with suppress(OSError):  # nobody reads it any more
                os.write(self._fd, self._at_end)
            self.close()

    def close(self) -> None:
        if self._fd < 0:
            return
        self._loop.close(self._fd)
        self._fd = -1
        self._channel.used(sum(map(len, self._queue)))
        self._queue.clear()


class Job:
    """A command that belongs to a channel."""

    def __init__(
        self,
        events: loop.Loop,
        makers: groups.Groups,
        warm: family.Warm,
        channel: channels.Channel,
        wanted: Wanted,
    ) -> None:
        self._loop = events
        self._channel = channel
        self._wanted = wanted
        self._total = 0
        self._timed_out = False
        self._abandoned = False
        self._ended: family.Ended | None = None
        self._tail: bytes | None = None
        self._kept = _Kept(0 if wanted.limit is None else wanted.limit - wanted.limit // 2)
        self._scratch = ""
        cwd = self._folder()
        group = makers.make(wanted.memory, wanted.pids)
        self._family = family.Family(events, makers, group, self._on_end)
        self._sources: list[_Source] = []
        self._input: _Input | None = None
        self._timer: loop.Timer | None = None
        theirs = self._connect()
        try:
            plan = wanted.plan(cwd, (theirs[0], theirs[1], theirs[2]), group.entrances)
            if not (warm.takes(plan) and warm.fork(plan, self._family)):
                self._family.fork(plan)
        except OSError:
            makers.drop(group)
            self._end_streams()
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)
        if wanted.timeout_s is not None:
            self._timer = events.later(wanted.timeout_s, self._late)
        self._pump()

    def _folder(self) -> str:
        wanted = self._wanted
        if wanted.scratch:
            self._scratch = f"{_SCRATCH}/org-{os.urandom(8).hex()}"
            os.mkdir(self._scratch, 0o700)
            os.chown(self._scratch, wanted.who.uid, wanted.who.gid)
            return self._scratch
        workspace = places.prepared(wanted.workspace, wanted.who)
        return os.path.join(workspace, wanted.cwd) if wanted.cwd else workspace

    def _connect(self) -> tuple[int, int, int]:
        """Pipes, or a terminal, between the command and the channel; the command's three ends."""
        wanted = self._wanted
        if wanted.terminal is not None:
            ours, theirs = os.openpty()
            self._resize(ours, wanted.terminal)
            os.fchown(theirs, wanted.who.uid, wanted.who.gid)
            self._sources = [_Source(ours, frames.DATA)]
            self._input = _Input(self._loop, self._channel, os.dup(ours), _END_OF_INPUT)
            return theirs, theirs, theirs
        output, out = os.pipe()
        self._sources = [_Source(output, frames.DATA)]
        error = out
        if wanted.apart:
            reading, error = os.pipe()
            self._sources.append(_Source(reading, frames.ERR))
        if not wanted.stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), out, error
        source, writing = os.pipe()
        self._input = _Input(self._loop, self._channel, writing, b"")
        return source, out, error

    def _end_streams(self) -> None:
        for source in self._sources:
            self._loop.close(source.fd)
        if self._input is not None:
            self._input.close()
        if self._scratch:
            _remove(self._loop, self._scratch)

    @staticmethod
    def _resize(fd: int, size: tuple[int, int]) -> None:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    # -- from the host

    def take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.NOTE:
            if self._wanted.terminal is not None and self._sources:
                rows, columns = frames.content(frame.payload)["size"]
                self._resize(self._sources[0].fd, (rows, columns))
        elif self._input is not None:
            self._input.take(frame)

    def go_on(self) -> None:
        self._pump()

    def abandon(self) -> None:
        self._abandoned = True
        self._family.kill()
        self._pump()

    def _late(self) -> None:
        if not self._family.over:
            self._timed_out = True
            self._family.kill()

    # -- to the host

    def _pump(self, _events: int = 0) -> None:
        """Read what the command says, as far as somebody may take it."""
        for source in list(self._sources):
            while (size := self._size(source)) and (data := source.read(size)) is not None:
                if not data:
                    self._at_end(source)
                    break
                self._say(source.kind, data)
                if source.left is None:
                    break  # the others' turn; there is no end to what a living command can say
            if source.left == 0:
                self._at_end(source)
            if source in self._sources:
                self._loop.watch(source.fd, loop.READ if self._size(source) else 0, self._pump)
        if self._ended is not None and not self._sources:
            self._conclude()

    def _at_end(self, source: _Source) -> None:
        """Nobody has the other end any more."""
        if self._wanted.terminal is not None and self._ended is None:
            source.quiet = True  # to close a terminal would end who is about to end well
        elif source in self._sources:
            self._loop.close(source.fd)
            self._sources.remove(source)

    def _size(self, source: _Source) -> int:
        """Bytes that may be read now."""
        if source.left == 0 or source.quiet:
            return 0
        if self._abandoned or (self._wanted.limit is not None and self._total >= self._wanted.limit):
            return _READ  # it is counted, and its end is kept
        if self._wanted.limit is None:
            return self._channel.room
        return min(self._channel.room, self._wanted.limit - self._total)

    def _say(self, kind: int, data: bytes) -> None:
        over = self._wanted.limit is not None and self._total >= self._wanted.limit
        self._total += len(data)
        if self._abandoned:
            return
        if over:
            self._kept.add(data)
        else:
            self._channel.send(kind, data)

    def _on_end(self, ended: family.Ended) -> None:
        self._ended = ended
        if self._timer is not None:
            self._timer.cancel()
        if self._input is not None:
            self._input.close()
        if self._scratch:
            _remove(self._loop, self._scratch)
        for source in self._sources:
            source.settle()
        self._pump()

    def _conclude(self) -> None:
        """All is read: the end that was kept, then how it ended."""
        assert self._ended is not None
        if self._wanted.limit is not None and not self._abandoned:
            if self._tail is None:
                self._tail = self._kept.last(max(0, self._total - self._wanted.limit))
            while self._tail and (room := self._channel.room):
                self._channel.send(frames.TAIL, self._tail[:room])
                self._tail = self._tail[room:]
            if self._tail and not self._channel.lost:
                return
        self._channel.close(
            code=self._ended.code,
            total=self._total,
            timed_out=self._timed_out,
            peak=self._ended.peak,
            oom=self._ended.out_of_memory,
        )


class Daemon:
    """A command that stays when its host goes: its output is kept, the end of it."""

    def __init__(self, events: loop.Loop, makers: groups.Groups, wanted: Wanted) -> None:
        self._loop = events
        self._argv = wanted.argv
        self._kept = _Kept(_LOG)
        self._at = time.time()
        self._waiting: list[Callable[[], None]] = []
        self._followers: list[Callable[[bytes], None]] = []
        self.code: int | None = None
        """The exit code; None while it runs."""
        cwd = os.path.join(places.prepared(wanted.workspace, wanted.who), wanted.cwd)
        group = makers.make(wanted.memory, wanted.pids)
        self._family = family.Family(events, makers, group, self._on_end)
        output, out = os.pipe()
        self._source = _Source(output, frames.DATA)
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._family.fork(wanted.plan(cwd, (empty, out, out), group.entrances))
        except OSError:
            makers.drop(group)
            os.close(output)
            raise
        finally:
            os.close(out)
            os.close(empty)
        events.watch(output, loop.READ, self._hear)

    @property
    def pid(self) -> int:
        return self._family.pid

    def told(self) -> dict[str, Any]:
        words = [word[:200] for word in self._argv[:8]]
        return {"pid": self.pid, "argv": words, "started": self._at, "code": self.code}

    def log(self, size: int) -> bytes:
        """The last `size` bytes that it said, as far as they are kept."""
        return self._kept.last(size)

    def follow(self, hear: Callable[[bytes], None]) -> None:
        """Call `hear` with what it says from now on, and with nothing once it has ended."""
        self._followers.append(hear)

    def unfollow(self, hear: Callable[[bytes], None]) -> None:
        self._followers.remove(hear)

    def _keep(self, data: bytes) -> None:
        self._kept.add(data)
        for hear in self._followers:
            hear(data)

    def stop(self, grace_s: float, ended: Callable[[], None]) -> None:
        """Ask it to end, make it after `grace_s`, and call `ended` when all of it is gone."""
        if self.code is not None:
            ended()
            return
        self._waiting.append(ended)
        self._family.signal(signal.SIGTERM)
        self._loop.later(grace_s, self.kill)

    def kill(self) -> None:
        if self.code is None:
            self._family.kill()

    def _hear(self, _events: int) -> None:
        data = self._source.read(_READ)
        if data:
            self._keep(data)
        elif data is not None:
            self._loop.forget(self._source.fd)

    def _on_end(self, ended: family.Ended) -> None:
        self.code = ended.code
        self._source.settle()
        while self._source.left and (data := self._source.read(_READ)):
            self._keep(data)
        self._loop.close(self._source.fd)
        for hear in self._followers:
            hear(b"")
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


def _remove(events: loop.Loop, folder: str) -> None:
    """Remove a folder with whatever a command left in it, in a process of its own: it may be a lot."""
    with suppress(OSError):
        os.rmdir(folder)
        return
    pid = os.posix_spawn("/bin/rm", ["rm", "-rf", "--", folder], {"PATH": _PATH})
    pidfd = os.pidfd_open(pid)

    def ended(_events: int) -> None:
        events.close(pidfd)
        os.waitpid(pid, 0)

    events.watch(pidfd, loop.READ, ended)
