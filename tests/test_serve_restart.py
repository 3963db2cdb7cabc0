"""The server is killed again and again while readers read and people post."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_kit import DEADLINE_S, Client, Process, ask, listening, read_until, request

READERS = 40
POSTS = 60
KILLS = 4


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


async def test_every_reader_resumes_without_gap_or_duplicate(tmp_path: Path, listener: socket.socket) -> None:
    port = int(listener.getsockname()[1])
    done = asyncio.Event()  # everything was posted, and answered
    restarts: list[Process] = [await Process(tmp_path, listener).start()]
    assert (await ask(port, "POST", "/rooms", {"id": "main"})).status == 201

    async def read() -> list[int]:
        """All ids, over as many connections as it takes."""
        seen: list[int] = []
        while not done.is_set() or seen[-1] < last_seq:
            try:
                async with await Client.connect(port) as client:
                    client.send(request("GET", "/rooms/main/events", last_event_id=str(max(seen, default=0))))
                    assert (await client.head())[0] == 200
                    while entry := await client.event():
                        if entry[0]:
                            seen.append(entry[0])
                        if done.is_set() and seen[-1] >= last_seq:
                            return seen
            except (ConnectionError, asyncio.IncompleteReadError, ValueError):
                continue  # killed in the middle of something
        return seen

    async def post(number: int) -> None:
        """Say something once, asking again until there is an answer."""
        while True:
            try:
                answer = await ask(
                    port,
                    "POST",
                    "/rooms/main/messages",
                    {"text": f"word {number}"},
                    idempotency_key=f"k{number}",
                )
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            assert answer.status == 202, answer.body
            return

    async def kill() -> None:
        killed = restarts[-1]
        killed.popen.send_signal(signal.SIGKILL)
        restarts.append(await Process(tmp_path, listener).start())
        killed.close()

    async def post_all() -> None:
        killing: asyncio.Task[None] | None = None
        for number in range(POSTS):
            if number % (POSTS // KILLS) == POSTS // KILLS // 2:
                if killing is not None:
                    await killing
                killing = asyncio.create_task(kill())  # while we go on posting
            await post(number)
        assert killing is not None
        await killing

    last_seq = 0
    try:
        async with asyncio.timeout(DEADLINE_S * 2), asyncio.TaskGroup() as group:
            readers = [group.create_task(read()) for _ in range(READERS)]
            await post_all()
            last_seq = (await ask(port, "GET", "/rooms/main")).json["seq"]
            done.set()
            await ask(port, "POST", "/rooms/main/members", {"person": "last"})  # wakes all who read
        for reader in readers:
            seen = reader.result()
            assert seen == list(range(1, len(seen) + 1))
            assert len(seen) >= last_seq
        events = (await ask(port, "GET", "/rooms/main/transcript")).json["events"]
    finally:
        restarts[-1].close()
    said = [
        e["message"]["content"] for e in events if e["type"] == "posted" and e["message"]["sender"] == "me"
    ]
    assert said == [f"word {number}" for number in range(POSTS)]
    assert len(restarts) == KILLS + 1


async def test_what_a_killed_server_ran_runs_no_more(tmp_path: Path, listener: socket.socket) -> None:
    """Nobody has the room open, so nothing runs in it; what its journal says is as it was."""
    port = int(listener.getsockname()[1])
    os.mkfifo(tmp_path / "gate")
    server = await Process(tmp_path, listener).start()
    try:
        await ask(port, "POST", "/rooms", {"id": "main"})
        async with await Client.connect(port) as client:
            client.send(request("GET", "/rooms/main/events"))
            await client.head()
            await ask(port, "POST", "/rooms/main/messages", {"text": "wait"})
            await read_until(client, "invited")
        room = (await ask(port, "GET", "/rooms/main")).json
        assert room["running"] == [{"participant": "parrot", "turn": 1}]
        server.close()
        server = await Process(tmp_path, listener).start()
        again = (await ask(port, "GET", "/rooms/main")).json
        assert (again["seq"], again["open"], again["running"]) == (room["seq"], False, [])
    finally:
        server.close()
