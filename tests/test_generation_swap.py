"""No request is lost when one generation follows another on the same socket, and rooms go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import generation_kit
import load_kit
import serve_kit
from generation_kit import Site, alive
from org.ops import control
from org.ops.keeper import WORDS
from serve_kit import ask

SWAPS = 4


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with generation_kit.site(tmp_path) as made:
        yield made


async def test_swaps_under_load(site: Site) -> None:
    """New connections, kept ones, and streams that outlast a swap."""
    await asyncio.to_thread(site.serve, 0)

    async def swaps() -> None:
        for number in range(1, SWAPS + 1):
            told = await asyncio.to_thread(site.serve, number)
            assert told["old_said_draining"]

    swapping = asyncio.create_task(swaps())
    tally = await load_kit.load(site.port, "/health", 4.0, 100, streams=10)
    await swapping
    assert dict(tally.lost) == {}
    assert (tally.whole["fresh"], tally.whole["stream"]) == (200, 10)
    assert tally.whole["kept"] > 0
    assert (await asyncio.to_thread(generation_kit.get, site.port))["commit"] == f"{SWAPS:040x}"


async def test_connections_from_before_a_swap(site: Site) -> None:
    first = await asyncio.to_thread(site.serve, 1)
    tally = await load_kit.race(site.port, "/health", 400, lambda: asyncio.to_thread(site.serve, 2))
    assert (dict(tally.lost), tally.whole["late"]) == ({}, 400)
    await asyncio.to_thread(site.until, lambda: not alive(first["pid"]))


async def test_a_server_of_rooms_is_swapped(site: Site, tmp_path: Path) -> None:
    """What is posted before, during and after is in the room once, and answered once."""
    start: dict[str, Any] = {
        "start": ["{python}", serve_kit.__file__, str(tmp_path)],
        "env.KEEP_ALIVE_S": "0.5",
    }
    await asyncio.to_thread(site.serve, 1, **start)
    port = site.port
    assert (await ask(port, "POST", "/rooms", {"id": "main"})).status == 201

    async def post(number: int) -> None:
        answer = await ask(port, "POST", "/rooms/main/messages", {"text": f"post {number}"})
        assert answer.status in (200, 201, 202), answer.body

    swapping = asyncio.create_task(asyncio.to_thread(site.serve, 2, **start))
    number = 0
    while not swapping.done() or number < 10:
        await post(number)
        number += 1
    await swapping
    await post(number)

    async def texts(role: str) -> list[str]:
        events = (await ask(port, "GET", "/rooms/main/transcript")).json["events"]
        posted = [event["message"] for event in events if event["type"] == "posted"]
        return [message["content"] for message in posted if message["role"] == role]

    posted = [f"post {known}" for known in range(number + 1)]
    async with asyncio.timeout(generation_kit.DEADLINE_S):
        while f"heard: {posted[-1]}" not in await texts("model"):  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.05)
    assert await texts("person") == posted
    heard = await texts("model")  # one answer may be to several posts; none is answered twice
    assert len(heard) == len(set(heard))
    assert set(heard) <= {f"heard: {text}" for text in posted}


def test_the_words_of_the_contract_are_those_of_the_server() -> None:
    source = (Path(serve_kit.__file__).parent.parent / "src/org/serve/run.py").read_text(encoding="utf-8")
    assert [word for word in WORDS if f'say("{word}")' in source] == list(WORDS)


async def test_whatever_becomes_of_the_supervisor(site: Site) -> None:
    """It is killed, and becomes its next image, under load; swaps go on."""
    await asyncio.to_thread(site.serve, 0)

    async def upheaval() -> None:
        await asyncio.to_thread(control.reexec, site.layout)
        await asyncio.to_thread(site.serve, 1)
        os.kill(site.status()["supervisor"]["pid"], signal.SIGKILL)
        told = await asyncio.to_thread(site.serve, 2)
        assert told["old_said_draining"]

    suffering = asyncio.create_task(upheaval())
    tally = await load_kit.load(site.port, "/health", 4.0, 100, streams=10)
    await suffering
    assert dict(tally.lost) == {}
    assert (tally.whole["fresh"], tally.whole["stream"]) == (200, 10)
    assert (await asyncio.to_thread(generation_kit.get, site.port))["commit"] == f"{2:040x}"


@pytest.mark.parametrize("wait_s", [0.0, 0.1, 0.2, 0.3])
async def test_the_supervisor_is_killed_in_the_middle_of_a_swap(site: Site, wait_s: float) -> None:
    """One of the two serves, the other goes."""
    await asyncio.to_thread(site.serve, 1, drain_timeout=5)
    pid = site.status()["supervisor"]["pid"]
    swapping = asyncio.create_task(asyncio.to_thread(site.serve, 2, drain_timeout=5))
    await asyncio.sleep(wait_s)  # the probe itself: any instant has to do
    os.kill(pid, signal.SIGKILL)
    await swapping  # it asks the next supervisor
    await asyncio.to_thread(site.until, lambda: len(list(site.layout.run.glob("*.keeper"))) == 1)
    status = site.status()["current"]
    assert (status["commit"], status["health"]["ok"], status["draining"]) == (f"{2:040x}", True, [])
    assert generation_kit.get(site.port)["pid"] == status["pid"]
