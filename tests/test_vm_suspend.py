"""What a machine that goes down leaves, whatever its guest, its QEMU and its disk do meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from org.errors import EnvironmentProblem, SandboxGone
from org.sandbox.vm import saved, suspend
from org.sandbox.vm.layout import MachineFolder, StateFolder
from org.sandbox.vm.start import Up

KEY = "0123456789abcdef01234567"


class Deaf:
    """A guest that is too busy to answer."""

    def open(self, request: Mapping[str, Any]) -> None:
        raise SandboxGone("it did not answer 3 pings within 6 s")


class Control:
    """A QEMU that writes what it should, unless it is told to fail, or to hang."""

    def __init__(self, *, fails: str = "", hangs: bool = False) -> None:
        self.fails = fails
        self.hangs = hangs

    async def stop(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def save(self, path: Path) -> None:
        path.write_bytes(b"all that it is")
        if self.fails:
            raise EnvironmentProblem(self.fails)

    async def quit(self) -> None:
        """It ends."""

    async def wait(self) -> int:
        return 0

    @property
    def qmp(self) -> Control:
        return self

    @property
    def process(self) -> Control:
        return self


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    one = MachineFolder(tmp_path / "default")
    one.path.mkdir()
    one.overlay.write_bytes(b"its disk")
    return one


async def suspended(folder: MachineFolder, control: Control) -> list[str]:
    """What is logged meanwhile."""
    said: list[str] = []
    up = Up(cast(Any, control), cast(Any, Deaf()), cast(Any, None), AsyncExitStack(), "boot")
    await suspend.suspend(up, folder, KEY, said.append)
    assert not folder.suspending.exists()
    return said


async def test_a_guest_that_is_too_busy_to_answer_is_suspended_as_it_is(folder: MachineFolder) -> None:
    said = await suspended(folder, Control())
    assert "without a sync: it did not answer 3 pings" in said[0]
    assert saved.flaw(StateFolder(folder.suspended), KEY, folder.overlay) == ""
    assert not folder.unsaved.exists()


@pytest.mark.parametrize(
    ("control", "told"),
    [
        (Control(fails="nothing more was written for 60 s"), "nothing more was written for 60 s"),
        (Control(hangs=True), "QEMU did not answer within 0.05 s"),
    ],
)
async def test_what_is_in_the_way_is_told(
    folder: MachineFolder, control: Control, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspend, "_ANSWER_S", 0.05)
    said = await suspended(folder, control)
    assert said[-1] == f"not suspended, to be booted from its disk: {told}"
    assert folder.unsaved.read_text() == told + "\n"
    assert not folder.suspended.exists()
