"""One channel to a guest, as whoever talks on it sees it. The guest is not trusted, see `link`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from org.sandbox.vm import frames
from org.sandbox.vm.wire import Wire

_KILL_S = 10.0


class Talk:
    """The host's side of a channel. Frames of the guest wait in it, at most a window of bytes. `forget`
    is called when this side has ended it."""

    def __init__(self, wire: Wire, number: int, forget: Callable[[Talk], None]) -> None:
        self.number = number
        self.closed: dict[str, Any] | None = None
        """The guest's last word, once it is said and was reached by `next`."""
        self._wire = wire
        self._forget = forget
        self._incoming, self._outgoing = frames.Incoming(), frames.Outgoing()
        self._frames: deque[frames.Frame] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False  # no frame can come any more
        self._deaf = False
        self._ended = False  # the guest sent EOF

    # -- from the reader

    def take(self, frame: frames.Frame) -> bool:
        """A frame of the guest; whether it was the last one. Raises `ProtocolError`."""
        if frame.kind == frames.CREDIT:
            self._outgoing.grant(frame.payload)
            self._room.set()
            return False
        if frame.bulk:
            if self._ended and frame.kind != frames.TAIL:
                raise frames.ProtocolError("bytes after the end of the bytes")
            self._incoming.receive(len(frame.payload))
        elif frame.kind == frames.EOF:
            if self._ended:
                raise frames.ProtocolError("a second end of the bytes")
            self._ended = True
        elif frame.kind == frames.CLOSE:
            frames.content(frame.payload)
            self._over = True
        else:
            raise frames.ProtocolError(f"a frame of kind {frame.kind} in a channel")
        if self._deaf and frame.bulk:
            self._wire.use(self.number, self._incoming, len(frame.payload))
        elif not self._deaf or self._over:
            self._frames.append(frame)
        self.wake()
        return self._over

    def wake(self) -> None:
        self._news.set()
        self._room.set()

    # -- from whoever talks

    @property
    def over(self) -> bool:
        """Whether the guest said its last word."""
        return self._over

    async def next(self) -> frames.Frame:
        """The next frame: `DATA`, `ERR`, `TAIL`, `EOF` or, as the last one, `CLOSE`.

        Raises `SandboxGone` when the link ends before.
        """
        while not self._frames:
            self._wire.check()
            self._news.clear()
            await self._news.wait()
        frame = self._frames.popleft()
        if frame.bulk and not self._over:
            self._wire.use(self.number, self._incoming, len(frame.payload))
        elif frame.kind == frames.CLOSE:
            self.closed = frames.content(frame.payload)
        return frame

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes as the guest takes them; what it cannot take because it closed is dropped."""
        rest = memoryview(data)
        while rest and not self._over:
            self._wire.check()
            count = min(len(rest), self._outgoing.room, frames.MOST_DATA)
            if count == 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._outgoing.spend(count)
            self._wire.send(frames.frame(frames.DATA, self.number, bytes(rest[:count])))
            rest = rest[count:]
            await self._wire.drain()

    def finish(self) -> None:
        """No more bytes from here."""
        if not self._settled():
            self._wire.send(frames.frame(frames.EOF, self.number))

    def note(self, content: Mapping[str, Any]) -> None:
        if not self._settled():
            self._wire.send(frames.told(frames.NOTE, self.number, content))

    def close(self, answer: Mapping[str, Any]) -> None:
        """The last word of this side: after it, nothing is sent and what comes is not looked at."""
        if not self._settled():
            self._wire.send(frames.told(frames.CLOSE, self.number, answer))
            self._forget(self)
            self._over = True
            self.wake()

    def post(self, data: bytes) -> None:
        """Send a few bytes at once, on a channel of which nothing was spent yet."""
        if not self._settled():
            self._outgoing.spend(len(data))
            self._wire.send(frames.frame(frames.DATA, self.number, data))

    def _settled(self) -> bool:
        return self._over or self._wire.gone is not None

    async def end(self) -> None:
        """Have the guest end it, and wait until it did, through cancellation too, which is raised then.

        A guest that does not within some seconds is gone.
        """
        if self._settled():
            return
        self._wire.send(frames.told(frames.CLOSE, self.number, {}))
        self._deaf = True
        for frame in self._frames:
            if frame.bulk:
                self._wire.use(self.number, self._incoming, len(frame.payload))
        self._frames.clear()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            _KILL_S, self._wire.fail, f"it did not end a cancelled command within {_KILL_S:g} s"
        )
        cancelled: asyncio.CancelledError | None = None
        while not self._settled():
            self._news.clear()
            try:
                await self._news.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        timer.cancel()
        if cancelled is not None:
            raise cancelled
