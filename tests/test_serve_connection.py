"""Who may keep a connection, and for how long."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

import pytest

from org.serve import connection, drain
from org.serve.connection import Connection
from serve_kit import DEADLINE_S, Client, Parrot, Site, read_until, request, site


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.05)


async def test_who_begins_a_second_request_is_not_waited_for_either(tmp_path: Path, hasty: None) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        assert (await client.ask("GET", "/health")).status == 200
        client.send(b"GET /health HTTP/1.1\r\nX:")
        assert await client.closed()


async def test_nor_who_trickles_a_body_that_was_refused(tmp_path: Path, hasty: None) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(request("POST", "/rooms", b"x", token="", content_length="1000"))
        assert (await client.answer()).status == 401
        client.send(b"x")
        assert await client.closed()


async def test_who_reads_is_waited_for(tmp_path: Path, hasty: None) -> None:
    """A request that is being answered may take as long as it takes."""
    gate = asyncio.Event()
    async with site(tmp_path, lambda: [Parrot(wait=gate.wait)]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with await Client.connect(server.port) as client:
            client.send(request("GET", "/rooms/main/events"))
            await client.head()
            await asyncio.sleep(0.2)  # the probe: four times the patience
            await server.ask("POST", "/rooms/main/messages", {"text": "hello"})
            assert await read_until(client, "turn_started")
            gate.set()


async def test_strangers_hold_a_part_of_the_connections_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_STRANGERS", 2)
    monkeypatch.setattr(connection, "STRANGER_S", 0.0)
    async with site(tmp_path) as server, await Client.connect(server.port) as mine:
        assert (await mine.ask("GET", "/rooms")).status == 200
        async with await Client.connect(server.port) as oldest, await Client.connect(server.port) as other:
            for stranger in (oldest, other):
                assert (await stranger.ask("GET", "/health", token="")).status == 200
            assert (await server.ask("GET", "/rooms")).status == 200
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await oldest.ask("GET", "/health", token="")
            assert (await mine.ask("GET", "/health", token="")).status == 200  # it has shown it before
            monkeypatch.setattr(connection, "STRANGER_S", 3600.0)
            async with await Client.connect(server.port) as new:
                assert (await new.ask("GET", "/health", token="")).status == 200
                assert (await server.ask("GET", "/rooms")).status == 503
        assert (await mine.ask("GET", "/rooms")).status == 200


# -- readers that do not read


async def stalled(server: Site, room: str, megabytes: int = 16) -> socket.socket:
    """A reader that takes nothing, and more than a kernel keeps for it."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", server.port))
    deaf.sendall(request("GET", f"/rooms/{room}/events"))
    for _ in range(megabytes):
        said = await server.ask("POST", f"/rooms/{room}/messages", {"text": "x" * 1_000_000})
        assert said.status == 202
    return deaf


async def lost(server: Site, room: str) -> None:
    """Wait until nobody reads any more."""
    stream = (await server.hub.look(room)).stream
    async with asyncio.timeout(DEADLINE_S):
        while stream.readers:
            await stream._moves.wait()


async def test_who_takes_nothing_is_given_up_and_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffered: list[int] = []
    watch = Connection._watch

    def noted(self: Connection) -> None:
        buffered.append(self.transport.get_write_buffer_size())
        watch(self)

    monkeypatch.setattr(Connection, "_watch", noted)
    monkeypatch.setattr(connection, "STALLED_S", 0.2)
    async with site(tmp_path, list) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        deaf = await stalled(server, "main")
        await lost(server, "main")
        deaf.close()
        assert 0 < max(buffered) < 140_000  # a message has a million
        async with await Client.connect(server.port) as client:
            client.send(request("GET", "/rooms/main/events"))
            await client.head()
            assert len(await read_until(client, "posted", 16)) >= 16


async def test_a_drain_does_not_wait_for_who_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "DRAIN_STALLED_S", 0.1)
    async with site(tmp_path, list, drain_s=3600.0) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        deaf = await stalled(server, "main")
        server.end()
        async with asyncio.timeout(DEADLINE_S):
            await server.task
        deaf.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_forced_end_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a reader, a completion and a request whose body does not come."""
    monkeypatch.setattr(drain, "GRACE_S", 0.1)
    async with site(tmp_path, lambda: [Parrot(wait=asyncio.Event().wait)]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with (
            await Client.connect(server.port) as reader,
            await Client.connect(server.port) as asking,
            await Client.connect(server.port) as slow,
        ):
            reader.send(request("GET", "/rooms/main/events"))
            await reader.head()
            body = {"model": "org/main", "messages": [{"role": "user", "content": "hello"}]}
            asking.send(request("POST", "/v1/chat/completions", body | {"metadata": {"room": "main"}}))
            await read_until(reader, "turn_started")
            slow.send(request("POST", "/rooms", b"{", content_length="100"))
            os.kill(os.getpid(), signal.SIGINT)
            async with asyncio.timeout(DEADLINE_S):
                await server.task
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
