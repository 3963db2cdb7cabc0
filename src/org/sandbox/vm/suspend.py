"""How a machine goes down: all that it is gets written to the disk, to be woken from there.

A disk may be slow and the processors busy, and whatever runs in the machine would be lost: no step is
given up for how long it takes, only when nothing moves any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from org.errors import OrgError
from org.ports import Command
from org.sandbox.vm import saved
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.layout import MachineFolder, StateFolder
from org.sandbox.vm.start import Up

_SYNC_S = 20.0
_ANSWER_S = 120.0  # QEMU first ends what it reads and writes


async def suspend(up: Up, folder: MachineFolder, key: str, log: Callable[[str], None]) -> None:
    """Write the disk, then the memory, of a machine that `key` fits. Whatever is in the way is noted for
    who waits; QEMU ends after this, and the disk is what the next start begins with."""
    state = StateFolder(folder.suspending)
    began = asyncio.get_running_loop().time()
    try:
        state.path.mkdir(mode=0o700)
        await _sync(up, log)
        await _save(up, state)
        # The disk first: a memory that is newer than its disk is worse than none.
        await asyncio.to_thread(saved.settle, folder.overlay)
        await asyncio.to_thread(saved.seal, state, key, folder.overlay)
        state.path.replace(folder.suspended)
        log(f"suspended within {asyncio.get_running_loop().time() - began:.1f} s")
    except (OrgError, OSError) as error:
        saved.remove(state.path)  # first of all: it may be what filled the disk
        why = f"{error}" or f"QEMU did not answer within {_ANSWER_S:g} s"
        log(f"not suspended, to be booted from its disk: {why}")
        with suppress(OSError):
            folder.unsaved.write_text(why + "\n")


async def _sync(up: Up, log: Callable[[str], None]) -> None:
    """Have the guest write what it holds back: only for the case that it is booted after all. A guest that
    is too busy for that is suspended as it is."""
    root = Channel(up.link, Surroundings("/root", "root"))
    try:
        await root.exec(Command(["/bin/sync"], timeout_s=_SYNC_S))
        await up.link.ping(_SYNC_S)
    except (OrgError, TimeoutError) as error:
        log(f"suspended as it is, without a sync: {error}")


async def _save(up: Up, state: StateFolder) -> None:
    await up.links.aclose()
    hypervisor = up.hypervisor
    async with asyncio.timeout(_ANSWER_S):
        await hypervisor.qmp.stop()
    await hypervisor.qmp.save(state.state)
    async with asyncio.timeout(_ANSWER_S):
        await hypervisor.qmp.quit()
        await hypervisor.process.wait()
