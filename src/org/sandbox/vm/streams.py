"""What goes into commands and comes out of them. Standard library only."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import termios
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.vm import channels, frames, loop
else:  # beside this file in the guest
    import channels
    import frames
    import loop

READ = 65_536
"""Bytes that are read at once."""


class Kept:
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


class Source:
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


class Input:
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
