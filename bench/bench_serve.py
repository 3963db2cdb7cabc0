"""The server: a thousand readers of one room, and how soon one reads what was posted."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from bench.serve_site import EVENTS, MESSAGES, TOKEN
from org.events import Posted
from org.journal import RoomJournal
from org.messages import EVERYONE, Message

T = TypeVar("T")

READERS = 1000
MESSAGES_A_SECOND = 10
SECONDS = 5
ECHOES = 300
WARM_UP = 300
"""Posts before it is measured: a new journal grows at first, which costs the disk more than writing anew."""
TEXT = "What is the weather like in the mountains today, and should we take umbrellas with us? " * 2


def run() -> dict[str, float]:
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rounds = {kind: _measured(kind, _fan_out) for kind in ("bare", "room")}
    (bare, bare_mb), (room, room_mb) = rounds["bare"], rounds["room"]
    echo, ours = _measured("echo", _echo), _measured("room", _echo)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    return {
        "delivery_us": room,
        "bare_delivery_us": bare,
        "delivery_ratio": room / bare,
        "readers_mb": room_mb,
        "bare_readers_mb": bare_mb,
        "echo_ms": ours,
        "bare_echo_ms": echo,
        "echo_ratio": ours / echo,
        "durable_write_ms": asyncio.run(_durable_write()),
    }


def _measured(kind: str, measure: Callable[[int, int], Coroutine[None, None, T]]) -> T:
    with _site(kind) as (port, pid):
        return asyncio.run(asyncio.wait_for(measure(port, pid), 120))


@contextmanager
def _site(kind: str) -> Iterator[tuple[int, int]]:
    """(port, pid) of a server."""
    with TemporaryDirectory(prefix="org-bench-") as folder:
        command = [sys.executable, "-m", "bench.serve_site", kind, folder]
        root = Path(__file__).parent.parent
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
        ) as process:
            assert process.stdin and process.stdout
            yield int(process.stdout.readline()), process.pid
            process.stdin.close()


class _Reader(asyncio.Protocol):
    """Counts the events that come, by the ends of their lines of data."""

    def __init__(self) -> None:
        self.events = 0
        self.first_byte: asyncio.Future[float] | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(_head("GET", EVENTS) + b"\r\n")

    def data_received(self, data: bytes) -> None:
        if self.first_byte is not None and not self.first_byte.done() and b"data:" in data:
            self.first_byte.set_result(time.perf_counter())
        data = self._tail + data
        self.events += data.count(b"}\n\n")
        self._tail = data[-2:]


def _head(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


class _Poster:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self) -> None:
        body = json.dumps({"text": TEXT}).encode()
        self._writer.write(_head("POST", MESSAGES) + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def answer(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 202 " in head, head
        await self._reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    def close(self) -> None:
        self._writer.close()


async def _fan_out(port: int, pid: int) -> tuple[float, float]:
    """(CPU of the server for one event to one reader in microseconds, MB more for all readers)."""
    loop = asyncio.get_running_loop()
    poster = _Poster(*await asyncio.open_connection("127.0.0.1", port))
    await asyncio.sleep(0.5)
    poster.send()
    await poster.answer()
    await asyncio.sleep(0.3)
    before = _memory_mb(pid)
    readers = [(await loop.create_connection(_Reader, "127.0.0.1", port))[1] for _ in range(READERS)]
    await asyncio.sleep(1.0)
    already = [reader.events for reader in readers]
    cpu = _cpu_s(pid)
    began = loop.time()
    for number in range(SECONDS * MESSAGES_A_SECOND):
        poster.send()
        await poster.answer()
        await asyncio.sleep(max(0.0, began + (number + 1) / MESSAGES_A_SECOND - loop.time()))
    expected = 2 * SECONDS * MESSAGES_A_SECOND  # what was said, and that nobody answered
    deadline = loop.time() + 20
    while any(r.events - a < expected for r, a in zip(readers, already, strict=True)):
        assert loop.time() < deadline, "readers are missing messages"
        await asyncio.sleep(0.05)
    cpu = _cpu_s(pid) - cpu
    memory = _memory_mb(pid) - before
    counts = {r.events - a for r, a in zip(readers, already, strict=True)}
    assert counts == {expected}, counts
    poster.close()
    for reader in readers:
        reader.transport.abort()
    return cpu / (expected * READERS) * 1e6, memory


async def _echo(port: int, pid: int) -> float:
    """Milliseconds from posting to the first byte of it that a reader gets; the median."""
    loop = asyncio.get_running_loop()
    poster = _Poster(*await asyncio.open_connection("127.0.0.1", port))
    _, reader = await loop.create_connection(_Reader, "127.0.0.1", port)
    await asyncio.sleep(0.5)
    taken = []
    for _ in range(WARM_UP + ECHOES):
        reader.first_byte = loop.create_future()
        began = time.perf_counter()
        poster.send()
        taken.append(await reader.first_byte - began)
        await poster.answer()
        await asyncio.sleep(0.005)
    poster.close()
    reader.transport.abort()
    return statistics.median(taken[WARM_UP:]) * 1e3


async def _durable_write() -> float:
    """Milliseconds for one message in a journal, which ours waits for and a bare echo does not have."""
    said = Posted(Message(1, "me", "person", EVERYONE, TEXT, 1.5))
    taken = []
    with TemporaryDirectory(prefix="org-bench-") as folder:
        async with RoomJournal.open(Path(folder) / "rooms" / "main") as journal:
            for _ in range(2 * WARM_UP + ECHOES):
                began = time.perf_counter()
                await journal.append([said])
                taken.append(time.perf_counter() - began)
    return statistics.median(taken[2 * WARM_UP :]) * 1e3


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
