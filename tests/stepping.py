"""A model server whose streams go one event at a time: each waits until the one before was seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Server:
    """A model server: keeps each request as it came, and answers with its length, or, when it asks for
    `{"stream": name, "count": n}`, with so many events, each after `gates[name]` was set."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.open = 0
        self.cut = asyncio.Event()
        """Set when a client left before its answer was complete."""
        self.gates: dict[str, asyncio.Event] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            body = await self._body(head, reader)
            self.bodies.append(body)
            if "stream" in head + body.decode(errors="replace"):
                await self._stream(json.loads(body), reader, writer)
            else:
                data = json.dumps({"length": len(body)}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.cut.set()
        finally:
            self.open -= 1
            writer.close()

    async def _body(self, head: str, reader: asyncio.StreamReader) -> bytes:
        if "chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
            return body
        length = next((line for line in head.splitlines() if line.startswith("Content-Length:")), ":0")
        return await reader.readexactly(int(length.split(":")[1]))

    async def _stream(
        self, asked: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name = str(asked["stream"])
        gate = self.gates.setdefault(name, asyncio.Event())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(int(str(asked["count"]))):
            writer.write(f"data: {name} {number}\n\n".encode())
            await writer.drain()
            waiting = asyncio.create_task(gate.wait())
            leaving = asyncio.create_task(reader.read(1))
            done, _ = await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            gate.clear()
            for task in (waiting, leaving):
                task.cancel()
            if leaving in done:
                raise ConnectionResetError
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()


@asynccontextmanager
async def stepping() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
