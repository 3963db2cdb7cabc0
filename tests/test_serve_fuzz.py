"""Requests that no client would send: none is answered with 500, none hangs, and the server lives on."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_kit import TOKEN, Client, Process, ask, listening, request, site

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"
)
EXAMPLES = 50  # for each of some twenty operations
RAW = 10_000


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


async def test_requests_made_from_the_description(tmp_path: Path, listener: socket.socket) -> None:
    """Valid and invalid ones, in every part of a request; the answers are as described."""
    port = int(listener.getsockname()[1])
    server = await Process(tmp_path, listener, KEEP_ALIVE_S="0.1").start()
    try:
        await ask(port, "POST", "/rooms", {"id": "main"})
        found = await asyncio.to_thread(_schemathesis, port, tmp_path)
        assert found.returncode == 0, found.stdout[-8000:]
        assert (await ask(port, "GET", "/health")).json["status"] == "serving"
    finally:
        server.close()


def _schemathesis(port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"http://127.0.0.1:{port}/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--exclude-operation-id", "events"),  # its answers have no end
            *("--exclude-operation-id", "models"),  # there is no model server
            *("--mode", "all", "--phases", "coverage,fuzzing", "--checks", CHECKS),
            *("--max-examples", str(EXAMPLES), "--request-timeout", "10", "--generation-deterministic"),
            *("--no-color", "--warnings", "off"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_bytes_that_are_hardly_http(tmp_path: Path) -> None:
    """Real requests with bytes changed, left out, doubled or cut off."""
    chance = random.Random(5)
    sound = [
        request("GET", "/health"),
        request("GET", "/rooms/main"),
        request("GET", "/rooms/none/events?after=1", last_event_id="2"),
        request("POST", "/rooms/main/messages", {"text": "@parrot hello"}, idempotency_key="k"),
        request("POST", "/rooms/main/members", {"person": "bob"}),
        request("PUT", "/rooms/main/members/me/mode", {"mode": "group"}),
        request("PUT", "/rooms/main/limits", {"turns": 5, "seconds": 1.5}),
        request("POST", "/rooms/main/undo", {"message": 1}),
        request("POST", "/rooms/main/approvals/0123456789abcdef", {"allow": True}),
        request("GET", "/rooms/main/search?q=hello&limit=5"),
        request("POST", "/v1/chat/completions", {"model": "org/main/calc", "messages": [], "n": 1}),
    ]
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        statuses = [await _answered(server.port, _broken(chance, chance.choice(sound))) for _ in range(RAW)]
        assert (await server.ask("GET", "/health")).json["status"] == "serving"
    assert not [status for status in statuses if status >= 500]
    assert statuses.count(400) > RAW // 10


def _broken(chance: random.Random, data: bytes) -> bytes:
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) or 1)
        some = data[place : place + chance.randint(1, 20)]
        match chance.randrange(4):
            case 0:
                data = data[:place] + chance.randbytes(chance.randint(1, 8)) + data[place + 1 :]
            case 1:
                data = data.replace(some, b"", 1)
            case 2:
                data = data[:place] + some * chance.randint(2, 50) + data[place:]
            case _:
                data = data[:place]
    return data


async def _answered(port: int, data: bytes) -> int:
    """The status; 0 when the server waits for more, or hangs up."""
    async with await Client.connect(port) as client:
        client.send(data)
        client.end()
        try:
            return (await client.head())[0]
        except asyncio.IncompleteReadError:
            return 0
