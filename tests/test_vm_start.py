"""What a start of a machine finds in its folder, and leaves there."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from org.errors import EnvironmentProblem
from org.sandbox.vm import saved, start
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.holding import holding
from org.sandbox.vm.layout import ImageFolder, MachineFolder, StateFolder
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.qemu import Memory
from org.sandbox.vm.start import Start, Up, Way
from org.sandbox.vm.supervisor import _Supervisor


def plan_in(folder: Path) -> Plan:
    words = (str(folder), str(folder / "image"), str(folder / "cache"), "x86_64", "org")
    return Plan(*words, 256, 1, Upstream("127.0.0.1", 9), 7001)


def start_in(folder: Path) -> Start:
    return Start(plan_in(folder), print, print, print)


@pytest.mark.parametrize("torn", [b"", b"QFI", bytes(70_000)])
def test_a_torn_disk_is_told_with_the_way_out(tmp_path: Path, torn: bytes) -> None:
    disk = tmp_path / "overlay.qcow2"
    disk.write_bytes(torn)
    with pytest.raises(EnvironmentProblem) as told:
        start.check_disk(disk)
    assert str(disk) in told.value.message
    assert "org vm reset" in told.value.hint


def test_a_disk_is_copied_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"a disk")
    start._copy(source, target)
    assert target.read_bytes() == b"a disk"
    target.unlink()

    def half(_source: Path, draft: Path) -> None:
        draft.write_bytes(b"a d")
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OSError, match="full"):
        start._copy(source, target)
    assert not target.exists()


@pytest.mark.parametrize("torn", ["", "abc\n", "../../etc", "\0" * 32])
def test_an_identity_that_is_torn_is_made_anew_and_kept(tmp_path: Path, torn: str) -> None:
    (tmp_path / "id").write_text(torn)
    one = start_in(tmp_path)
    made = one._machine_id()
    assert len(made) == 32
    assert int(made, 16) >= 0
    assert one._machine_id() == made


class Waking(Start):
    """One whose QEMU is told by the test when to go on."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, print, print, print)
        self.loading, self.loaded, self.used, self.met = (asyncio.Event() for _ in range(4))

    async def _prepare(self) -> None:
        """Nothing is to be prepared."""

    async def _resumed(
        self, stack: AsyncExitStack, way: Way, state: StateFolder, memory: Memory, loaded: Callable[[], None]
    ) -> Up:
        self.loading.set()
        await self.loaded.wait()
        loaded()
        self.used.set()
        await self.met.wait()
        return cast(Up, self)


@pytest.fixture
def suspended(tmp_path: Path) -> MachineFolder:
    """Of a machine that is to be woken."""
    ImageFolder(tmp_path / "image").path.mkdir()
    ImageFolder(tmp_path / "image").manifest.write_text("{}")
    folder = MachineFolder(tmp_path)
    folder.overlay.touch()
    folder.suspended.mkdir()
    StateFolder(folder.suspended).state.touch()
    saved.seal(StateFolder(folder.suspended), "", folder.overlay)
    return folder


@pytest.mark.parametrize("used", [False, True], ids=["before", "after"])
async def test_a_memory_that_is_used_up_is_not_lost_when_the_start_is_called_off(
    suspended: MachineFolder, used: bool
) -> None:
    plan = plan_in(suspended.path)
    async with asyncio.timeout(30), holding(suspended) as hold, AsyncExitStack() as stack:
        supervisor = _Supervisor(plan, hold, print, print)
        supervisor._start = waking = Waking(plan)
        starting = asyncio.create_task(supervisor._started(stack))
        await waking.loading.wait()
        if used:
            waking.loaded.set()
            await waking.used.wait()
        supervisor._stop.set()
        if used:
            await asyncio.wait([starting], timeout=0.1)
            assert not starting.done()
            waking.met.set()
        assert await starting is (cast(Up, waking) if used else None)
    assert suspended.suspended.exists() is not used
