"""Commands in the guest that a host runs over a channel. Standard library only."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.vm import channels, family, frames, groups, loop, orders, places, streams
else:  # beside this file in the guest
    import channels
    import family
    import frames
    import groups
    import loop
    import orders
    import places
    import streams

_SCRATCH = "/tmp"
_END_OF_INPUT = b"\x04"  # what a terminal's reader takes for the end


class Job:
    """A command that belongs to a channel."""

    def __init__(
        self,
        events: loop.Loop,
        makers: groups.Groups,
        warm: family.Warm,
        channel: channels.Channel,
        wanted: orders.Wanted,
    ) -> None:
        self._loop = events
        self._channel = channel
        self._wanted = wanted
        self._total = 0
        self._timed_out = False
        self._abandoned = False
        self._ended: family.Ended | None = None
        self._tail: bytes | None = None
        self._kept = streams.Kept(0 if wanted.limit is None else wanted.limit - wanted.limit // 2)
        self._scratch = ""
        cwd = self._folder()
        group = makers.make(wanted.memory, wanted.pids)
        self._family = family.Family(events, makers, group, self._on_end)
        self._sources: list[streams.Source] = []
        self._input: streams.Input | None = None
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
            self._sources = [streams.Source(ours, frames.DATA)]
            self._input = streams.Input(self._loop, self._channel, os.dup(ours), _END_OF_INPUT)
            return theirs, theirs, theirs
        output, out = os.pipe()
        self._sources = [streams.Source(output, frames.DATA)]
        error = out
        if wanted.apart:
            reading, error = os.pipe()
            self._sources.append(streams.Source(reading, frames.ERR))
        if not wanted.stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), out, error
        source, writing = os.pipe()
        self._input = streams.Input(self._loop, self._channel, writing, b"")
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

    def _at_end(self, source: streams.Source) -> None:
        """Nobody has the other end any more."""
        if self._wanted.terminal is not None and self._ended is None:
            source.quiet = True  # to close a terminal would end who is about to end well
        elif source in self._sources:
            self._loop.close(source.fd)
            self._sources.remove(source)

    def _size(self, source: streams.Source) -> int:
        """Bytes that may be read now."""
        if source.left == 0 or source.quiet:
            return 0
        if self._abandoned or (self._wanted.limit is not None and self._total >= self._wanted.limit):
            return streams.READ  # it is counted, and its end is kept
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


def _remove(events: loop.Loop, folder: str) -> None:
    """Remove a folder with whatever a command left in it, in a process of its own: it may be a lot."""
    with suppress(OSError):
        os.rmdir(folder)
        return
    pid = os.posix_spawn("/bin/rm", ["rm", "-rf", "--", folder], {"PATH": orders.PATH})
    pidfd = os.pidfd_open(pid)

    def ended(_events: int) -> None:
        events.close(pidfd)
        os.waitpid(pid, 0)

    events.watch(pidfd, loop.READ, ended)
