"""States on the disk: whom they fit, and which are kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from org.sandbox.vm import saved
from org.sandbox.vm.layout import ImageFolder, StateFolder
from org.sandbox.vm.qemu import Drive, MachineSpec, Memory, Port

SPEC = MachineSpec(
    kernel="/i/vmlinuz",
    initrd="/m/initrd",
    drives=(Drive("/m/overlay"),),
    ports=(Port("org.ctl", 4),),
    qmp=3,
)
IMAGE = ImageFolder(Path("/i"))


def key(
    spec: MachineSpec = SPEC, *, image: ImageFolder = IMAGE, initrd: bytes = b"i", qemu: str = "7"
) -> str:
    return saved.key_of(spec, image, initrd, qemu)


def state_of(folder: Path, name: str = "one") -> StateFolder:
    """A sealed state, its key its name."""
    state = StateFolder(folder / name)
    state.path.mkdir(parents=True)
    state.state.write_bytes(b"devices")
    state.ram.write_bytes(b"memory")
    saved.seal(state, name)
    return state


def test_machines_that_differ_in_their_places_only_share_a_state() -> None:
    elsewhere = replace(
        SPEC,
        initrd="/n/initrd",
        drives=(Drive("/n/overlay"),),
        ports=(Port("org.ctl", 8),),
        qmp=7,
        memory=Memory("/s/ram", share=True),
        incoming=True,
    )
    assert key(elsewhere) == key()


@pytest.mark.parametrize(
    "other",
    [
        key(replace(SPEC, memory_mib=1024)),
        key(replace(SPEC, cpus=2)),
        key(replace(SPEC, cpu="Nehalem")),
        key(replace(SPEC, accel="kvm")),
        key(replace(SPEC, arch="aarch64")),
        key(replace(SPEC, drives=(*SPEC.drives, Drive("/m/second")))),
        key(image=ImageFolder(Path("/j"))),
        key(initrd=b"another agent"),
        key(qemu="8"),
    ],
)
def test_what_makes_another_machine_makes_another_key(other: str) -> None:
    assert other != key()


def test_a_sealed_state_can_be_gone_on_from(tmp_path: Path) -> None:
    assert saved.flaw(state_of(tmp_path), "one") == ""


def rewritten(state: StateFolder) -> None:
    """As many bytes as before, and the time of before as far as that can be set."""
    before = state.ram.stat()
    state.ram.write_bytes(b"MEMORY")
    os.utime(state.ram, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.manifest.unlink(), "it is not complete"),
        (lambda state: state.ram.unlink(), "it is not complete"),
        (lambda state: state.manifest.write_text("{"), "it cannot be read"),
        (lambda state: state.manifest.write_text('["one"]'), "it cannot be read"),
        (lambda state: state.state.write_bytes(b"devic"), "`state` was changed since it was saved"),
        (rewritten, "`ram` was changed since it was saved"),
    ],
)
def test_a_state_that_is_not_as_it_was_is_told(
    tmp_path: Path, change: Callable[[StateFolder], object], why: str
) -> None:
    state = state_of(tmp_path)
    change(state)
    assert saved.flaw(state, "one") == why


def test_a_state_goes_with_its_disk(tmp_path: Path) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    disk.write_bytes(b"as it was")
    other.write_bytes(b"replaced!")
    state = state_of(tmp_path)
    assert saved.flaw(state, "one", disk) == "its disk was changed since it was saved"
    state.manifest.unlink()
    saved.seal(state, "one", disk)
    assert saved.flaw(state, "one", disk) == ""
    other.replace(disk)
    assert saved.flaw(state, "one", disk) == "its disk was changed since it was saved"


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "port"
    saved.write(path, "7001\n")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        saved.write(path, "9001\n")
    assert (path.read_text(), [one.name for one in tmp_path.iterdir()]) == ("7001\n", ["port"])


def test_a_state_of_another_machine_is_told(tmp_path: Path) -> None:
    assert "not as they were" in saved.flaw(state_of(tmp_path), "two")


def test_one_that_is_used_up_is_gone(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    saved.use_up(state)
    assert not state.path.exists()
    saved.remove(state.path)


def several(folder: Path, count: int) -> list[Path]:
    """The manifests of states, the newest first."""
    made = [state_of(folder, f"{number}").manifest for number in range(count)]
    for age, manifest in enumerate(made):
        os.utime(manifest, (1_000_000 - age, 1_000_000 - age))
    return made


def test_the_newest_stay(tmp_path: Path) -> None:
    made = several(tmp_path, 4)
    (tmp_path / ".making-5").mkdir()
    assert saved.prune(tmp_path, lambda path: False) == [path.parent for path in made[2:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-5", "0", "1"]


def test_what_is_used_or_spared_stays(tmp_path: Path) -> None:
    made = several(tmp_path, 5)
    with ExitStack() as stack:
        assert stack.enter_context(saved.held(made[4]))
        assert saved.prune(tmp_path, lambda path: path.name == "3") == [made[2].parent]
    assert saved.prune(tmp_path, lambda path: path.name == "3") == [made[4].parent]
    assert made[3].exists()


def test_what_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with saved.held(tmp_path / "none" / "manifest.json") as there:
        assert not there
