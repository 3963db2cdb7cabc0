"""What stands around QEMU, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command import Home
from org.cli.style import Style
from org.cli.vm.shown import as_text
from org.compose.places import choose_place
from org.config import load
from org.errors import EnvironmentProblem
from org.sandbox.vm.box import alone, boxed, lacking
from org.sandbox.vm.machine import Machine, Status

pytestmark = pytest.mark.sandbox


def up(*walls: str) -> Status:
    """A machine that is up behind these walls."""
    network: dict[str, Any] = {
        "device": "none",
        "model_server": "http://there/v1",
        "paths": [],
        "inbound": {"7001": 7101},
        "serving": {"7001": ""},
        "counts": {"requests": 0, "refused": 0, "sent": 0, "received": 0, "inbound": 0},
    }
    facts = {
        "walls": list(walls),
        "image": "k",
        "memory_mib": 512,
        "started": 0.0,
        "boot_s": 1.0,
        "way": "boot",
        "missing": [],
        "network": network,
    }
    return Status("default", "up", 7, facts)


@pytest.fixture
def without_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


async def test_a_program_goes_behind_bubblewrap_where_that_is() -> None:
    words, walls = await boxed(["true", "x"], [], [], kvm=False)
    assert Path(words[0]).name == "bwrap"
    assert lacking(walls) == ""
    assert (await alone(["true", "x"], [], []))[-2:] == ["true", "x"]


@pytest.mark.usefixtures("without_bwrap")
async def test_without_bubblewrap_that_is_what_it_lacks() -> None:
    words, walls = await boxed(["true", "x"], [], [], kvm=False)
    assert words[:2] == ["true", "x"]
    assert "bubblewrap" in lacking(walls)
    assert await alone(["true", "x"], [], []) == ["true", "x"]


async def test_a_room_is_told_and_one_that_requires_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = ["TCG", "seccomp"]

    async def status(self: Machine) -> Status:
        return up(*walls)

    monkeypatch.setattr(Machine, "status", status)
    home = Home(tmp_path)
    settings = load(cwd=home.project, flags={"sandbox.place": "vm"}, env=home.env)
    _, words = await choose_place(settings, tmp_path, unsafe_local=False, in_machine="r")
    assert "it lacks bubblewrap" in words
    home.user_settings('[sandbox]\nrequire = "vm"')
    strict = load(cwd=home.project, flags={}, env=home.env)
    with pytest.raises(EnvironmentProblem, match="lacks bubblewrap"):
        await choose_place(strict, tmp_path, unsafe_local=False, in_machine="r")
    walls[0] = "KVM"
    assert (
        "it lacks bubblewrap" in (await choose_place(strict, tmp_path, unsafe_local=False, in_machine="r"))[1]
    )


def test_its_status_shows_it() -> None:
    assert "missing  bubblewrap" in as_text(up("TCG", "seccomp"), [], 10.0, Style(False))
    assert "missing" not in as_text(up("TCG", "seccomp", "box"), [], 10.0, Style(False))


def test_its_status_shows_where_its_ports_are() -> None:
    shown = as_text(up("TCG", "seccomp", "box"), [], 10.0, Style(False))
    assert "port 7001 of the guest at 127.0.0.1:7101: served" in shown
