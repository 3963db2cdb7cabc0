"""Whose a machine is: its lock, and what is done to its folder under it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from org.errors import Busy, EnvironmentProblem, SandboxGone
from org.sandbox.vm import layout
from org.sandbox.vm import machine as machine_module
from org.sandbox.vm.holding import Patience, holder, holding
from org.sandbox.vm.image.store import Image
from org.sandbox.vm.layout import ImageFolder, MachineFolder
from org.sandbox.vm.machine import Machine, machine_of, machines_of

KEY = "0123456789abcdef01234567"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One that is down."""
    image = ImageFolder(layout.images(tmp_path / "cache") / KEY)
    image.path.mkdir(parents=True)
    one = machine_of(tmp_path / "state")
    assert one.make(Image(image, KEY, "x86_64", {}, signed=True))
    return one


@contextmanager
def locked(folder: MachineFolder, said: bytes) -> Iterator[None]:
    """Somebody holds the lock, and says that of itself."""
    folder.lock.write_bytes(said)
    with folder.lock.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_one_process_at_a_time_and_its_number(machine: Machine) -> None:
    assert holder(machine.folder) is None
    async with holding(machine.folder, os.getpid()) as hold:
        assert hold.in_place()
        assert holder(machine.folder) == os.getpid()
        with pytest.raises(Busy, match=f"process {os.getpid()}"):
            async with holding(machine.folder):
                pass
    assert holder(machine.folder) is None


@pytest.mark.parametrize("said", [b"", b"no number", b"-1", b"0", b"1.5", b"\xff\xfe", b" 12"])
async def test_what_is_no_number_is_nobody(machine: Machine, said: bytes) -> None:
    with locked(machine.folder, said):
        assert holder(machine.folder) is None


async def test_a_number_of_before_is_nobody_s(machine: Machine) -> None:
    machine.folder.lock.write_text("4711")
    async with holding(machine.folder):
        assert holder(machine.folder) is None


async def test_who_waits_has_patience_while_it_is_seen_to_go_on(machine: Machine) -> None:
    async with holding(machine.folder, os.getpid()) as hold:
        os.utime(machine.folder.lock, (1, 1))
        patience = Patience(machine.folder, 0.0)
        assert patience.over()
        async with hold.beating():
            await asyncio.sleep(0)
            assert not patience.over()
        assert patience.over()


async def test_a_link_is_no_lock(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    machine.folder.lock.symlink_to(tmp_path / "letter")
    with pytest.raises(OSError, match="symbolic links"):
        async with holding(machine.folder):
            pass
    assert (tmp_path / "letter").read_text() == "dear"


async def test_a_folder_that_was_taken_away_is_noticed(machine: Machine) -> None:
    async with holding(machine.folder) as hold:
        path = machine.folder.path
        path.rename(path.with_name("elsewhere"))
        assert not hold.in_place()
        path.mkdir()
        machine.folder.lock.touch()
        assert not hold.in_place()


async def test_who_waits_for_a_machine_that_is_removed_is_told(machine: Machine) -> None:
    async with asyncio.timeout(30), holding(machine.folder):
        waiting = asyncio.create_task(held(machine))
        await asyncio.sleep(0)  # it has opened the lock
        machine.folder.path.rename(machine.folder.path.with_name("elsewhere"))
    with pytest.raises(SandboxGone, match="not there any more"):
        await waiting
    with pytest.raises(SandboxGone, match="not there any more"):
        await held(machine)


async def held(machine: Machine) -> None:
    async with holding(machine.folder):
        pass


@pytest.mark.parametrize("verb", ["remove", "reset"])
async def test_what_runs_is_neither_removed_nor_reset(machine: Machine, verb: str) -> None:
    machine.folder.overlay.touch()
    with locked(machine.folder, b"4711"), pytest.raises(Busy, match="process 4711"):
        await getattr(machine, verb)()
    assert machine.folder.overlay.exists()


async def test_one_that_is_removed_leaves_nothing(machine: Machine) -> None:
    place = machine.folder.path.parent
    cut_short = place / ".removed-before"
    cut_short.mkdir()
    (cut_short / "image").write_text(KEY)
    assert [one.name for one in machines_of(place.parent)] == ["default"]
    await machine.remove()
    assert list(place.iterdir()) == []


def test_nobody_else_may_enter(machine: Machine) -> None:
    for path in (machine.folder.path, machine.folder.path.parent):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("key", ["", "../../x", f"../images/{KEY}", KEY.upper(), KEY + "0", KEY[1:]])
def test_an_image_goes_by_its_key_alone(machine: Machine, tmp_path: Path, key: str) -> None:
    folder = ImageFolder(layout.images(tmp_path / "cache") / KEY)
    folder.manifest.write_text('{"arch": "", "made_at": 0, "packages": {}, "recipe": "", "signed": true}')
    assert machine.image(tmp_path / "cache") is not None
    machine.folder.image.write_text(key)
    with pytest.raises(EnvironmentProblem, match="not in"):
        machine.image(tmp_path / "cache")


@pytest.mark.parametrize("torn", ["", "10x4", "\0\0\0\0"])
def test_a_torn_number_is_none(machine: Machine, torn: str) -> None:
    machine.folder.memory.write_text(torn)
    machine.folder.port.write_text(torn)
    assert (machine.memory(), machine.port()) == (None, None)


DEAF = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "r+") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(os.getpid(), file=lock, end="", flush=True)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def deaf(folder: MachineFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the machine lives in, and that hears nothing."""
    words = [sys.executable, "-c", DEAF, str(folder.lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


async def test_a_process_that_stands_still_is_ended_and_that_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "_DOWN_S", 0.05)
    machine.folder.lock.touch()
    with deaf(machine.folder) as process:
        assert await machine.down()
        assert process.wait(60) == -signal.SIGKILL
    assert machine.unsaved() == "its process stood still for 0.05 s, and was killed"


async def test_the_end_of_one_process_is_not_that_of_the_next(machine: Machine) -> None:
    with locked(machine.folder, b"4711"):
        assert await machine._ended(4710, 0)
        assert not await machine._ended(4711, 0)
