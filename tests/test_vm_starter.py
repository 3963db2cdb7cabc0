"""Who starts a machine, and leaves while it is not up yet."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest import image
from machine_kit import Owner
from org.errors import SandboxGone
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.machine import Machine
from waiting import until

pytestmark = pytest.mark.vm

DEADLINE_S = 120.0


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """Whose QEMU says nothing, ever: no machine of theirs comes up."""
    one = Owner(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    os.mkfifo(tmp_path / "never")
    for arch in ("x86_64", "aarch64"):
        program = programs / f"qemu-system-{arch}"
        program.write_text(f"#!/bin/sh\nread line <{tmp_path}/never\n")
        program.chmod(0o755)
    one.env["PATH"] = f"{programs}:{one.env['PATH']}"
    monkeypatch.setenv("PATH", one.env["PATH"])
    yield one
    os.close(os.open(tmp_path / "never", os.O_RDWR))  # they end now


def log_of(machine: Machine) -> str:
    return machine.folder.log.read_text() if machine.folder.log.exists() else ""


async def begun(owner: Owner, machine: Machine, steps: asyncio.Event) -> asyncio.Task[object]:
    made = await image()
    machine.make(made)
    cache = owner.settings().places.cache
    upstream = Upstream("127.0.0.1", 9)
    up = machine.up(made, cache, upstream, lambda _step: steps.set(), memory_mib=256, cpus=1)
    return asyncio.create_task(up)


@pytest.mark.parametrize("early", [True, False], ids=["at once", "while it is prepared"])
async def test_one_that_is_cancelled_leaves_no_process(owner: Owner, early: bool) -> None:
    machine, steps = owner.machine, asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        starting = await begun(owner, machine, steps)
        if early:
            await asyncio.sleep(0)
        else:
            await steps.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert (await machine.status()).state == "down"
    assert early or "given up" in log_of(machine)


async def test_a_machine_does_not_come_up_for_somebody_who_was_killed(owner: Owner) -> None:
    made = await image()
    machine = owner.machine
    machine.make(made)
    with owner.start("vm", "up") as starting:
        await until(lambda: machine.folder.lock.exists(), DEADLINE_S)
        os.kill(starting.pid, signal.SIGKILL)
    await until(lambda: "given up" in log_of(machine), DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        while (await machine.status()).state != "down":  # noqa: ASYNC110 -- it tells nobody any more
            await asyncio.sleep(0.02)


async def test_whoever_waits_or_interrupts_leaves_without_a_traceback(owner: Owner) -> None:
    made = await image()
    machine = owner.machine
    machine.make(made)
    with owner.start("vm", "up") as first:
        await until(lambda: machine.folder.lock.exists(), DEADLINE_S)
        with owner.start("vm", "up") as second:
            assert second.stderr is not None
            lines = iter(second.stderr.readline, "")
            assert any("which another process starts" in line for line in lines)
            said = []
            for one in (second, first):
                one.send_signal(signal.SIGINT)
                said.append(await asyncio.to_thread(one.communicate, timeout=DEADLINE_S))
    assert (first.returncode, second.returncode) == (130, 130)
    assert not any("Traceback" in text or "ignored" in text for _, text in said)


async def test_a_disk_that_cannot_be_written_is_told_in_a_line(owner: Owner) -> None:
    made = await image()
    machine = owner.machine
    machine.make(made)
    machine.folder.suspending.touch()
    done = await asyncio.to_thread(owner.vm, "up")
    assert (done.returncode, done.stderr.count(b"Traceback")) == (7, 0), done.stderr
    assert b"Not a directory: " in done.stderr


async def test_a_process_that_breaks_at_once_is_told(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await image()
    machine = owner.machine
    machine.make(made)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    cache = owner.settings().places.cache
    with pytest.raises(SandboxGone, match="the machine's process ended"):
        await machine.up(made, cache, Upstream("h", 9), lambda _step: None, memory_mib=256, cpus=1)
