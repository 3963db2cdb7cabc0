"""Snapshots as files: saved when they are missing, not when they are there."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem, SandboxGone
from org.sandbox.vm import layout, saved
from org.sandbox.vm.layout import ImageFolder, StateFolder
from org.sandbox.vm.snapshots import Snapshots


class Shelf:
    """Snapshots in a folder, `saves` counts those that were made."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.saves = 0
        self.said: list[str] = []
        self.notes: list[str] = []
        self.snapshots = Snapshots(cache, self.said.append, self.said.append, self.notes.append)

    async def save(self, work: StateFolder) -> None:
        self.saves += 1
        await asyncio.sleep(0)
        work.state.write_bytes(b"devices")
        work.ram.write_bytes(b"memory")

    async def taken(self, key: str = "k", room: int = 0) -> StateFolder:
        async with AsyncExitStack() as stack:
            return await self.snapshots.taken(stack, key, self.save, room)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_it_is_saved_once(shelf: Shelf) -> None:
    one, two = await asyncio.gather(shelf.taken(), shelf.taken())
    assert one == two == StateFolder(layout.snapshots(shelf.cache) / "k")
    assert (shelf.saves, shelf.notes) == (1, [])
    assert saved.flaw(one, "k") == ""


async def test_one_that_is_broken_is_saved_anew_and_that_is_said(shelf: Shelf) -> None:
    snapshot = await shelf.taken()
    snapshot.ram.unlink()
    assert saved.flaw(await shelf.taken(), "k") == ""
    assert (shelf.saves, shelf.notes) == (2, ["the snapshot is saved anew: it is not complete"])


async def test_what_was_not_finished_goes(shelf: Shelf) -> None:
    stale = layout.snapshots(shelf.cache) / ".making-old"
    stale.mkdir(parents=True)
    (stale / "ram").write_bytes(b"half")
    await shelf.taken()
    assert not stale.exists()


async def test_a_full_disk_is_told_before(shelf: Shelf) -> None:
    with pytest.raises(EnvironmentProblem, match="a snapshot wants"):
        await shelf.taken(room=1 << 60)
    assert shelf.saves == 0


async def test_a_save_that_fails_leaves_none(shelf: Shelf) -> None:
    async def fails(work: StateFolder) -> None:
        work.ram.write_bytes(b"some")
        raise SandboxGone("it ended")

    async with AsyncExitStack() as stack:
        with pytest.raises(SandboxGone):
            await shelf.snapshots.taken(stack, "k", fails, 0)
    assert [path.name for path in layout.snapshots(shelf.cache).iterdir()] == [".lock"]


async def test_of_other_versions_the_last_stay_and_those_in_use(shelf: Shelf) -> None:
    async with AsyncExitStack() as stack:
        await shelf.snapshots.taken(stack, "used", shelf.save, 0)
        for key in ("a", "b", "c"):
            await shelf.taken(key)
        kept = {path.parent.name for path in layout.snapshots(shelf.cache).glob("*/manifest.json")}
    assert kept == {"used", "b", "c"}


async def test_an_image_stays_while_a_machine_stands_on_it(shelf: Shelf) -> None:
    machine = shelf.cache / "machine"
    machine.mkdir()
    for name in ("1", "2", "3", "4"):
        image = ImageFolder(layout.images(shelf.cache) / name)
        image.machines.mkdir(parents=True)
        image.manifest.write_text("{}")
        (image.machines / "link").symlink_to(machine if name == "2" else shelf.cache / "gone")
    await shelf.taken()
    left = {path.name for path in layout.images(shelf.cache).iterdir()}
    assert left == {"2", "3", "4"}
