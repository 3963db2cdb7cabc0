"""The guest's event loop and its end of a port. Standard library only, a handful of system calls.

asyncio would be imported at each start of a machine, which takes longer than all else the agent does.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import select
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.vm import frames
else:  # beside this file in the guest
    import frames

READ, WRITE, URGENT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI
HANG_UP = select.EPOLLHUP | select.EPOLLERR
BACKLOG = 131_072  # bytes waiting for the port at which nobody reads more to send
_READ_SIZE = 65_536
_HOST_AWAY_S = 0.02  # how often to look whether the host is back: the device does not tell


class Timer:
    """A call to come. `cancel` may be called at any time, any number of times."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Calls whoever waits for a descriptor or a time. One thread, no re-entry."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._going = True

    def run(self) -> None:
        """Turn until `SIGTERM`."""
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(woken)
        self.watch(wake, READ, lambda _events: None)
        while self._going:
            self.turn()

    def _stop(self, _number: int, _frame: object) -> None:
        self._going = False

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call `call(events)` whenever one of `events` (or a hang-up) is there; replaces the last watch.
        No events at all is no watch."""
        if not events:
            self.forget(fd)
        elif fd in self._calls:
            self._epoll.modify(fd, events)
            self._calls[fd] = call
        else:
            self._epoll.register(fd, events)
            self._calls[fd] = call

    def forget(self, fd: int) -> None:
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, fd: int) -> None:
        """Forget and close it."""
        self.forget(fd)
        os.close(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def turn(self) -> None:
        """Wait until something is due, and call everybody whose event came."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for fd, events in self._epoll.poll(wait):
            call = self._calls.get(fd)  # an earlier call of this turn may have closed it
            if call is not None:
                call(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()


class Port:
    """The guest's end of a port: greets, decodes, queues, and starts over when the host went away.

    `source` is the path of a virtio device, a listening socket of which one connection at a time is
    served, or, with `on_end`, a connection that is served to its end. `on_open()` when a host is there;
    `on_frame(frame)`, which may raise `ProtocolError`; `on_lost()` when the host is gone or out of step;
    `on_room()` when the backlog is sent; `on_end()` when the connection is closed.
    """

    def __init__(
        self,
        loop: Loop,
        source: str | socket.socket,
        *,
        on_open: Callable[[], None],
        on_frame: Callable[[frames.Frame], None],
        on_lost: Callable[[], None],
        on_room: Callable[[], None],
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_open, self._on_frame, self._on_lost, self._on_room = on_open, on_frame, on_lost, on_room
        self._on_end = on_end
        self._listener = None if isinstance(source, str) or on_end is not None else source
        self._fd = -1
        self._queue: deque[memoryview] = deque()
        self._decoder: frames.Decoder | None = None
        self._greeting = frames.Greeting()
        self._watched = 0
        self.backlog = 0
        if isinstance(source, str):
            self._fd = os.open(source, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._look()
        elif self._listener is not None:
            source.setblocking(False)
            loop.watch(source.fileno(), READ, self._accept)
        else:
            source.setblocking(False)
            self._fd = source.detach()
            self._watch()

    @property
    def open(self) -> bool:
        """Whether a host is there."""
        return self._decoder is not None

    @property
    def full(self) -> bool:
        return self.backlog >= BACKLOG

    def send(self, data: bytes) -> None:
        """Queue a frame; without a host it goes nowhere."""
        if self._decoder is None:
            return
        was_empty = not self._queue
        self._queue.append(memoryview(data))
        self.backlog += len(data)
        if was_empty:
            self._write()

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        self._loop.forget(self._listener.fileno())
        self._fd = connection.detach()
        os.set_blocking(self._fd, False)
        self._watch()

    def _look(self) -> None:
        """Whether a host is at the other end of the device; it hangs up for as long as there is none."""
        poll = select.poll()
        poll.register(self._fd, 0)
        if poll.poll(0):
            self._loop.later(_HOST_AWAY_S, self._look)
        else:
            self._watch()

    def _watch(self) -> None:
        events = READ | (WRITE if self._queue else 0)
        if events != self._watched:
            self._watched = events
            self._loop.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._queue:
            self._write()
        if events & (READ | HANG_UP):
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.EIO):
                raise
            data = b""
        if not data:
            self._hung_up()
            return
        while data:
            data = self._take(data)

    def _take(self, data: bytes) -> bytes:
        """Decode `data`; what is left of it to decode in another way."""
        if self._decoder is None:
            found = self._greeting.feed(data)
            if found is None:
                return b""
            nonce, rest = found
            self._decoder = frames.Decoder(frames.MOST_ASKED)
            self.send(frames.greeting(nonce))
            self._on_open()
            return rest
        try:
            for frame in self._decoder.feed(data):
                if frame.kind == frames.PING:
                    self.send(frames.frame(frames.PONG, 0, frame.payload))
                else:
                    self._on_frame(frame)
                if not self.open:  # lost while the frame was handled
                    return b""
        except frames.ProtocolError:
            self._drop()
            return data  # it may hold the greeting of a host that started anew
        return b""

    def _write(self) -> None:
        was_full = self.full
        while self._queue:
            try:
                sent = os.write(self._fd, self._queue[0])
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                    raise
                break  # the next read tells that it hung up
            self.backlog -= sent
            if sent == len(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue[0] = self._queue[0][sent:]
        self._watch()
        if was_full and not self.full:
            self._on_room()

    def _hung_up(self) -> None:
        self._drop()
        self._watched = 0
        if self._listener is None and self._on_end is None:
            self._loop.forget(self._fd)
            self._loop.later(_HOST_AWAY_S, self._look)
            return
        self._loop.close(self._fd)
        self._fd = -1
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), READ, self._accept)
        elif self._on_end is not None:
            self._on_end()

    def _drop(self) -> None:
        """Nobody listens at the other end any more, or nobody that can be understood."""
        was_open = self._decoder is not None
        self._decoder = None
        self._greeting = frames.Greeting()
        self._queue.clear()
        self.backlog = 0
        if was_open:
            self._on_lost()


def source(text: str) -> str | socket.socket:
    """What a program's argument names: a device, or a path at which a socket is to listen."""
    with suppress(FileNotFoundError):
        if stat.S_ISCHR(os.stat(text).st_mode):
            return text
        os.unlink(text)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(text)
    listener.listen(128)  # who comes when there is no room left is turned away by the kernel
    return listener
