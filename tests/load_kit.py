"""Clients without a second try: what they do not get at once is lost, and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

ANSWER_S = 60.0


@dataclass
class Tally:
    """How many answers were whole, by the commit that gave them, and what was lost, by why."""

    whole: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    async def count(self, kind: str, one: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await one
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.lost[f"{kind}: {error!r}"] += 1
        else:
            self.whole[kind] += 1


class Line:
    """A connection, and the bytes of its answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closes = False

    @classmethod
    async def open(cls, port: int) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, target: str) -> bytes:
        """The whole body. Raises `EOFError` when there is less of it than was promised."""
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.splitlines()[0]:
            raise ValueError(head.decode())
        self.closes = b"connection: close" in head
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
            return body
        length = head.partition(b"content-length:")[2].split()[0]
        return await self._reader.readexactly(int(length))

    def close(self) -> None:
        self._writer.close()


async def fresh(port: int, target: str) -> None:
    """A request on a connection of its own."""
    line = await Line.open(port)
    try:
        await line.ask(target)
    finally:
        line.close()


async def load(port: int, target: str, seconds: float, per_second: int, streams: int = 0) -> Tally:
    """Half of the requests on connections of their own, half on four that are kept while they may be; and
    so many streams, begun evenly over the time."""
    tally = Tally()
    clock = asyncio.get_running_loop()
    end = clock.time() + seconds
    kept = 4

    async def keep_asking() -> None:
        line = await Line.open(port)
        while clock.time() < end:
            if line.closes:
                line.close()
                line = await Line.open(port)
            await tally.count("kept", _none(line.ask(target)))
            if line_is_dead(tally):
                line.close()
                line = await Line.open(port)
            await asyncio.sleep(kept / (per_second / 2))
        line.close()

    def line_is_dead(tally: Tally) -> bool:
        return any(why.startswith("kept") for why in tally.lost)

    async with asyncio.TaskGroup() as group:
        for _ in range(kept):
            group.create_task(keep_asking())
        begun = 0
        count = int(seconds * per_second / 2)
        start = clock.time()
        for number in range(count):
            group.create_task(tally.count("fresh", fresh(port, target)))
            while begun < streams and begun / streams <= number / count:
                group.create_task(tally.count("stream", fresh(port, "/stream")))
                begun += 1
            await asyncio.sleep(max(0.0, start + (number + 1) * 2 / per_second - clock.time()))
    return tally


async def race(port: int, target: str, count: int, swap: Callable[[], Awaitable[object]]) -> Tally:
    """Half of the connections silent, half idle after an answer; each sends a request 0 to 1 s after what
    swaps has begun."""
    tally = Tally()
    lines = [await Line.open(port) for _ in range(count)]
    for line in lines[::2]:
        await line.ask(target)
    swapping = asyncio.ensure_future(swap())
    await swapping

    async def late(line: Line, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        await tally.count("late", _none(line.ask(target)))
        line.close()

    await asyncio.gather(*(late(line, number / count) for number, line in enumerate(lines)))
    return tally


async def _none(asking: Awaitable[bytes]) -> None:
    await asking
