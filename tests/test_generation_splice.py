"""A program that knows no contract, behind a splice that speaks it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import generation_kit
import load_kit
from generation_kit import DEADLINE_S, Site, alive, get
from org.errors import OrgError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with generation_kit.site(tmp_path) as made:
        yield made


def test_what_is_not_guaranteed_is_said(site: Site) -> None:
    served = site.serve(1, "plain")
    current = site.status()["current"]
    assert (current["contract"], current["pid"], current["health"]["ok"]) == (0, served["pid"], True)
    assert "the program does not name it" in current["not_guaranteed"][0]
    assert get(site.port)["pid"] != served["pid"]  # the program is behind it
    assert not any(name.startswith("ORG_") and name != "ORG_COMMIT" for name in get(site.port)["env"])


async def test_new_connections_go_to_the_new_one(site: Site) -> None:
    await asyncio.to_thread(site.serve, 1, "plain")
    before = await load_kit.Line.open(site.port)
    await before.ask("/health")
    stream = asyncio.create_task(load_kit.fresh(site.port, "/stream"))
    await asyncio.to_thread(site.serve, 2, "plain")
    await stream
    assert b'"pid"' in await before.ask("/health")  # an old connection lives as long as it is used
    before.close()
    tally = await load_kit.race(site.port, "/health", 50, lambda: asyncio.to_thread(site.serve, 3, "plain"))
    assert (dict(tally.lost), tally.whole["late"]) == ({}, 50)


def test_half_of_a_connection_may_be_closed(site: Site) -> None:
    site.serve(1, "plain")
    with socket.create_connection(("127.0.0.1", site.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            assert answer.read().endswith(b"0\r\n\r\n")


def test_connections_that_stay_are_cut_at_the_deadline(site: Site) -> None:
    first = site.serve(1, "plain", drain_timeout=3)
    with socket.create_connection(("127.0.0.1", site.port), timeout=DEADLINE_S) as connection:
        get(site.port)
        site.serve(2, "plain")
        assert connection.recv(1) == b""
    site.until(lambda: not alive(first["pid"]))
    assert "Traceback" not in site.log()


def test_a_splice_that_stood_still_when_it_was_told_to_end(site: Site) -> None:
    """On a busy machine it sees at once that there are connections and that it is to end. What it has not
    taken is answered by what follows it."""
    splice = site.serve(1, "plain")["pid"]
    with ExitStack() as stack:
        os.kill(splice, signal.SIGSTOP)
        clients = []
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", site.port), timeout=DEADLINE_S)
            clients.append(stack.enter_context(client))
            client.sendall(b"GET /bye HTTP/1.1\r\n\r\n")
        os.kill(splice, signal.SIGTERM)
        os.kill(splice, signal.SIGCONT)
        assert [client.recv(4096)[:15] for client in clients] == [b"HTTP/1.1 200 OK"] * 20


def test_whoever_does_not_hang_up_when_the_program_has_holds_no_drain(site: Site) -> None:
    first = site.serve(1, "plain", drain_timeout=600)
    with socket.create_connection(("127.0.0.1", site.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /bye HTTP/1.1\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 200 ")
        site.serve(2, "plain")
        site.until(lambda: not alive(first["pid"]))


def test_the_program_ends(site: Site) -> None:
    site.serve(1, "plain")
    program = get(site.port)["pid"]
    os.kill(program, signal.SIGKILL)
    site.until(lambda: site.status()["current"].get("restarts") == 1)
    site.until(lambda: site.status()["current"]["state"] == "serving")
    assert get(site.port)["pid"] != program


def test_one_whose_health_is_not_there(site: Site) -> None:
    with pytest.raises(OrgError, match="was not healthy after 1 s"):
        site.serve(1, "plain", health="/missing", ready_timeout=1)
