"""What a start of a machine finds in its folder, and leaves there."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem
from org.sandbox.vm import start
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.start import Start


def start_in(folder: Path) -> Start:
    words = (str(folder), str(folder / "image"), str(folder / "cache"), "x86_64", "org")
    plan = Plan(*words, 256, 1, Upstream("127.0.0.1", 9), 7001)
    return Start(plan, print, print, print)


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
