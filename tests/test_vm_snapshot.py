"""Machines that come up without booting: forked from a snapshot, or woken where they were suspended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from guest import CACHE, image
from machine_kit import UP_S, Owner, processes_of
from org.sandbox.vm import layout, saved
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.console import MOST, older
from org.sandbox.vm.layout import StateFolder
from org.sandbox.vm.machine import Machine, machine_of
from waiting import until

pytestmark = pytest.mark.vm

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Surroundings("/root", "root")
MEMORY = "384"


class Person(Owner):
    """Somebody with the user's images, and no snapshots yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cache = folder / "cache" / "org"
        self.env["XDG_CACHE_HOME"] = str(self.cache.parent)
        layout.images(self.cache).mkdir(parents=True)
        for one in layout.images(CACHE).glob("[!.]*"):
            (layout.images(self.cache) / one.name).symlink_to(one)
        if (CACHE / "accel.json").exists():
            shutil.copy(CACHE / "accel.json", self.cache)

    def named(self, name: str) -> Machine:
        return machine_of(self.folder / "state" / "org", name)

    def done(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """`org vm WORDS`, which works."""
        done = self.vm(*words)
        assert done.returncode == 0, done.stderr.decode()
        return done

    def way(self, name: str = "default") -> str:
        """How the machine came up."""
        return str(json.loads(self.done("status", "--name", name, "--json").stdout)["way"])

    def said(self, script: str, name: str = "default") -> str:
        """What a command of root says."""
        return self.done("exec", "--name", name, "--root", "--", "sh", "-c", script).stdout.decode().strip()

    @property
    def snapshots(self) -> list[StateFolder]:
        found = layout.snapshots(self.cache).glob("*/manifest.json")
        return [StateFolder(manifest.parent) for manifest in found]


def seconds_of(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS


async def spent(machine: Machine) -> float:
    """CPU seconds that a machine took so far, with the process that it lives in."""
    pid = (await machine.status()).pid
    assert pid is not None
    return sum(map(seconds_of, [pid, *processes_of(machine)]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def keeper(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody with a snapshot."""
    one = Person(tmp_path_factory.mktemp("vm"))
    said = one.done("up", "--memory", MEMORY)
    assert b"saving the snapshot" in said.stderr
    assert one.way() == "snapshot"
    one.done("rm", "--all", "-y")
    yield one
    assert processes_of(one.machine) == []


@pytest.fixture
def person(keeper: Person) -> Iterator[Person]:
    """Without a machine."""
    yield keeper
    keeper.done("rm", "--all", "-y")


@pytest.fixture
def newcomer(made: None, tmp_path: Path) -> Iterator[Person]:
    """Without a snapshot."""
    one = Person(tmp_path)
    yield one
    one.done("rm", "--all", "-y")
    assert processes_of(one.machine) == []


def broken(state: StateFolder, disk: Path | None = None) -> None:
    """What QEMU wrote, replaced without a trace."""
    key = json.loads(state.manifest.read_text())["key"]
    state.manifest.unlink()
    state.state.write_bytes(b"no state of any machine")
    saved.seal(state, key, disk)


# -- forks


async def test_a_later_machine_is_not_booted(person: Person) -> None:
    said = person.done("up", "--memory", MEMORY)
    assert b"from the snapshot" in said.stdout
    assert b"saving" not in said.stderr
    assert len(person.snapshots) == 1
    assert b"from the snapshot" in person.done("status").stdout
    forked = await spent(person.machine)
    person.done("down", "--hard")
    person.done("up")
    assert person.way() == "boot"
    assert forked * 4 < await spent(person.machine)


async def test_forks_are_many_and_strangers_to_each_other(person: Person) -> None:
    person.done("up", "--memory", MEMORY, "--count", "3")
    names = ["default", "default-2", "default-3"]
    status = json.loads(person.done("status", "--json").stdout)
    assert [one["name"] for one in status["others"]] == names[1:]
    facts = [(await person.named(name).status()).facts for name in names]
    ports = [port for one in facts for port in one["network"]["inbound"].values()]
    assert len(set(ports)) == 6
    unlike = (
        "cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; hostname",
        "od -An -tx1 -N16 /dev/urandom",
        "python3 -S -c 'import random, uuid; print(random.random(), uuid.uuid4())'",
    )
    told = [[person.said(script, name) for name in names] for script in unlike]
    assert [len(set(answers)) for answers in told] == [3, 3, 3]
    warm, drawn = "import random, os; print(random.random(), os.urandom(9))", []
    for name in names:
        machine = person.named(name)
        async with machine.channel(ROOT) as channel:
            drawn.append((await channel.python(warm)).head)
            before, now, after = (
                time.time(),
                float((await channel.python("import time; print(time.time())")).head),
                time.time(),
            )
            late = (await machine.status()).facts["boot_s"]  # it was told the time within these
            assert before - late - 0.1 < now < after + 0.1
            assert channel.session
    assert len(set(drawn)) == 3
    person.said("echo mine > /root/only", "default-2")
    assert person.vm("exec", "--root", "--", "test", "-e", "/root/only").returncode == 1
    assert b"suspended" in person.done("down", "--all").stdout
    assert person.done("rm", "--all", "-y").stdout.count(b"removed") == 3


async def test_machines_that_start_at_once_save_once(newcomer: Person) -> None:
    starting = [newcomer.start("vm", "up", "--memory", MEMORY, "--name", name) for name in ("one", "two")]
    said = [one.communicate(timeout=300)[1] for one in starting]
    assert [one.returncode for one in starting] == [0, 0], said
    assert sorted("saving the snapshot" in text for text in said) == [False, True]
    assert sum("waiting for another process: saves a snapshot" in text for text in said) == 1
    assert [newcomer.way(name) for name in ("one", "two")] == ["snapshot", "snapshot"]


def test_a_snapshot_is_for_its_owner_alone(person: Person) -> None:
    (snapshot,) = person.snapshots
    assert layout.snapshots(person.cache).stat().st_mode & 0o777 == 0o700
    assert snapshot.path.stat().st_mode & 0o777 == 0o700
    assert snapshot.ram.stat().st_mode & 0o777 == 0o600
    assert snapshot.state.stat().st_mode & 0o777 == 0o600
    assert snapshot.ram.stat().st_size == int(MEMORY) << 20


async def test_a_fork_leaves_its_snapshot_as_it_is(person: Person) -> None:
    (snapshot,) = person.snapshots
    before = snapshot.manifest.read_text()
    person.done("up", "--memory", MEMORY)
    person.said("head -c 50000000 /dev/urandom > /dev/shm/much; sync")
    assert saved.flaw(snapshot, snapshot.path.name) == ""
    assert snapshot.manifest.read_text() == before


def test_a_reset_forks_anew(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    known = person.said("echo kept > /root/a; cat /etc/machine-id")
    person.done("reset", "-y")
    assert person.way() == "snapshot"
    assert person.said("test -e /root/a || echo gone") == "gone"
    assert person.said("cat /etc/machine-id") != known
    assert json.loads(person.done("status", "--json").stdout)["memory_mib"] == int(MEMORY)


# -- what is wrong with a snapshot


async def test_one_that_was_changed_is_saved_anew(person: Person) -> None:
    (snapshot,) = person.snapshots
    with snapshot.ram.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"\xff")
    said = person.done("up", "--memory", MEMORY)
    assert b"the snapshot is saved anew: `ram` was changed since it was saved" in said.stderr
    assert (person.way(), person.said("echo well")) == ("snapshot", "well")
    assert b"saved anew" in person.done("logs").stdout


async def test_one_that_qemu_refuses_is_booted_instead(person: Person) -> None:
    (snapshot,) = person.snapshots
    broken(snapshot)
    said = person.done("up", "--memory", MEMORY)
    assert b"the machine is booted instead of forked from a snapshot" in said.stderr
    assert (person.way(), person.said("echo well")) == ("boot", "well")
    assert person.snapshots == []
    person.done("reset", "-y")
    assert (person.way(), len(person.snapshots)) == ("snapshot", 1)


async def test_killed_while_it_saves_it_starts_over(newcomer: Person) -> None:
    snapshots = layout.snapshots(newcomer.cache)
    with newcomer.start("vm", "up", "--memory", MEMORY) as starting:
        await until(lambda: bool(list(snapshots.glob(".making-*/ram"))), 120)
        pid = int(newcomer.machine.folder.lock.read_text())
        os.kill(pid, signal.SIGKILL)
        assert starting.wait(60) != 0
    assert newcomer.snapshots == []
    newcomer.done("up", "--memory", MEMORY)
    assert newcomer.way() == "snapshot"
    assert list(snapshots.glob(".making-*")) == []


async def test_a_start_may_be_called_off(newcomer: Person) -> None:
    with newcomer.start("vm", "up", "--memory", MEMORY) as starting:
        await until(lambda: newcomer.machine.folder.qmp.exists(), 120)
        newcomer.done("down")
        assert starting.wait(60) != 0
    assert processes_of(newcomer.machine) == []


# -- suspended


# A connection through the relay that is open when the machine is suspended.
HELD = """
import socket
with socket.create_connection(("127.0.0.1", 11434)) as held:
    held.sendall(b"POST /v1/chat/comp")
    open("held", "w").close()
    try:
        held.recv(1000)
    except ConnectionError:
        pass
    open("cut", "w").close()
"""
COUNT = "while :; do echo x >> ticks; sleep 0.05; done"


async def test_one_that_is_woken_goes_on_where_it_was(person: Person) -> None:
    person.done("up", "--memory", MEMORY, "--base", "http://127.0.0.1:9/v1")
    async with person.machine.channel(ROOT) as channel:
        session = channel.session
        await channel.detach("hold", ["python3", "-c", HELD])
        await channel.detach("count", ["sh", "-c", COUNT])
    person.said("echo kept > a; until test -s ticks -a -e held; do sleep 0.05; done")
    with person.start("vm", "exec", "--", "sh", "-c", "echo on; sleep 1000") as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == "on\n"
        assert b"suspended" in person.done("down").stdout
        assert attached.wait(60) != 0
    assert processes_of(person.machine) == []
    assert StateFolder(person.machine.folder.suspended).state.stat().st_mode & 0o777 == 0o600
    assert b"suspended; `org vm up` wakes it" in person.done("status").stdout
    said = person.done("up", "--base", "http://127.0.0.1:9/v1")
    assert b"where it was suspended" in said.stdout
    assert not person.machine.folder.suspended.exists()
    assert person.way() == "suspension"
    async with person.machine.channel(ROOT) as channel:
        assert channel.session != session
        jobs = {job.name: job.code for job in await channel.jobs()}
        assert jobs["count"] is None
    goes_on = "n=$(wc -l < ticks); until test $(wc -l < ticks) -gt $n; do sleep 0.05; done"
    kept, now = person.said(f"{goes_on}; until test -e cut; do sleep 0.05; done; cat a; date +%s").split()
    assert kept == "kept"
    assert abs(int(now) - time.time()) < 60
    assert person.vm("exec", "--", "pgrep", "-fx", "sleep 1000").returncode == 1
    asks = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:11434/v1/models"
    assert person.said(asks) == "502"  # of the relay: there is no such server


def test_what_it_was_is_used_once(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    person.done("down")
    person.done("up")
    person.said("echo later > /root/b; sync")
    person.done("down", "--hard")
    said = person.done("up")
    assert (person.way(), person.said("cat /root/b")) == ("boot", "later")
    assert b"instead" not in said.stderr


@pytest.mark.parametrize("what", ["memory", "refused"])
def test_what_does_not_fit_is_booted_from_its_disk(person: Person, what: str) -> None:
    person.done("up", "--memory", MEMORY)
    person.said("echo kept > /root/a")
    person.done("down")
    state = StateFolder(person.machine.folder.suspended)
    if what == "refused":
        broken(state, person.machine.folder.overlay)
    said = person.done("up", "--memory", "512" if what == "memory" else MEMORY)
    assert b"booted from its disk instead of woken" in said.stderr
    assert (person.way(), person.said("cat /root/a")) == ("boot", "kept")
    assert not state.path.exists()


async def test_called_off_while_it_wakes_it_is_suspended_again(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    person.said("echo kept > /dev/shm/a")
    person.done("down")
    folder = person.machine.folder
    with person.start("vm", "up") as waking:
        await until(lambda: not StateFolder(folder.suspended).manifest.exists(), 120)
        person.done("down")
        waking.wait(60)
    assert (await person.machine.status()).suspended
    person.done("up")
    assert (person.way(), person.said("cat /dev/shm/a")) == ("suspension", "kept")


def test_a_disk_that_was_replaced_is_booted(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    person.said("echo kept > /root/a")
    person.done("down")
    disk = person.machine.folder.overlay
    copy = disk.with_name("copy")
    shutil.copyfile(disk, copy)
    copy.replace(disk)
    assert b"its disk was changed since it was saved" in person.done("up").stderr
    assert (person.way(), person.said("cat /root/a")) == ("boot", "kept")
    person.done("down", "--hard")
    disk.write_bytes(b"torn")
    torn = person.vm("up")
    assert torn.returncode != 0
    assert b"org vm reset" in torn.stderr


async def test_one_that_is_ending_is_waited_for(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    folder = person.machine.folder
    with person.start("vm", "down") as ending:
        await until(lambda: folder.suspending.exists() or folder.suspended.exists(), UP_S)
        person.done("up")
        assert ending.wait(UP_S) == 0
    assert person.way() == "suspension"


async def test_killed_while_it_is_suspended_it_boots(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    person.said("echo kept > /root/a; sync")
    long = r"printf '#!/bin/sh\nexec sleep 1000\n' > long; chmod +x long; mount --bind long /bin/sync"
    person.said(long)
    pid = (await person.machine.status()).pid
    assert pid is not None
    with person.start("vm", "down") as ending:
        await until(person.machine.folder.suspending.exists, UP_S)  # which waits for its guest then
        os.kill(pid, signal.SIGKILL)
        assert ending.wait(UP_S) == 0
    await until(lambda: not processes_of(person.machine))
    person.done("up")
    assert (person.way(), person.said("cat /root/a")) == ("boot", "kept")
    assert not person.machine.folder.suspending.exists()


# -- the console


async def test_a_guest_that_never_stops_talking_fills_no_disk(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    console = person.machine.folder.console
    async with person.machine.channel(ROOT) as channel:
        await channel.detach("talk", ["sh", "-c", "yes filling > /dev/ttyS0"])
        await until(lambda: older(console).exists(), 120)
        inode = console.stat().st_ino
        await until(lambda: console.exists() and console.stat().st_ino != inode, 120)
        assert console.stat().st_size + older(console).stat().st_size <= MOST
        await channel.stop("talk")
    assert b"filling" in person.done("logs", "--console").stdout


# -- images


def test_an_image_knows_who_stands_on_it(person: Person) -> None:
    person.done("up", "--memory", MEMORY)
    image = person.machine.image(person.cache)
    assert image is not None
    folder = person.machine.folder.path
    assert folder in [link.readlink() for link in image.folder.machines.iterdir()]
    person.done("rm", "-y")
    person.done("up", "--name", "next", "--memory", MEMORY)
    assert folder not in [link.readlink() for link in image.folder.machines.iterdir()]
