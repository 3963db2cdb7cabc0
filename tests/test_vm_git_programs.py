"""The scripts by which a machine is asked about programs, run here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from org.sandbox.vm import git_programs as scripts

BOOT = Path("/proc/sys/kernel/random/boot_id")


def before(kept: Path) -> int:
    done = subprocess.run(["sh", "-c", scripts.BEFORE, "sh", str(kept)], check=False, timeout=60)
    return done.returncode


def test_where_nothing_was_served_nothing_has_ended(tmp_path: Path) -> None:
    assert before(tmp_path / "kept") == 0
    assert (tmp_path / "kept" / "run").is_dir()


@pytest.mark.parametrize(
    ("boot", "code"),
    [(BOOT.read_text(), scripts.ENDED_THERE), ("another\n", scripts.LOST), (None, scripts.LOST)],
    ids=["ended", "booted", "not known"],
)
def test_a_machine_that_was_booted_is_told_from_a_supervisor_that_was_ended(
    tmp_path: Path, boot: str | None, code: int
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "c0ffee.keeper").touch()
    (run / "supervisor.sock").touch()
    if boot is not None:
        (run / "boot").write_text(boot)
    assert before(tmp_path) == code
    assert not (run / "supervisor.sock").exists()
