"""What is sent to a guest, and whether the guest is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from org.errors import SandboxGone
from org.sandbox.vm import frames

_MOST_UNSENT = 8_388_608  # bytes that a guest may leave unread


class Wire:
    """The sending half of a connection. `on_gone` is called once, as soon as the guest is gone."""

    def __init__(self, writer: asyncio.StreamWriter, name: str, on_gone: Callable[[], None]) -> None:
        self.gone: str | None = None
        """Why the guest is gone."""
        self.ended = asyncio.Event()
        """Set when it is."""
        self._writer = writer
        self._name = name
        self._on_gone = on_gone

    def check(self) -> None:
        """Raises `SandboxGone` when the guest is."""
        if self.gone is not None:
            raise SandboxGone(f"{self._name} is gone: {self.gone}", "`org vm status` shows what is left")

    def fail(self, reason: str) -> None:
        """Declare the guest gone. The first reason stays."""
        if self.gone is None:
            self.gone = reason
            self.ended.set()
            self._writer.transport.abort()
            self._on_gone()

    def send(self, data: bytes) -> None:
        """Queue a frame. A guest that leaves too much unread is gone."""
        if self.gone is not None:
            return
        if self._writer.transport.get_write_buffer_size() > _MOST_UNSENT:
            self.fail("it does not read what it is sent")
            return
        self._writer.write(data)

    async def drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            self.fail("the connection broke")

    def use(self, number: int, incoming: frames.Incoming, count: int) -> None:
        granted = incoming.use(count)
        if granted:
            self.send(frames.credit(number, granted))
