"""The host's half of the relay: all that a guest reaches, and all that reaches into it.

From the guest to the model server, by the requests that `gate.py` lets on, with the key added here;
from this machine's loopback to the guest's own servers, while there are any. When this process
ends, nothing gets through any more.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from org.errors import SandboxGone
from org.sandbox.vm import frames
from org.sandbox.vm.gate import Answer, Gate, Refusal, Upstream, chunk, refusal
from org.sandbox.vm.link import Link, linked
from org.sandbox.vm.talk import Talk
from org.sandbox.vm.trickle import Trickle

LOOPBACK = "127.0.0.1"
_READ = 65_536
_HEAD_S = 30.0  # for a guest to say what it wants, and then for each next bytes of it
_DIAL_S = 10.0
_AGAIN_S = 2.0  # between two tries for a port that somebody else holds
_STALLED_S = 300.0  # a guest that takes nothing for so long is cut
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Caps:
    """At most so many requests at a time, so many connections into the guest, and bytes of each request
    and answer."""

    requests: int = 64
    inbound: int = 128
    asked: int = 67_108_864
    answered: int = 1_073_741_824


@dataclass(slots=True)
class Counts:
    """What went through so far."""

    requests: int = 0
    refused: int = 0
    sent: int = 0
    received: int = 0
    inbound: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a relay lets through: the model server, and ports of the guest by those on this machine."""

    upstream: Upstream
    inbound: Mapping[int, int] = field(default_factory=lambda: {7001: 7001, 7002: 7002})
    """Port of the guest to the port of this machine's loopback at which it appears."""
    caps: Caps = Caps()


class Relay:
    """Serves one guest over `link`. `log(line)` gets a line for each request and each thing that went wrong.

    Made by `relaying`.
    """

    def __init__(self, link: Link, policy: Policy, log: Callable[[str], None]) -> None:
        self.counts = Counts()
        self.serving: dict[int, str] = {}
        """Ports of the guest that somebody serves there: empty when it can be reached, or who holds the
        port on this machine."""
        self._link = link
        self._policy = policy
        self._log = Trickle(log)
        self._on_fault = log
        self._tls = ssl.create_default_context() if policy.upstream.tls else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._inbound = 0
        self._listening: dict[int, asyncio.Server] = {}
        self._wanted: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        link.on_open = self._on_open
        link.on_note = self._on_note

    @property
    def gone(self) -> str | None:
        """Why the guest is gone."""
        return self._link.gone

    async def run(self) -> None:
        """Until the guest is gone. Raises `SandboxGone` then."""
        keeping = asyncio.create_task(self._keep_listening())
        try:
            await self._link.ended.wait()
        finally:
            tasks = [keeping, *self._tasks]
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for port in list(self._listening):
                self._close(port)
            self._log.tell()
        for result in results:  # a fault of ours
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        self._link.check()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whatever it was, the relay is not what it should be: closed is the safe side. Only its kind
            # is told: its text may hold what no log is to know.
            self._on_fault(f"relay: {type(error).__name__}")
            self._link.fail("its relay failed")

    # -- from the guest

    def _on_open(self, talk: Talk, request: dict[str, Any]) -> None:
        if request.get("to") != "model":
            talk.close({"error": "there is nothing of the kind"})
        elif self._requests >= self._policy.caps.requests:
            self.counts.refused += 1
            talk.post(refusal(Refusal(503, f"{self._requests} requests are under way already")))
            talk.finish()
            talk.close({})
        else:
            self._requests += 1
            self._spawn(self._request(talk))

    async def _request(self, talk: Talk) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        gate = Gate(self._policy.caps.asked)
        answer = Answer()
        outcome = ""
        try:
            await self._exchange(talk, gate, answer)
        except Refusal as error:
            outcome = f"refused {error.status}: {error}"
            self.counts.refused += 1
            if not answer.status:
                with suppress(SandboxGone, TimeoutError):
                    async with asyncio.timeout(_HEAD_S):
                        await talk.write(refusal(error))
        except _Left as error:
            outcome = str(error)
        except SandboxGone:
            outcome = "the guest is gone"
        finally:
            self._requests -= 1
            self.counts.requests += 1
            talk.finish()
            talk.close({})
            seconds = loop.time() - started
            line = f"{gate.shown} {answer.status or '-'} {answer.received} bytes {seconds:.2f} s {outcome}"
            self._log(line.rstrip())

    async def _exchange(self, talk: Talk, gate: Gate, answer: Answer) -> None:
        """One request and its answer. Raises `Refusal`, `_Left`, `SandboxGone`."""
        body = b""
        while gate.asked is None:
            body = await _asked(talk, gate)
        head = gate.asked.head(self._policy.upstream)
        reader, writer = await self._dial()
        try:
            if gate.asked.waits and not gate.complete:
                await talk.write(_CONTINUE)
            writer.write(head)
            chunked = gate.asked.length is None
            while True:
                if body:
                    writer.write(chunk(body) if chunked else body)
                    self.counts.received += len(body)
                if gate.complete:
                    break
                await _drained(writer)
                body = await _asked(talk, gate)
            if chunked:
                writer.write(chunk(b""))
            await _drained(writer)
            await self._answer(talk, gate, reader, answer)
        finally:
            writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        upstream = self._policy.upstream
        try:
            async with asyncio.timeout(_DIAL_S):
                return await asyncio.open_connection(upstream.host, upstream.port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "it does not answer"
            raise Refusal(502, f"the model server cannot be reached: {reason}") from error

    async def _answer(self, talk: Talk, gate: Gate, reader: asyncio.StreamReader, answer: Answer) -> None:
        """Pass the answer on, piece by piece as it comes, for as long as the guest is there."""
        passing = asyncio.create_task(self._pass_on(talk, reader, answer))
        leaving = asyncio.create_task(_left(talk, gate))
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            await (passing if passing.done() else leaving)
        finally:
            for task in (passing, leaving):
                task.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)

    async def _pass_on(self, talk: Talk, reader: asyncio.StreamReader, answer: Answer) -> None:
        while not answer.complete:
            try:
                data = await reader.read(_READ)
            except OSError as error:
                raise Refusal(502, "the model server broke off") from error
            if not data:
                if not answer.status:
                    raise Refusal(502, "the model server gave no answer")
                return
            answer.feed(data)
            if answer.received > self._policy.caps.answered:
                raise _Left(f"cut at {self._policy.caps.answered} bytes")
            self.counts.sent += len(data)
            await _written(talk, data)

    # -- into the guest

    def _on_note(self, note: dict[str, Any]) -> None:
        told = note.get("serving")
        ports = told if isinstance(told, list) else []
        self._wanted = frozenset(port for port in self._policy.inbound if port in ports)
        self._changed.set()

    async def _keep_listening(self) -> None:
        """Listen on this machine for what the guest serves, and for nothing else."""
        while True:
            with suppress(TimeoutError):  # a port that somebody held may be free by now
                async with asyncio.timeout(_AGAIN_S if any(self.serving.values()) else None):
                    await self._changed.wait()
            self._changed.clear()
            for port in list(self.serving):
                if port not in self._wanted:
                    self._close(port)
            for port in sorted(self._wanted):
                if port not in self._listening:
                    await self._listen(port)

    async def _listen(self, port: int) -> None:
        here = self._policy.inbound[port]

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._let_in(port, reader, writer))

        try:
            self._listening[port] = await asyncio.start_server(connected, LOOPBACK, here)
            self.serving[port] = ""
            self._log(f"port {port} of the guest is at {LOOPBACK}:{here}")
        except OSError as error:
            held = await asyncio.to_thread(holder, here) or error.strerror or str(error)
            if self.serving.get(port) != held:
                self._log(f"port {port} of the guest is not to be had: {here} is held by {held}")
            self.serving[port] = held

    def _close(self, port: int) -> None:
        self.serving.pop(port, None)
        server = self._listening.pop(port, None)
        if server is not None:
            server.close()
            self._log(f"port {port} of the guest is served no longer")

    async def _let_in(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._inbound >= self._policy.caps.inbound or self._link.gone is not None:
            writer.transport.abort()
            return
        self._inbound += 1
        self.counts.inbound += 1
        talk = self._link.open({"to": port})
        inwards = asyncio.create_task(_inwards(talk, reader))
        outwards = asyncio.create_task(_outwards(talk, writer))
        try:
            await asyncio.wait({inwards, outwards}, return_when=asyncio.FIRST_COMPLETED)
            if inwards.done() and inwards.result():
                await outwards  # somebody who has said everything still waits for the answer
        finally:
            self._inbound -= 1
            inwards.cancel()
            outwards.cancel()
            await asyncio.gather(inwards, outwards, return_exceptions=True)
            talk.close({})
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class _Left(Exception):
    """The guest's side of a request ended before the answer did; the text is for the log."""


async def _asked(talk: Talk, gate: Gate) -> bytes:
    """The next bytes of a request's body, perhaps none of them yet. Raises `Refusal`, `_Left`."""
    try:
        async with asyncio.timeout(_HEAD_S):
            frame = await talk.next()
    except TimeoutError as error:
        raise Refusal(408, f"nothing came for {_HEAD_S:g} s") from error
    if frame.kind != frames.DATA:
        raise _Left("left before the request was complete")
    return gate.feed(frame.payload)


async def _left(talk: Talk, gate: Gate) -> None:
    """Wait until the guest leaves, or sends what it may not. Always raises."""
    frame = await talk.next()
    if frame.kind == frames.DATA:
        gate.feed(frame.payload)  # refuses it
    raise _Left("left before the answer was complete")


async def _written(talk: Talk, data: bytes) -> None:
    try:
        async with asyncio.timeout(_STALLED_S):
            await talk.write(data)
    except TimeoutError as error:
        raise _Left(f"took nothing for {_STALLED_S:g} s") from error


async def _drained(writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_STALLED_S):
            await writer.drain()
    except (OSError, TimeoutError) as error:
        raise Refusal(502, "the model server broke off") from error


async def _inwards(talk: Talk, reader: asyncio.StreamReader) -> bool:
    """Until the outside has said everything, or else broke off; whether it was the first."""
    try:
        while data := await reader.read(_READ):
            await talk.write(data)
    except (OSError, SandboxGone):
        return False
    talk.finish()
    return True


async def _outwards(talk: Talk, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, SandboxGone):  # that one connection broke
        while (frame := await talk.next()).kind != frames.CLOSE:
            if frame.kind == frames.EOF:
                writer.write_eof()
            else:
                writer.write(frame.payload)
                await writer.drain()


def holder(port: int) -> str:
    """Who listens on that port of this machine, as `name (process 12)`; empty when that cannot be seen."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            for line in file.read().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc") if inodes else []):
        if inodes & set(_descriptors(pid)):
            with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                return f"{file.read().strip()} (process {pid})"
    return ""


def _descriptors(pid: str) -> Iterator[str]:
    """What that process has open, as far as that can be seen."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                yield os.readlink(f"/proc/{pid}/fd/{fd}")


@asynccontextmanager
async def relaying(
    path: Path,
    policy: Policy,
    log: Callable[[str], None],
    *,
    timeout_s: float = 10.0,
    again_s: float | None = None,
) -> AsyncIterator[Relay]:
    """Serve the guest whose port `org.net` ends in the unix socket `path`, for as long as the context.

    `timeout_s` and `again_s` are those of `linked`. Raises `SandboxGone` when nobody answers there. When
    the guest goes later, `run` of the relay raises it; everything is closed then.
    """
    async with linked(path, "the machine", timeout_s=timeout_s, again_s=again_s) as link:
        yield Relay(link, policy, log)
