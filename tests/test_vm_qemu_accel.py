"""An accelerator is believed only when a kernel has spoken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem
from org.sandbox.vm import accel

KERNEL = Path("/nowhere/vmlinuz")


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in QEMU's place; what it does is in the file returned, its runs are lines of `runs`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "qemu-system-x86_64"
    does = folder / "does"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then cat {folder}/version; exit; fi\n'
        f"echo run >>{folder}/runs\n. {does}\n"
    )
    script.chmod(0o755)
    (folder / "version").write_text("QEMU 1\n")
    does.write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return does


def runs(qemu: Path) -> int:
    path = qemu.with_name("runs")
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("does", "works"),
    [
        ("printf 'firmware\\r\\n[0.0] Linux ver'; printf 'sion 6.1\\n'; exec sleep 60", True),
        ("echo firmware; exit 1", False),
        ("echo firmware; exec sleep 60", False),  # the one that opens, answers and then hangs
    ],
)
async def test_only_the_kernels_own_line_counts(qemu: Path, does: str, works: bool) -> None:
    qemu.write_text(does)
    assert await accel.works_with("kvm", KERNEL, "x86_64", 60.0 if works else 0.5) is works


async def test_a_verdict_holds_until_qemu_or_the_boot_changes(
    qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_candidate", lambda arch: "kvm")
    cache = tmp_path / "cache"
    qemu.write_text("exit 1")
    assert await accel.choose(cache, KERNEL, "x86_64") == "tcg"
    qemu.write_text("echo Linux version 6")
    assert await accel.choose(cache, KERNEL, "x86_64") == "tcg"
    assert runs(qemu) == 1
    qemu.with_name("version").write_text("QEMU 2\n")
    assert await accel.choose(cache, KERNEL, "x86_64") == "kvm"
    assert await accel.choose(cache, KERNEL, "x86_64") == "kvm"
    assert runs(qemu) == 2
    known = json.loads((cache / "accel.json").read_text())
    (cache / "accel.json").write_text(json.dumps(known | {"boot": "another"}))
    await accel.choose(cache, KERNEL, "x86_64")
    assert runs(qemu) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"works": true}'])
async def test_a_broken_verdict_is_made_again(
    qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(accel, "_candidate", lambda arch: "kvm")
    (tmp_path / "accel.json").write_text(content)
    assert await accel.choose(tmp_path, KERNEL, "x86_64") == "tcg"
    assert runs(qemu) == 1


async def test_for_another_architecture_nothing_is_tried(qemu: Path, tmp_path: Path) -> None:
    (qemu.parent / "qemu-system-riscv64").symlink_to(qemu.parent / "qemu-system-x86_64")
    assert await accel.choose(tmp_path, KERNEL, "riscv64") == "tcg"
    assert runs(qemu) == 0


async def test_without_qemu_the_error_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem) as caught:
        await accel.choose(tmp_path, KERNEL, "x86_64")
    assert "apt-get install" in caught.value.hint
