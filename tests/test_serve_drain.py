"""Handing over: the contract of a generation, and a drain that loses no request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from serve_kit import DEADLINE_S, Answer, Client, Process, ask, listening, read_until, request

Start: TypeAlias = Callable[..., Process]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


@pytest.fixture
def start(tmp_path: Path, listener: socket.socket) -> Iterator[Start]:
    """Starts servers of the same home on the same listener."""
    made: list[Process] = []

    def begin(**env: str) -> Process:
        made.append(Process(tmp_path, listener, **env))
        return made[-1]

    yield begin
    for process in made:
        process.close()


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


async def ask_privately(path: Path, target: str = "/health") -> Answer:
    reader, writer = await asyncio.open_unix_connection(path)
    async with Client(reader, writer) as client:
        return await client.ask("GET", target, token="")


async def test_the_words_of_the_contract_in_order(start: Start, listener: socket.socket) -> None:
    server = start()
    assert await server.said() == "ready"
    health = (await ask_privately(server.socket)).json
    assert (health["status"], health["commit"], health["nonce"]) == ("starting", "c0ffee", "n-1")
    assert (await ask_privately(server.socket, "/health?nonce=other")).json["nonce"] == "other"
    assert (await ask_privately(server.socket, "/rooms")).status == 404

    # Who connects before it is told to go is answered afterwards.
    async with await Client.connect(port_of(listener)) as early:
        early.send(request("GET", "/health"))
        server.go()
        assert await server.said() == "accepting"
        assert (await early.answer()).json["status"] == "serving"

    server.popen.send_signal(signal.SIGTERM)
    assert await server.said() == "draining"
    assert await server.said() == "drained"
    assert await server.exit_code() == 0


async def test_told_to_end_before_it_may_go(start: Start) -> None:
    server = start()
    assert await server.said() == "ready"
    server.popen.send_signal(signal.SIGTERM)
    assert await server.said() == "drained"
    assert await server.exit_code() == 0


async def test_whoever_started_it_dies_before_it_may_go(start: Start) -> None:
    server = start()
    assert await server.said() == "ready"
    server.hang_up()
    assert await server.said() == "drained"
    assert await server.exit_code() == 0


async def test_its_starter_may_die_while_it_serves(start: Start, listener: socket.socket) -> None:
    server = await start(KEEP_ALIVE_S="0.1").start()
    server.hang_up()
    os.close(server._ack)
    server._ack = -1
    async with await Client.connect(port_of(listener)) as client:
        assert (await client.ask("GET", "/health")).status == 200
    server.popen.send_signal(signal.SIGTERM)
    assert await server.exit_code() == 0


async def test_no_request_is_lost_at_a_swap(start: Start, listener: socket.socket) -> None:
    """400 connections from before, silent or idle after an answer, send their request 0 to 1 s after
    the old server was told to drain; so do new connections."""
    old = await start().start()
    port = port_of(listener)
    silent = [await Client.connect(port) for _ in range(200)]
    idle = [await Client.connect(port) for _ in range(200)]
    assert [(await client.ask("GET", "/health")).status for client in idle] == [200] * 200
    async with await Client.connect(port) as witness:
        # All connections before this one are accepted when it is answered: they wait in one queue.
        old_pid = (await witness.ask("GET", "/health")).json["pid"]

    new = await start().start()
    old.popen.send_signal(signal.SIGTERM)

    draining = asyncio.create_task(old.said())

    async def late(client: Client, wait_s: float) -> tuple[bool, Answer]:
        await asyncio.sleep(wait_s)  # the probe itself: a client that takes its time
        after = draining.done()
        async with client:
            return after, await client.ask("GET", "/health")

    async def fresh(wait_s: float) -> tuple[bool, Answer]:
        await asyncio.sleep(wait_s)
        after = draining.done()
        return after, await ask(port, "GET", "/health")

    clients = [client for pair in zip(silent, idle, strict=True) for client in pair]
    probes = [late(client, n / len(clients)) for n, client in enumerate(clients)]
    newcomers = [fresh(n / 100) for n in range(100)]
    answers = await asyncio.gather(*probes, *newcomers)
    assert draining.result() == "draining"
    assert [answer.status for _, answer in answers] == [200] * 500
    old_ones = [answer for after, answer in answers[:400] if after]
    new_ones = [answer for after, answer in answers[400:] if after]
    assert len(old_ones) > 100
    assert {answer.headers.get("connection") for answer in old_ones} == {"close"}
    assert {answer.json["pid"] for answer in old_ones} == {old_pid}
    assert {answer.json["pid"] for answer in new_ones} == {new.popen.pid}
    assert await old.said() == "drained"
    assert await old.exit_code() == 0


async def test_streams_end_at_once_and_go_on_with_the_next(
    start: Start, listener: socket.socket, tmp_path: Path
) -> None:
    """A reader at a swap gets every event once; what is posted meanwhile waits until the room is free."""
    port = port_of(listener)
    old = await start(KEEP_ALIVE_S="0.5").start()
    async with await Client.connect(port) as client:
        await client.ask("POST", "/rooms", {"id": "main"})
        await client.ask("POST", "/rooms/main/messages", {"text": "before"})
    seen: list[int] = []
    async with await Client.connect(port) as reader:
        reader.send(request("GET", "/rooms/main/events"))
        await reader.head()
        seen += [seq for seq, _ in await read_until(reader, "stopped") if seq]
        new = await start(KEEP_ALIVE_S="0.5").start()
        old.popen.send_signal(signal.SIGTERM)
        assert await old.said() == "draining"
        async with asyncio.timeout(DEADLINE_S):
            while entry := await reader.event():
                seen.append(entry[0])
        last = reader.last_id
    async with await Client.connect(port) as reader, await Client.connect(port) as client:
        reader.send(request("GET", "/rooms/main/events", last_event_id=str(last)))
        assert (await reader.head())[0] == 200
        room = (await client.ask("GET", "/rooms/main")).json
        assert room["seq"] >= last
        said = await client.ask("POST", "/rooms/main/messages", {"text": "after"})
        assert said.status == 202
        seen += [seq for seq, _ in await read_until(reader, "stopped") if seq]
        told = (await client.ask("GET", "/rooms/main/transcript")).json["events"]
    assert [seq for seq in seen if seq] == list(range(1, max(seen) + 1))
    contents = [event["message"]["content"] for event in told if event["type"] == "posted"]
    assert contents == ["before", "heard: before", "after", "heard: after"]
    assert await old.said() == "drained"
    assert new.popen.poll() is None


async def test_an_exchange_comes_to_its_end_within_the_drain(
    start: Start, listener: socket.socket, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = await start(KEEP_ALIVE_S="0.1").start()
    await talk(port_of(listener))
    server.popen.send_signal(signal.SIGTERM)
    assert await server.said() == "draining"
    await asyncio.to_thread(gate.write_bytes, b"go")
    assert await server.said() == "drained"
    gate.unlink()
    again = await start().start()
    assert (await endings(port_of(listener)), again.popen.poll()) == (["answered"], None)


async def test_an_exchange_that_takes_too_long_is_interrupted(
    start: Start, listener: socket.socket, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = await start(KEEP_ALIVE_S="0.1", DRAIN_S="0.3").start()
    await talk(port_of(listener))
    server.popen.send_signal(signal.SIGTERM)
    assert await server.said() == "draining"
    assert await server.said() == "drained"
    await asyncio.to_thread(gate.write_bytes, b"go")  # the thread that waits keeps the process from ending
    assert await server.exit_code() == 0
    gate.unlink()
    await start().start()
    assert await endings(port_of(listener)) == ["interrupted"]


async def test_a_drain_may_be_cut_short(start: Start, listener: socket.socket) -> None:
    server = await start(KEEP_ALIVE_S="3600", DRAIN_S="3600").start()
    async with await Client.connect(port_of(listener)) as client:
        await client.ask("GET", "/health")
        server.popen.send_signal(signal.SIGTERM)
        assert await server.said() == "draining"
        server.popen.send_signal(signal.SIGTERM)
        assert await server.said() == "drained"
        assert await server.exit_code() == 0
        assert await client.closed()


async def test_a_post_over_an_old_connection_is_taken(start: Start, listener: socket.socket) -> None:
    """The room is only let go of when nobody can post over a connection from before."""
    port = port_of(listener)
    server = await start(KEEP_ALIVE_S="2").start()
    async with await Client.connect(port) as client, await Client.connect(port) as late:
        await client.ask("POST", "/rooms", {"id": "main"})
        await late.ask("GET", "/health")
        server.popen.send_signal(signal.SIGTERM)
        assert await server.said() == "draining"
        said = await late.ask("POST", "/rooms/main/messages", {"text": "still there?"})
        assert (said.status, said.headers["connection"]) == (202, "close")


async def test_a_room_is_opened_over_an_old_connection(start: Start, listener: socket.socket) -> None:
    """The one before had not opened the room; what it is told while it drains is handed on in the journal."""
    port = port_of(listener)
    first = await start(KEEP_ALIVE_S="0.1").start()
    assert (await ask(port, "POST", "/rooms", {"id": "main"})).status == 201
    first.popen.send_signal(signal.SIGTERM)
    assert await first.exit_code() == 0
    old = await start(KEEP_ALIVE_S="3").start()
    async with await Client.connect(port) as client:
        await client.ask("GET", "/health")
        await start().start()
        old.popen.send_signal(signal.SIGTERM)
        assert await old.said() == "draining"
        said = await client.ask("POST", "/rooms/main/messages", {"text": "still there?"})
        assert (said.status, said.headers["connection"]) == (202, "close")
    said = await ask(port, "POST", "/rooms/main/messages", {"text": "and now?"})
    assert said.status == 202
    events = (await ask(port, "GET", "/rooms/main/transcript")).json["events"]
    contents = [event["message"]["content"] for event in events if event["type"] == "posted"]
    assert contents[:3] == ["still there?", "heard: still there?", "and now?"]


async def test_a_room_is_made_over_an_old_connection(start: Start, listener: socket.socket) -> None:
    port = port_of(listener)
    old = await start(KEEP_ALIVE_S="3").start()
    async with await Client.connect(port) as client:
        await client.ask("GET", "/health")
        old.popen.send_signal(signal.SIGTERM)
        assert await old.said() == "draining"
        assert (await client.ask("POST", "/rooms", {"id": "main"})).status == 201
    assert await old.exit_code() == 0
    await start().start()
    assert (await ask(port, "POST", "/rooms/main/messages", {"text": "hello"})).status == 202


async def test_a_room_that_the_next_one_has_is_its(start: Start, listener: socket.socket) -> None:
    """Nobody writes a journal that another writes: who asks the old one is told to ask again."""
    port = port_of(listener)
    old = await start(KEEP_ALIVE_S="1").start()
    async with await Client.connect(port) as client:
        await client.ask("GET", "/health")
        await start().start()
        old.popen.send_signal(signal.SIGTERM)
        assert await old.said() == "draining"
        assert (await ask(port, "POST", "/rooms", {"id": "main"})).status == 201
        said = await client.ask("POST", "/rooms/main/messages", {"text": "hello"})
        assert (said.status, said.error) == (503, "this server has let go of the room")
        assert (said.headers["retry-after"], said.headers["connection"]) == ("1", "close")


async def talk(port: int) -> None:
    """Have a participant begin to speak."""
    async with await Client.connect(port) as client, await Client.connect(port) as reader:
        await client.ask("POST", "/rooms", {"id": "main"})
        reader.send(request("GET", "/rooms/main/events"))
        await reader.head()
        await client.ask("POST", "/rooms/main/messages", {"text": "hello"})
        await read_until(reader, "turn_started")


async def endings(port: int) -> list[str]:
    async with await Client.connect(port) as client:
        answer = await client.ask("GET", "/rooms/main/transcript")
    return [event["status"] for event in answer.json["events"] if event["type"] == "turn_ended"]
