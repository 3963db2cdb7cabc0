"""Lets many processes of this machine's user speak with a guest at a time, over the one port there is.

Each of them finds on a socket what it would find on the port itself: the greeting, and channels.
What it asks of the guest goes on in a channel of the port; a few requests are answered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from org.errors import SandboxGone
from org.sandbox.vm import frames
from org.sandbox.vm.link import Link
from org.sandbox.vm.talk import Talk

_READ = 65_536
_GREETING_S = 10.0

Own: TypeAlias = Mapping[str, Callable[[], Mapping[str, Any]]]
"""Requests that are answered here, by their `op`."""


class Switch:
    """`serve` takes one connection each; `end` closes them all, with what they asked for ended first."""

    def __init__(self, link: Link, own: Own) -> None:
        self._link = link
        self._own = own
        self._clients: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_Client(self._link, self._own, reader, writer).run())
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def end(self) -> None:
        clients = list(self._clients)
        for task in clients:
            task.cancel()
        for result in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


class _Client:
    """One connection, until either side leaves."""

    def __init__(
        self, link: Link, own: Own, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._link = link
        self._own = own
        self._reader, self._writer = reader, writer
        self._channels: dict[int, _Channel] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            async with asyncio.timeout(_GREETING_S):
                nonce, data = await self._greeted()
            self._writer.write(frames.greeting(nonce) + frames.told(frames.NOTE, 0, {**self._link.about}))
            decoder = frames.Decoder(frames.MOST_ASKED)
            while data or (data := await self._reader.read(_READ)):
                for frame in decoder.feed(data):
                    self._take(frame)
                data = b""
        except (ConnectionError, TimeoutError, frames.ProtocolError):
            pass  # it left, or is none of ours: what it asked for is ended all the same
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # it may be ended while it waits
                self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _greeted(self) -> tuple[bytes, bytes]:
        greeting = frames.Greeting()
        while data := await self._reader.read(_READ):
            found = greeting.feed(data)
            if found is not None:
                return found
        raise frames.ProtocolError("it hung up")

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.PING:
            self.send(frames.PONG, 0, frame.payload)
        elif frame.kind == frames.OPEN:
            self._open(frame)
        elif frame.kind == frames.CLOSE:
            if channel := self._channels.get(frame.channel):
                channel.unwanted = True
                self._tasks[frame.channel].cancel()
        elif known := self._channels.get(frame.channel):
            known.take(frame)

    def _open(self, frame: frames.Frame) -> None:
        if frame.channel in self._channels or frame.channel == 0:
            raise frames.ProtocolError("a channel was opened twice")
        request = frames.content(frame.payload)
        own = self._own.get(str(request.get("op")))
        if own is not None:
            self._writer.write(frames.told(frames.CLOSE, frame.channel, own()))
            return
        channel = _Channel(self, frame.channel)
        self._channels[frame.channel] = channel
        task = asyncio.get_running_loop().create_task(channel.run(self._link, request))
        self._tasks[frame.channel] = task
        task.add_done_callback(lambda ended: self._done(frame.channel, ended))

    def _done(self, number: int, ended: asyncio.Task[None]) -> None:
        del self._channels[number], self._tasks[number]
        if ended.cancelled() or not ended.exception():
            return
        # The guest is gone, or the client: there is nothing more to say to it.
        self._writer.transport.abort()
        if not isinstance(ended.exception(), SandboxGone | ConnectionError | frames.ProtocolError):
            self._link.fail(f"its switch failed: {ended.exception()!r}")

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(frames.frame(kind, channel, payload))

    async def drain(self) -> None:
        await self._writer.drain()


class _Channel:
    """A channel of a client, passed on to one of the port."""

    def __init__(self, client: _Client, number: int) -> None:
        self._client = client
        self._number = number
        self._incoming, self._outgoing = frames.Incoming(), frames.Outgoing()
        self._frames: asyncio.Queue[frames.Frame] = asyncio.Queue()
        self._room = asyncio.Event()
        self.unwanted = False
        """Whether the client lost interest; it then waits to hear that all has ended."""

    def take(self, frame: frames.Frame) -> None:
        """A frame of the client. Raises `ProtocolError`."""
        if frame.kind == frames.CREDIT:
            self._outgoing.grant(frame.payload)
            self._room.set()
            return
        if frame.bulk:
            self._incoming.receive(len(frame.payload))
        self._frames.put_nowait(frame)

    async def run(self, link: Link, request: Mapping[str, Any]) -> None:
        """Until the guest's last word; cancelled, the guest ends what it does first."""
        talk = link.open(request)
        inwards = asyncio.get_running_loop().create_task(self._inwards(talk))
        try:
            while (frame := await talk.next()).kind != frames.CLOSE:
                await self._outwards(frame)
            self._client.send(frames.CLOSE, self._number, frame.payload)
        except asyncio.CancelledError:
            await talk.end()
            if self.unwanted:
                self._client.send(frames.CLOSE, self._number, b"{}")
            raise
        finally:
            inwards.cancel()
            await asyncio.gather(inwards, return_exceptions=True)
            await talk.end()

    async def _outwards(self, frame: frames.Frame) -> None:
        if frame.bulk:
            while self._outgoing.room < len(frame.payload):
                self._room.clear()
                await self._room.wait()
            self._outgoing.spend(len(frame.payload))
        self._client.send(frame.kind, self._number, frame.payload)
        await self._client.drain()

    async def _inwards(self, talk: Talk) -> None:
        while True:
            frame = await self._frames.get()
            if frame.kind == frames.DATA:
                await talk.write(frame.payload)
                if granted := self._incoming.use(len(frame.payload)):
                    self._client.send(frames.CREDIT, self._number, granted.to_bytes(4, "big"))
            elif frame.kind == frames.EOF:
                talk.finish()
            elif frame.kind == frames.NOTE:
                talk.note(frames.content(frame.payload))
