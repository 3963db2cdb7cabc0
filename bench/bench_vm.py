"""A machine beside what is weaker, and beside itself: `true` in three places, Python warm and cold, and a
machine that is forked from a snapshot instead of booted.

Calls are wall time, the least of many that alternate between the places. A start is the CPU time of the
machine's process and its QEMU until the machine answers: wall time says more about what else runs here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from org.config import find_places
from org.ports import Command
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.vm import qemu
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.image import Image, Progress, build_image
from org.sandbox.vm.machine import Machine, machine_of
from org.sandbox.vm.place import VirtualMachine

_CALLS = 25
_STARTS = 2
_MEMORY_MIB = 512
_NOBODY = Upstream("127.0.0.1", 9)
_TICKS = os.sysconf("SC_CLK_TCK")


def run() -> dict[str, float]:
    """Milliseconds of `true`: `plain_ms`, `bubblewrap_ms`, `machine_ms`, and each over the one before.
    Of a Python program in the machine: `warm_ms`, `cold_ms`, `warm_ratio`. CPU seconds of a start:
    `fork_cpu_s`, `boot_cpu_s`, `fork_cpu_ratio`."""
    needed = (qemu.program(os.uname().machine), "qemu-img", "bwrap")
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        install = "`apt-get install qemu-system-x86 qemu-utils bubblewrap`"
        print(f"  skipped, for there is no {', '.join(missing)}: {install}")
        return {}
    with tempfile.TemporaryDirectory(prefix="org-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> dict[str, float]:
    cache = find_places(Path.cwd(), os.environ).cache
    image = await build_image(cache, on_progress=_progress)
    machine = machine_of(folder, "bench")
    try:
        machine.make(image)
        await _up(machine, image, cache)  # saves the snapshot when there is none
        figures = await _calls(machine, folder)
        return figures | await _starts(machine, image, cache)
    finally:
        await machine.kill()
        await machine.remove()


async def _up(machine: Machine, image: Image, cache: Path) -> str:
    """How it came up."""
    return (await machine.up(image, cache, _NOBODY, _step, memory_mib=_MEMORY_MIB, cpus=1)).way


async def _starts(machine: Machine, image: Image, cache: Path) -> dict[str, float]:
    spent: dict[str, list[float]] = {"snapshot": [], "boot": []}
    for _ in range(_STARTS):
        await machine.kill()
        await machine.reset()
        for expected, seconds in spent.items():  # what was killed has a disk, and is booted from it
            assert await _up(machine, image, cache) == expected
            status = await machine.status()
            assert status.pid is not None
            seconds.append(sum(map(_cpu_s, _family(status.pid))))
            await machine.kill()
    fork, boot = (min(seconds) for seconds in spent.values())
    return {"fork_cpu_s": fork, "boot_cpu_s": boot, "fork_cpu_ratio": fork / boot}


async def _calls(machine: Machine, folder: Path) -> dict[str, float]:
    walled = Bubblewrap(folder)
    there = VirtualMachine(machine, "bench", memory=_MEMORY_MIB << 19)
    true = Command(["true"])

    async def plain() -> None:
        process = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
        await process.communicate()

    async with machine.channel(Surroundings()) as channel:
        # An interpreter by its path is one of its own.
        cold = Command(["/usr/bin/python3", "-S", "-c", "print()"], scratch=True)
        ways: Sequence[Callable[[], Awaitable[object]]] = (
            plain,
            lambda: walled.exec(true),
            lambda: there.exec(true),
            lambda: channel.python("print()"),
            lambda: channel.exec(cold),
        )
        rounds = [[await _ms(way) for way in ways] for _ in range(_CALLS)]
    bare, bwrap, vm, warm, own = (min(taken) for taken in zip(*rounds, strict=True))
    return {
        "plain_ms": bare,
        "bubblewrap_ms": bwrap,
        "bubblewrap_ratio": bwrap / bare,
        "machine_ms": vm,
        "machine_ratio": vm / bwrap,
        "warm_ms": warm,
        "cold_ms": own,
        "warm_ratio": warm / own,
    }


async def _ms(way: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await way()
    return (time.perf_counter() - began) * 1000


def _family(pid: int) -> Iterator[int]:
    """The process, and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield from _family(child)


def _cpu_s(pid: int) -> float:
    """CPU time of a process, with that of those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _progress(progress: Progress) -> None:
    _step(progress.what)


def _step(text: str) -> None:
    if sys.stdout.isatty():
        print(f"  {text} …".ljust(70), end="\r", flush=True)


if __name__ == "__main__":
    print(", ".join(f"{name} {value:.3f}" for name, value in run().items()))
