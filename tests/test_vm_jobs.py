"""Commands as another user, over the socket of a real agent's; who may not come there is for the machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from org.errors import Busy, OrgError, SandboxGone, UsageError
from org.ports import Command, ExecResult
from org.sandbox.vm import frames
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.place import ThisMachine
from vm_kit import NOBODY, Guest, agent
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest() -> AsyncIterator[Guest]:
    async with agent() as one:
        yield one


def machine_of(guest: Guest) -> ThisMachine:
    return ThisMachine(guest.folder / "jobs")


class Place:
    """As a room in the guest has one: each call connects anew."""

    def __init__(self, guest: Guest) -> None:
        self._machine = machine_of(guest)
        self.surroundings = Surroundings(str(guest.folder / "room"), NOBODY)

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        async with self._machine.channel(self.surroundings) as channel:
            return await channel.exec(command, on_output)


def servers_of(guest: Guest) -> list[int]:
    """The processes behind the socket: the agent's children that are agents too."""
    mine = Path(f"/proc/{guest.process.pid}")
    children = [int(pid) for pid in (mine / f"task/{guest.process.pid}/children").read_text().split()]
    return [
        pid
        for pid in children
        if Path(f"/proc/{pid}/cmdline").read_bytes() == (mine / "cmdline").read_bytes()
    ]


def runs(pid: int) -> bool:
    """Whether it is there and more than a name that its parent has not asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    await until(lambda: not runs(pid), 60)


async def test_a_command_runs_as_the_other_user_in_the_workspace(guest: Guest) -> None:
    result = await Place(guest).exec(Command(["sh", "-c", "id -u; pwd; cat"], stdin=b"given"))
    assert (result.exit_code, result.head) == (0, f"{NOBODY}\n{guest.folder}/room\ngiven".encode())


async def test_files_of_the_workspace(guest: Guest) -> None:
    async with machine_of(guest).channel(Place(guest).surroundings) as channel:
        await channel.write_file("notes/a", b"one")
        await channel.write_file("notes/a", b" two", append=True)
        assert await channel.read_file("notes/a") == b"one two"
        with pytest.raises(UsageError, match="holds"):
            await channel.read_file("../ctl")


async def test_python_comes_from_an_interpreter_that_runs(guest: Guest) -> None:
    result = await Place(guest).exec(Command(["python3", "-S", "-c", "import os; print(os.getuid())"]))
    assert result.head == f"{NOBODY}\n".encode()


async def test_many_at_a_time(guest: Guest) -> None:
    place = Place(guest)
    results = await asyncio.gather(*(place.exec(Command(["echo", str(n)])) for n in range(50)))
    assert [int(result.head) for result in results] == list(range(50))


async def test_no_more_at_a_time_than_are_allowed(guest: Guest) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    stays = Command(["sh", "-c", "echo; exec sleep 1000"])
    async with machine_of(guest).channel(Place(guest).surroundings) as channel:
        running = [asyncio.create_task(channel.exec(stays, said.put_nowait)) for _ in range(64)]
        for _ in running:
            await said.get()
        with pytest.raises(Busy, match="64 commands run"):
            await channel.exec(Command(["true"]))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert (await channel.exec(Command(["true"]))).exit_code == 0


@pytest.mark.parametrize(
    "folder", ["/etc", "/", "", "/tmp/../etc", "{}/room/deeper", "{}/.hidden", "{}", "{}/"]
)
async def test_no_folder_but_a_workspace(guest: Guest, folder: str) -> None:
    where = Surroundings(folder.format(guest.folder), NOBODY)
    async with machine_of(guest).channel(where) as channel:
        for work in (channel.exec(Command(["true"])), channel.read_file("a"), channel.write_file("a", b"")):
            with pytest.raises(OrgError, match="a workspace is a folder in"):
                await work
    assert not (guest.folder / ".hidden").exists()


@pytest.mark.parametrize("user", ["root", "0", "", "org"])
async def test_nobody_but_the_worker(guest: Guest, user: str) -> None:
    async with machine_of(guest).channel(Surroundings(str(guest.folder / "room"), user)) as channel:
        with pytest.raises(UsageError, match="commands run as"):
            await channel.exec(Command(["true"]))


async def test_nothing_that_is_the_hosts(guest: Guest) -> None:
    async with machine_of(guest).channel(Place(guest).surroundings) as channel:
        for work in (
            channel.detach("stays", ["true"]),
            channel.jobs(),
            channel.stop("stays"),
            channel.log("stays"),
            channel.restored(),
        ):
            with pytest.raises(UsageError):
                await work
        async with guest.channel() as host:
            assert await host.jobs() == ()


async def test_no_more_processes_than_are_allowed(guest: Guest) -> None:
    where = Surroundings(str(guest.folder / "room"), NOBODY, pids=100_000)
    async with machine_of(guest).channel(where) as channel:
        with pytest.raises(UsageError, match="1024 processes"):
            await channel.exec(Command(["true"]))


async def test_who_leaves_has_its_commands_ended(guest: Guest) -> None:
    place = Place(guest)
    heard = asyncio.Event()
    task = asyncio.create_task(
        place.exec(Command(["sh", "-c", "echo $$; exec sleep 1000"]), lambda data: heard.set())
    )
    await heard.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await place.exec(Command(["pgrep", "-x", "-u", NOBODY, "-f", "sleep 1000"]))).exit_code == 1


@pytest.mark.parametrize("said", [b"nonsense " * 10_000, frames.greeting(bytes(16)) + b"\xff" * 1000])
async def test_nonsense_harms_nobody_else(guest: Guest, said: bytes) -> None:
    place = Place(guest)
    await place.exec(Command(["true"]))
    servers = servers_of(guest)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(guest.folder / "jobs"))
        connection.sendall(said)
        assert (await place.exec(Command(["true"]))).exit_code == 0
    assert servers_of(guest) == servers


async def test_a_process_that_ends_is_followed_by_another(guest: Guest) -> None:
    place = Place(guest)
    heard = asyncio.Event()
    task = asyncio.create_task(
        place.exec(Command(["sh", "-c", "echo $$; exec sleep 1001"]), lambda data: heard.set())
    )
    await heard.wait()
    (server,) = servers_of(guest)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(SandboxGone):
        await task
    assert (await place.exec(Command(["true"]))).exit_code == 0
    assert servers_of(guest) != [server]
    async with guest.channel() as host:  # the agent itself did not notice
        assert (await host.exec(Command(["true"]))).exit_code == 0


async def test_it_ends_with_the_agent() -> None:
    async with agent() as one:
        await Place(one).exec(Command(["true"]))
        (server,) = servers_of(one)
        one.process.kill()
        await gone(server)


async def test_what_a_job_says_is_followed_to_its_end(guest: Guest) -> None:
    said = bytearray()
    go = guest.folder / "go"
    script = f"echo before; while [ ! -e {go} ]; do sleep 0.01; done; echo after; exit 5"
    async with guest.channel() as host:
        await host.detach("talks", ["sh", "-c", script])
        following = asyncio.create_task(host.follow("talks", said.extend))
        async with asyncio.timeout(60):
            while b"before" not in said:  # noqa: ASYNC110 -- it comes when it comes
                await asyncio.sleep(0.01)
        go.touch()
        assert await following == 5
        assert said == b"before\nafter\n"
        said.clear()
        assert await host.follow("talks", said.extend, 6) == 5
        assert said == b"after\n"
        await host.stop("talks")
        with pytest.raises(UsageError, match="no job"):
            await host.follow("talks", said.extend)


async def test_a_lot_that_is_said_is_followed_to_its_end(guest: Guest) -> None:
    said = bytearray()
    async with guest.channel() as host:
        await host.detach("talks", ["sh", "-c", "seq 1000000; echo end"])
        assert await host.follow("talks", said.extend) == 0
        assert said.endswith(b"1000000\nend\n")
        await host.stop("talks")
