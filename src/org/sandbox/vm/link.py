"""The host's end of a port of a guest: many channels on one socket. The guest is not trusted.

Every frame is taken to be hostile: what breaks the protocol ends the link for good, with the reason,
and everybody who waits on it gets `SandboxGone`. Nothing waits without a deadline, and nothing that
the guest sends is kept beyond its window.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from org.errors import SandboxGone
from org.sandbox.vm import frames
from org.sandbox.vm.talk import Talk
from org.sandbox.vm.wire import Wire

_READ = 65_536
_MOST_SKIPPED = 4_194_304  # bytes of an earlier connection that may come before the greeting
_MOST_STRAYS = 10_000  # frames for channels that are not open
_STRAYS_EACH = 64  # frames that may be on their way when a channel ends
_MISSED = 3


class Link:
    """A connection to a port. Made by `linked`.

    `about` is what the guest said of itself; `on_open(talk, request)` is called for channels that the
    guest opens, `on_note(content)` for what it says in passing.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self.about: dict[str, Any] = {}
        self.on_open: Callable[[Talk, dict[str, Any]], None] | None = None
        self.on_note: Callable[[dict[str, Any]], None] | None = None
        self._reader, self._writer = reader, writer
        self._wire = Wire(writer, name, self._wake)
        self._decoder = frames.Decoder(frames.MOST_TOLD)
        self._talks: dict[int, Talk] = {}
        self._early: deque[frames.Frame] = deque()
        self._number = 0
        self._last_theirs = -1
        self._strays = 0
        self._ping = 0
        self._pongs: dict[bytes, asyncio.Future[None]] = {}

    @property
    def gone(self) -> str | None:
        """Why the guest is gone."""
        return self._wire.gone

    @property
    def ended(self) -> asyncio.Event:
        """Set when it is."""
        return self._wire.ended

    def check(self) -> None:
        """Raises `SandboxGone` when the guest is."""
        self._wire.check()

    def fail(self, reason: str) -> None:
        """Declare the guest gone. The first reason stays."""
        self._wire.fail(reason)

    def open(self, request: Mapping[str, Any]) -> Talk:
        """Open a channel. Raises `SandboxGone`."""
        self.check()
        self._number += 2
        talk = self._talks[self._number] = Talk(self._wire, self._number, self._forget)
        self._wire.send(frames.told(frames.OPEN, self._number, request))
        return talk

    def _forget(self, talk: Talk) -> None:
        """Some frames of it may still be on their way; more than some are a flood."""
        self._talks.pop(talk.number, None)
        self._strays = max(0, self._strays - _STRAYS_EACH)

    async def ping(self, timeout_s: float) -> float:
        """Seconds until the guest's agent answered. Raises `SandboxGone`, or `TimeoutError`."""
        self.check()
        self._ping += 1
        payload = self._ping.to_bytes(8, "big")
        waiting = self._pongs[payload] = asyncio.get_running_loop().create_future()
        started = asyncio.get_running_loop().time()
        try:
            self._wire.send(frames.frame(frames.PING, 0, payload))
            async with asyncio.timeout(timeout_s):
                await waiting
        finally:
            self._pongs.pop(payload, None)
        self.check()
        return asyncio.get_running_loop().time() - started

    def _wake(self) -> None:
        """Nobody waits for a guest that is gone."""
        for talk in self._talks.values():
            talk.wake()
        for waiting in self._pongs.values():
            if not waiting.done():
                waiting.set_result(None)

    # -- the reader

    async def greet(self) -> None:
        """Exchange greetings, and hear what the guest says of itself. Raises `ProtocolError`."""
        nonce = secrets.token_bytes(16)
        self._writer.write(frames.greeting(nonce))
        data = await self._greeted(nonce)
        while not self.about:
            for frame in self._decoder.feed(data or await self._some()):
                if self.about:
                    self._early.append(frame)  # nobody has said yet what is to be done with it
                elif frame.kind == frames.NOTE and frame.channel == 0:
                    self.about = self._checked(frames.content(frame.payload))
                else:
                    raise frames.ProtocolError("it does not say what it is")
            data = b""

    async def _greeted(self, nonce: bytes) -> bytes:
        """Wait for the greeting with that nonce; the bytes that came after it."""
        greeting = frames.Greeting()
        data = b""
        while greeting.skipped <= _MOST_SKIPPED:
            found = greeting.feed(data or await self._some())
            if found is not None and found[0] == nonce:
                return found[1]
            data = found[1] if found is not None else b""
        raise frames.ProtocolError("it does not greet")

    async def _some(self) -> bytes:
        data = await self._reader.read(_READ)
        if not data:
            raise frames.ProtocolError("it hung up")
        return data

    def _checked(self, about: dict[str, Any]) -> dict[str, Any]:
        if about.get("version") != frames.VERSION:
            raise frames.ProtocolError(f"it speaks version {str(about.get('version'))[:20]} of the protocol")
        return about

    async def read(self) -> None:
        """Take frames until the guest is gone."""
        try:
            while self._early:
                self._take(self._early.popleft())
            while data := await self._reader.read(_READ):
                for frame in self._decoder.feed(data):
                    self._take(frame)
            self.fail("it hung up")
        except frames.ProtocolError as error:
            self.fail(f"it broke the protocol: {error}")
        except ConnectionError:
            self.fail("the connection broke")
        finally:
            self.fail("its frames are no longer read")  # so that nobody waits for one

    async def watch(self, interval_s: float) -> None:
        """Ping the guest for ever; it is gone when it misses three in a row."""
        missed = 0
        while self.gone is None:
            try:
                await self.ping(interval_s)
            except TimeoutError:
                missed += 1
                if missed == _MISSED:
                    self.fail(f"it did not answer {_MISSED} pings within {_MISSED * interval_s:g} s")
                continue
            except SandboxGone:
                return
            missed = 0
            await asyncio.sleep(interval_s)

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.PONG:
            waiting = self._pongs.get(frame.payload)
            if waiting is None:
                self._stray()
            elif not waiting.done():
                waiting.set_result(None)
            return
        if frame.kind == frames.PING:
            raise frames.ProtocolError("a ping")
        if frame.channel == 0:
            self._take_note(frame)
            return
        if frame.kind == frames.OPEN:
            self._take_open(frame)
            return
        talk = self._talks.get(frame.channel)
        if talk is None or talk.over:
            self._stray()
            return
        if talk.take(frame):
            self._forget(talk)

    def _stray(self) -> None:
        """A frame that nobody waits for: some may have been on their way, a flood is none of these."""
        self._strays += 1
        if self._strays > _MOST_STRAYS:
            raise frames.ProtocolError("too many frames for channels that are not open")

    def _take_note(self, frame: frames.Frame) -> None:
        if frame.kind != frames.NOTE or self.on_note is None:
            self._stray()
            return
        self.on_note(frames.content(frame.payload))

    def _take_open(self, frame: frames.Frame) -> None:
        if self.on_open is None:
            raise frames.ProtocolError("a channel that it may not open")
        if frame.channel % 2 == 0 or frame.channel <= self._last_theirs:
            raise frames.ProtocolError("a channel with a number that it may not use")
        self._last_theirs = frame.channel
        request = frames.content(frame.payload)
        talk = self._talks[frame.channel] = Talk(self._wire, frame.channel, self._forget)
        self.on_open(talk, request)


@asynccontextmanager
async def linked(
    path: Path, name: str, *, timeout_s: float = 10.0, ping_s: float = 2.0, again_s: float | None = None
) -> AsyncIterator[Link]:
    """Connect to the port whose host end is the unix socket `path`; `name` is what errors call the guest.

    Raises `SandboxGone` when nobody answers there within `timeout_s`. Who has heard nothing for `again_s`
    hangs up and comes again, from then on with more and more patience: a guest that goes on from a state
    does not always notice who came first. Three pings that are missed, `ping_s` apart, end the link.
    """
    link, writer = await _reached(path, name, timeout_s, again_s or timeout_s)
    tasks = [_started(link.read()), _started(link.watch(ping_s))]
    try:
        yield link
    finally:
        link.fail("the connection was closed")
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(ConnectionError):
            await writer.wait_closed()
        for result in results:  # a fault of ours, not of the guest
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


async def _reached(
    path: Path, name: str, timeout_s: float, again_s: float
) -> tuple[Link, asyncio.StreamWriter]:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        left = deadline - asyncio.get_running_loop().time()
        try:
            return await _greeted(path, name, min(left, again_s))
        except TimeoutError as error:
            if left <= again_s:
                raise SandboxGone(
                    f"{name} did not answer within {timeout_s:g} s", "`org vm logs` shows why"
                ) from error
        again_s *= 2


async def _greeted(path: Path, name: str, timeout_s: float) -> tuple[Link, asyncio.StreamWriter]:
    """A connection on which greetings were exchanged. Raises `TimeoutError`, `SandboxGone`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            link = Link(reader, writer, name)
            await link.greet()
            return link, writer
    except TimeoutError:
        _abort(writer)
        raise
    except (OSError, frames.ProtocolError) as error:
        _abort(writer)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SandboxGone(f"{name} cannot be reached: {reason}", "`org vm status` shows it") from error
    except BaseException:
        _abort(writer)
        raise


def _started(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


def _abort(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.transport.abort()
