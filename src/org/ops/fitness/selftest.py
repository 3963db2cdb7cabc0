"""Whether the gate can be believed here: current against itself must tie, and current with its answers
spoilt must fail. What current's scores are like is learnt on the way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from org.errors import Inconclusive
from org.ops.fitness import ask, sequential
from org.ops.fitness.ask import Door
from org.ops.fitness.band import Band, band
from org.ops.fitness.pairs import Answering, Match, Outcome, Progress, play
from org.ops.listener import HOST
from org.ops.settings import FILE

_FORWARD_S = 3600.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Tested:
    """`twin` is current against itself, `spoilt` current against what spoils every second answer of it."""

    band: Band
    twin: Outcome
    spoilt: Outcome


async def self_test(match: Match, current: Answering, twin: Answering, progress: Progress) -> Tested:
    """Raises `Inconclusive` when the gate cannot be believed."""
    same = await play(replace(match, to_the_end=True), current, twin, progress)
    pairs = same.counted
    if len(pairs) < match.rule.pairs:
        raise Inconclusive(
            f"current cannot be compared with itself: {same.why}",
            f"tasks are asked by `POST {current.door.ask.path}`: `[generation.ask]` in {FILE} says where\n"
            "`pairs = 0` in `[generation.fitness]` is for a program that takes none",
        )
    if not sequential.ties([pair.difference for pair in pairs]):
        raise Inconclusive(
            f"current differs from itself: {same.why}", "what answers is not always asked alike"
        )
    scores = [half.score for pair in pairs for half in (pair.current, pair.candidate)]
    async with spoiling(twin) as spoilt:
        bad = await play(match, current, spoilt, progress)
    if bad.verdict != "fail":
        raise Inconclusive(
            f"current with every second answer spoilt does not fail: {bad.why or bad.verdict}",
            f"more pairs, or tasks of which more are solved: current solves {band(scores).mean:.0%}",
        )
    return Tested(band(scores), same, bad)


@asynccontextmanager
async def spoiling(side: Answering) -> AsyncIterator[Answering]:
    """A side that answers as another does, but for every second answer, of which nothing is left."""
    server = _Proxy((HOST, 0), _Spoiler)
    server.side = side
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
    thread.start()
    try:
        yield _Spoilt(side, server.server_address[1])
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Spoilt:
    side: Answering
    port: int

    @property
    def door(self) -> Door:
        return replace(self.side.door, port=self.port)

    async def revive(self) -> bool:
        return await self.side.revive()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    side: Answering
    answers = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: whoever asked sees that there is no answer, and counts it."""


class _Spoiler(BaseHTTPRequestHandler):
    server: _Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, data = ask.request(self.server.side.door, "POST", self.path, body, _FORWARD_S)
        self.server.answers += 1
        if self.server.answers % 2 == 0:
            data = spoil(data)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever asked knows."""


def spoil(data: bytes) -> bytes:
    """A completion that says nothing; what is none is left as it is."""
    try:
        said = json.loads(data)
        said["choices"][0]["message"]["content"] = "(spoilt)"
    except (ValueError, KeyError, IndexError, TypeError):
        return data
    return json.dumps(said).encode()
