"""A server that answers with prepared bytes, on a real socket.

An answer is a list of steps: bytes to write, or one of `CUT`, `RESET`, `HANG`. After its last step the
connection waits for the next request. Answers are given in order, the last one again and again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any, TypeAlias


class Act(Enum):
    CUT = "close the connection"
    RESET = "close it with a TCP reset"
    HANG = "do nothing until the client closes"


CUT, RESET, HANG = Act.CUT, Act.RESET, Act.HANG
Step: TypeAlias = bytes | Act
Answer: TypeAlias = Sequence[Step]


@dataclass(frozen=True)
class Request:
    """What a client sent. `gone` is set when its connection is over, `sent` when all steps are done."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Replay:
    """`requests` came, in this order; `connections` were opened, `open` of them still are."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []
        self.came: asyncio.Queue[Request] = asyncio.Queue()
        self.connections = 0
        self.open = 0
        self.port = 0
        self.url = ""
        self._transports: set[asyncio.WriteTransport] = set()
        self._over = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._transports.add(writer.transport)
        self.connections += 1
        self.open += 1
        number = self.connections
        request = None
        try:
            while True:
                request = await _read_request(reader, number)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                self.requests.append(request)
                self.came.put_nowait(request)
                for step in answer:
                    if step is CUT:
                        return
                    if step is RESET:
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, linger
                        )
                        return
                    if step is HANG:
                        request.sent.set()
                        await reader.read()
                        return
                    assert isinstance(step, bytes)
                    writer.write(step)
                    await writer.drain()
                    await asyncio.sleep(0)
                request.sent.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            self._transports.discard(writer.transport)
            self.open -= 1
            if request is not None:
                request.gone.set()
            async with self._over:
                self._over.notify_all()

    async def emptied(self) -> None:
        """Wait until no connection is open."""
        async with self._over:
            await self._over.wait_for(lambda: not self.open)

    async def stop(self) -> None:
        for transport in self._transports:
            transport.abort()
        await self.emptied()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(head[0], headers, body, connection)


@asynccontextmanager
async def replay(
    *answers: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Replay]:
    """A running `Replay`; its `url` ends in `/v1`."""
    server = Replay(answers)
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls, backlog=512)
    server.port = listener.sockets[0].getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    server.url = f"{'https' if tls else 'http'}://{name}:{server.port}/v1"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


# -- the bytes of answers


def head(status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def plain(body: bytes | str, status: str = "200 OK", kind: str = "application/json", *headers: str) -> bytes:
    """An answer of a known length."""
    data = body.encode() if isinstance(body, str) else body
    return head(status, f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers) + data


STREAM_HEAD = head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
BARE_STREAM_HEAD = head("200 OK", "Content-Type: text/event-stream", "Connection: close")
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(data: bytes, sizes: Sequence[int] = (16_384,)) -> bytes:
    """`data` in chunks of these sizes in turn, and the last chunk."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(chunk(data[at : at + size]))
        at, turn = at + size, turn + 1
    return b"".join(pieces) + LAST_CHUNK


def stream(data: bytes, sizes: Sequence[int] = (16_384,)) -> bytes:
    """A whole answer: an event stream in chunked encoding."""
    return STREAM_HEAD + chunked(data, sizes)


def event(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def delta(finish: str | None = None, **fields: object) -> dict[str, Any]:
    """A chunk of a completion."""
    return {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


def events(*values: object, done: bool = True) -> bytes:
    return b"".join(map(event, values)) + (b"data: [DONE]\n\n" if done else b"")


def said(*texts: str) -> bytes:
    """A whole event stream that says `texts`, a delta each."""
    return events(*(delta(content=text) for text in texts), delta("stop"))


def cut(data: bytes, points: Iterable[int]) -> list[bytes]:
    """`data` in pieces; `points` are any non-negative numbers."""
    bounds = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]
