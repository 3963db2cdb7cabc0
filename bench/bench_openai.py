"""What lies between an OpenAI client and a model: `org serve`, against the same model asked directly.

The model is a stub of the wire in a process of its own that answers at once, so that all the difference
is ours: the way through HTTP twice, and a room of its own for each request.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

WHOLE = 50
STREAMS = 50
AT_ONCE = 32
"""All in all fewer than the server lets through at once."""


class Place(NamedTuple):
    port: int
    model: str
    token: str = ""


class Taken(NamedTuple):
    """Milliseconds of one request: to the first words of the answer, and to its end."""

    first: float
    last: float


def run() -> dict[str, float]:
    """Medians in milliseconds: `whole_ms` for an answer that is no stream, `first_ms` to the first words
    of one that is; each beside what it takes `direct`ly and how much is `added`. `at_once_ms` is how
    long 32 streams take together."""
    with _stub() as stub, _server(stub) as served:
        direct = Place(stub, "talk")
        asyncio.run(_asked(served, stream=False))  # the first one finds out what the others know
        pairs = [_pair(direct, served, stream=False) for _ in range(WHOLE)]
        streams = [_pair(direct, served, stream=True) for _ in range(STREAMS)]
        at_once = [asyncio.run(_at_once(place)) for place in (direct, served)]
    whole = [statistics.median(side[n].last for side in pairs) for n in (0, 1)]
    first = [statistics.median(side[n].first for side in streams) for n in (0, 1)]
    figures = {"whole": whole, "first": first, "at_once": at_once}
    return {
        key: value
        for name, (floor, ours) in figures.items()
        for key, value in (
            (f"direct_{name}_ms", floor),
            (f"{name}_ms", ours),
            (f"{name}_added_ms", ours - floor),
        )
    }


def _pair(direct: Place, served: Place, *, stream: bool) -> tuple[Taken, Taken]:
    return asyncio.run(_asked(direct, stream=stream)), asyncio.run(_asked(served, stream=stream))


async def _at_once(place: Place) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_asked(place, stream=True) for _ in range(AT_ONCE)))
    return (time.perf_counter() - began) * 1e3


async def _asked(place: Place, *, stream: bool) -> Taken:
    body = {"model": place.model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {place.token}\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    seen, first, rest = b"", 0.0, None
    while rest is None or rest > 0:
        part = await asyncio.wait_for(reader.read(65536), 10)
        assert part, seen
        seen += part
        if not first and b"Message" in seen:
            first = time.perf_counter()
        if seen.endswith(b"0\r\n\r\n"):
            break
        if length := re.search(
            rb"content-length: (\d+)\r\n(?:.*?\r\n)?\r\n", seen, re.IGNORECASE | re.DOTALL
        ):
            rest = length.end() + int(length[1]) - len(seen)
    last = time.perf_counter()
    assert b" 200 OK" in seen and first, seen
    writer.close()
    return Taken((first - began) * 1e3, (last - began) * 1e3)


@contextmanager
def _stub() -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("room_stub.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()


@contextmanager
def _server(stub: int) -> Iterator[Place]:
    with TemporaryDirectory(prefix="org-bench-") as folder:
        command = [sys.executable, "-m", "org", "serve", "--port", "0", "--with", "coder=simple"]
        command += ["--base", f"http://127.0.0.1:{stub}/v1", "-m", "talk"]
        env = {"PATH": os.environ["PATH"], "HOME": folder, "XDG_STATE_HOME": folder}
        with subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            found = re.search(r":(\d+)/#token=(\S+)", process.stdout.readline())
            assert found
            yield Place(int(found[1]), "org/main/coder", found[2])
            process.terminate()
