"""The archive that a guest starts from, and the way from there to its agent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.sandbox.vm import initramfs
from org.sandbox.vm.initramfs import Entry, file, folder, link, pack
from org.sandbox.vm.layout import ImageFolder

NAMES = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)


def unpack(archive: bytes) -> dict[str, Entry]:
    """The members by path. A second reading of the format: fields of eight hexadecimal digits."""
    found: dict[str, Entry] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, device, length = fields[1], fields[6], (fields[9], fields[10]), fields[11]
        name = archive[at + 110 : at + 110 + length]
        assert name.endswith(b"\0")
        data_at = at + 110 + length + -(110 + length) % 4
        if name == b"TRAILER!!!\0":
            assert data_at == len(archive)
            return found
        path = name[:-1].decode()
        assert path not in found
        parent = path.rpartition("/")[0]
        assert not parent or stat.S_ISDIR(found[parent].mode), "the kernel makes no folders by itself"
        found[path] = Entry(path, mode, archive[data_at : data_at + size], device)
        at = data_at + size + -size % 4


def test_every_kind_of_member_comes_back() -> None:
    console = Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    entries = [folder("dev"), console, file("init", b"#!x\n", 0o755), link("bin", "usr/bin")]
    assert list(unpack(pack(entries)).values()) == entries


@given(st.dictionaries(NAMES, st.binary(max_size=9), max_size=6))
def test_any_files_come_back(files: dict[str, bytes]) -> None:
    plain = {path: data for path, data in files.items() if not any(o.startswith(path + "/") for o in files)}
    found = unpack(pack(file(path, data) for path, data in plain.items()))
    assert {path: found[path].data for path in plain} == plain


def test_a_machines_archive_holds_this_versions_guest_side(tmp_path: Path) -> None:
    image = ImageFolder(tmp_path)
    image.busybox.write_bytes(b"box")
    image.modules.mkdir()
    (image.modules / "order").write_text("b.ko\na.ko\n")
    (image.modules / "a.ko").write_bytes(b"A")
    (image.modules / "b.ko").write_bytes(b"B")
    guest = initramfs.guest_side(["boot.py"]) | {"agent.py": b"agent"}
    found = unpack(initramfs.for_machine(image, guest))
    assert found["init"].mode & 0o111 and found["bin/busybox"].mode & 0o111
    assert found["modules/order"].data == b"b.ko\na.ko\n"
    assert found["modules/b.ko"].data == b"B"
    assert found["org/agent.py"].data == b"agent"
    source = Path(initramfs.__file__).with_name("boot.py")
    assert found["org/boot.py"].data == source.read_bytes()


@pytest.mark.parametrize("name", ["init", "second_stage"])
def test_the_first_programs_are_for_the_shell_in_the_archive(name: str) -> None:
    assert initramfs.script(name).startswith(b"#!/bin/busybox sh\n")
