"""`true` through the shell tool, against asyncio's own subprocess of the same words.

The figure is CPU time of this process and its children, the least of several batches that alternate
between the two, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from org.sandbox.local import Local
from org.tooling import ToolCall
from org.tools.sh import sh

_BATCH = 20
_BATCHES = 25


def run() -> dict[str, float]:
    """CPU milliseconds of one call: `floor_ms`, `ours_ms` (the whole tool), and their `ratio`."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> dict[str, float]:
    tool = sh(Local(folder, unsafe=True))
    call = ToolCall("1", "sh", {"cmd": "true"})
    shell = shutil.which("bash") or "sh"

    async def ours() -> None:
        await tool.run(call, lambda _: None)

    async def floor() -> None:
        process = await asyncio.create_subprocess_exec(
            shell,
            "-c",
            "true",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
        )
        await process.communicate()

    await ours()  # the first call looks for the shell
    await floor()
    pairs = [(await _cpu_ms(floor), await _cpu_ms(ours)) for _ in range(_BATCHES)]
    floor_ms = min(pair[0] for pair in pairs)
    ours_ms = min(pair[1] for pair in pairs)
    return {"floor_ms": floor_ms, "ours_ms": ours_ms, "ratio": ours_ms / floor_ms}


async def _cpu_ms(what: Callable[[], Awaitable[None]]) -> float:
    before = _cpu_s()
    for _ in range(_BATCH):
        await what()
    return (_cpu_s() - before) * 1000 / _BATCH


def _cpu_s() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


if __name__ == "__main__":
    print(", ".join(f"{name} {value:.3f}" for name, value in run().items()))
