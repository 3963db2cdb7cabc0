"""Commands in the guest that stay when their host goes. Standard library only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from org.sandbox.vm import family, frames, groups, loop, orders, places, streams
else:  # beside this file in the guest
    import family
    import frames
    import groups
    import loop
    import orders
    import places
    import streams

MOST_DAEMONS = 64
_LOG = 262_144  # bytes of its output that are kept


class Daemon:
    """A command that stays: its output is kept, the end of it."""

    def __init__(self, events: loop.Loop, makers: groups.Groups, wanted: orders.Wanted) -> None:
        self._loop = events
        self._argv = wanted.argv
        self._kept = streams.Kept(_LOG)
        self._at = time.time()
        self._waiting: list[Callable[[], None]] = []
        self._followers: list[Callable[[bytes], None]] = []
        self.code: int | None = None
        """The exit code; None while it runs."""
        cwd = os.path.join(places.prepared(wanted.workspace, wanted.who), wanted.cwd)
        group = makers.make(wanted.memory, wanted.pids)
        self._family = family.Family(events, makers, group, self._on_end)
        output, out = os.pipe()
        self._source = streams.Source(output, frames.DATA)
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
        data = self._source.read(streams.READ)
        if data:
            self._keep(data)
        elif data is not None:
            self._loop.forget(self._source.fd)

    def _on_end(self, ended: family.Ended) -> None:
        self.code = ended.code
        self._source.settle()
        while self._source.left and (data := self._source.read(streams.READ)):
            self._keep(data)
        self._loop.close(self._source.fd)
        for hear in self._followers:
            hear(b"")
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
