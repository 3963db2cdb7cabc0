"""The snapshots that machines are forked from: saved by one process at a time, held by whoever uses one,
and removed when nobody comes back to them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from org.errors import EnvironmentProblem
from org.sandbox.vm import layout, saved
from org.sandbox.vm.layout import ImageFolder, StateFolder
from org.sandbox.vm.turns import turn

_MAKING = ".making-"


class Snapshots:
    """Those in `cache`, the user's cache folder of this program. `step(text)` hears what is waited for,
    `note(text)` what did not go as it should."""

    def __init__(
        self,
        cache: Path,
        log: Callable[[str], None],
        step: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._log, self._step, self._note = log, step, note

    async def taken(
        self, stack: AsyncExitStack, key: str, save: Callable[[StateFolder], Awaitable[None]], room: int
    ) -> StateFolder:
        """The snapshot `key`, held by `stack`. When there is none that can be used, `save` is called to
        put one into a folder, of a disk that has `room` bytes.

        Raises `EnvironmentProblem`, `OSError`, and what `save` raises.
        """
        folder = layout.snapshots(self._cache)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        snapshot = StateFolder(folder / key)
        if not _held(stack, snapshot):
            async with turn(folder / ".lock", "saves a snapshot", self._step):
                if not _held(stack, snapshot):
                    await self._make(snapshot, save, room)
                    _held(stack, snapshot)
        return snapshot

    async def _make(
        self, snapshot: StateFolder, save: Callable[[StateFolder], Awaitable[None]], room: int
    ) -> None:
        key, folder = snapshot.path.name, snapshot.path.parent
        for stale in folder.glob(f"{_MAKING}*"):
            saved.remove(stale)
        if snapshot.path.exists():
            self._note(f"the snapshot is saved anew: {saved.flaw(snapshot, key)}")
            saved.remove(snapshot.path)
        free = shutil.disk_usage(folder).free
        if free < room:
            raise EnvironmentProblem(f"{free >> 20} MiB of the disk are free, a snapshot wants {room >> 20}")
        work = StateFolder(folder / f"{_MAKING}{key}")
        work.path.mkdir(mode=0o700)
        try:
            await save(work)
            await asyncio.to_thread(saved.seal, work, key)
            work.path.replace(snapshot.path)
        finally:
            saved.remove(work.path)
        self._log(f"saved the snapshot {key}")
        self._prune()

    def _prune(self) -> None:
        """Of other versions of this program: snapshots, and the images they stand on."""
        for path in (
            *saved.prune(layout.snapshots(self._cache), lambda path: False),
            *saved.prune(layout.images(self._cache), _stood_on),
        ):
            self._log(f"removed, nobody uses it: {path}")


def _held(stack: AsyncExitStack, snapshot: StateFolder) -> bool:
    """Whether it can be used, and is kept for that."""
    there = stack.enter_context(saved.held(snapshot.manifest))
    if not there or saved.flaw(snapshot, snapshot.path.name):
        return False
    os.utime(snapshot.manifest)  # the last ones that were used are kept
    return True


def _stood_on(image: Path) -> bool:
    """Whether a machine stands on the image."""
    return any(map(stands, ImageFolder(image).machines.glob("*")))


def stands(link: Path) -> bool:
    """Whether the machine is there to whose folder an image's link leads, as far as one may see."""
    try:
        return link.exists()
    except PermissionError:  # in a folder of somebody else
        return True
