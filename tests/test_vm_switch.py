"""Many clients of one guest: each has channels as if the port were its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import vm_kit
from org.errors import SandboxGone
from org.ports import Command
from org.sandbox.vm import frames
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.link import Link, linked
from org.sandbox.vm.switch import Switch


class Desk:
    """A switch in front of an agent that runs here; `link` is the one connection to the agent."""

    def __init__(self, path: Path, link: Link, guest: vm_kit.Guest) -> None:
        self.path = path
        self.link = link
        self.guest = guest

    @asynccontextmanager
    async def client(self, surroundings: Surroundings | None = None) -> AsyncIterator[Channel]:
        async with linked(self.path, "the machine") as link:
            yield Channel(link, surroundings or self.guest.surroundings)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with vm_kit.agent() as guest, linked(guest.path, "the agent") as link:
        switch = Switch(link, {"about": lambda: {"it": "is here"}})
        server = await asyncio.start_unix_server(switch.serve, tmp_path / "s")
        try:
            yield Desk(tmp_path / "s", link, guest)
        finally:
            server.close()
            await switch.end()


def shell(script: str) -> Command:
    return Command(["sh", "-c", script])


async def test_clients_speak_at_the_same_time(desk: Desk) -> None:
    async def ask(number: int) -> bytes:
        async with desk.client() as channel:
            return (await channel.exec(shell(f"echo {number}"))).head

    assert await asyncio.gather(*map(ask, range(8))) == [b"%d\n" % number for number in range(8)]


async def test_more_than_a_window_passes_both_ways(desk: Desk) -> None:
    data = os.urandom(4 * frames.WINDOW + 1)
    async with desk.client() as channel:
        await channel.write_file("big", data)
        assert await channel.read_file("big", len(data)) == data
        result = await channel.exec(Command(["cat"], stdin=data, output_limit=len(data)))
    assert result.head == data


async def test_a_client_that_does_not_read_holds_up_nobody_else(desk: Desk) -> None:
    async with desk.client() as slow, slow.attached(["yes"]), desk.client() as quick:
        for _ in range(3):
            assert (await quick.exec(shell("echo on"))).head == b"on\n"


async def test_what_a_cancelled_client_asked_for_is_ended_first(desk: Desk) -> None:
    begun = asyncio.Event()
    async with desk.client() as channel:
        running = asyncio.create_task(
            channel.exec(shell("echo $$ >pid; echo; exec sleep 100"), lambda data: begun.set())
        )
        await begun.wait()
        pid = int(await channel.read_file("pid"))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not Path(f"/proc/{pid}").exists()
        assert (await channel.exec(shell("echo on"))).head == b"on\n"


async def test_what_a_lost_client_asked_for_is_ended(desk: Desk) -> None:
    begun = asyncio.Event()
    async with linked(desk.path, "the machine") as link:
        channel = Channel(link, desk.guest.surroundings)
        running = asyncio.create_task(
            channel.exec(shell("echo $$ >pid; echo; exec sleep 100"), lambda data: begun.set())
        )
        await begun.wait()
        pid = int(await channel.read_file("pid"))
        link.fail("the test is over")
        with pytest.raises(SandboxGone):
            await running
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 -- the agent ends it, and tells nobody here
            await asyncio.sleep(0.01)


async def test_its_own_requests_do_not_reach_the_guest(desk: Desk) -> None:
    async with linked(desk.path, "the machine") as link:
        talk = link.open({"op": "about"})
        assert (await talk.next()).kind == frames.CLOSE
        assert talk.closed == {"it": "is here"}


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frames.greeting(bytes(16)) + b"\xff" * 64,
        frames.greeting(bytes(16)) + frames.frame(frames.OPEN, 2, b"no JSON"),
        frames.greeting(bytes(16)) + frames.told(frames.OPEN, 0, {"op": "about"}),
        frames.greeting(bytes(16)) + 2 * frames.told(frames.OPEN, 2, {"op": "jobs"}),
        frames.greeting(bytes(16)) + frames.frame(frames.DATA, 8, b"to nobody"),
    ],
    ids=["no greeting", "no frame", "no JSON", "channel 0", "opened twice", "not open"],
)
async def test_a_client_that_breaks_the_protocol_harms_only_itself(desk: Desk, said: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(desk.path)
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(30):
        while await reader.read(65_536):
            pass
    writer.close()
    await writer.wait_closed()
    async with desk.client() as channel:
        assert (await channel.exec(shell("echo on"))).head == b"on\n"


async def test_clients_hear_that_the_guest_is_gone(desk: Desk) -> None:
    begun = asyncio.Event()
    async with desk.client() as channel:
        running = asyncio.create_task(channel.exec(shell("echo; sleep 100"), lambda data: begun.set()))
        await begun.wait()
        desk.link.fail("the test ended it")
        with pytest.raises(SandboxGone, match="whether `sh` was done is unknown"):
            await running
