"""Packages become one tree, as dpkg would have left it before configuring."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from archive_kit import deb
from org.errors import EnvironmentProblem
from org.sandbox.vm.image import parts
from org.sandbox.vm.image.unpack import RootTar, members


def unpacked(tmp_path: Path, *debs: Path, state: str = "unpacked") -> dict[str, tarfile.TarInfo]:
    with RootTar(tmp_path / "root.tar", 7) as root:
        for path in debs:
            root.add(path, state)
    with tarfile.open(tmp_path / "root.tar") as tar:
        found = tar.getmembers()
        assert len({member.name for member in found}) == len(found)
        return {member.name: member for member in found}


def content(tmp_path: Path, name: str) -> str:
    with tarfile.open(tmp_path / "root.tar") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


def test_an_outer_archive_is_read_whole(tmp_path: Path) -> None:
    path = deb(tmp_path, "a", {"./x": b"odd"})
    assert [name for name, _ in members(path)] == ["debian-binary", "control.tar.gz", "data.tar.xz"]


def test_files_of_the_old_folders_move_into_usr(tmp_path: Path) -> None:
    first = deb(tmp_path, "a", {"./": "", "./bin/": "", "./bin/sh": b"x", "./bin/ash": "=>./bin/sh"})
    second = deb(
        tmp_path, "b", {"./usr/": "", "./usr/bin/": "", "./lib64/": "", "./lib64/ld.so": "->/lib/ld.so"}
    )
    found = unpacked(tmp_path, first, second)
    assert found["bin"].linkname == "usr/bin" and found["lib64"].linkname == "usr/lib64"
    assert found["usr/bin"].isdir() and found["usr/bin/sh"].isreg()
    assert found["usr/bin/ash"].islnk() and found["usr/bin/ash"].linkname == "usr/bin/sh"
    assert found["usr/lib64/ld.so"].linkname == "/lib/ld.so"
    assert not [name for name in found if name.startswith(("bin/", "lib64/"))]


def test_dpkg_finds_its_records(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "./": "",
        "./etc/": "",
        "./etc/a.conf": b"set",
        "./bin/": "",
        "./bin/a": b"x",
    }
    control = {"conffiles": b"/etc/a.conf\n", "postinst": b"#!/bin/sh\n", "md5sums": b""}
    found = unpacked(tmp_path, deb(tmp_path, "a", files, control))
    assert content(tmp_path, "var/lib/dpkg/info/a.list") == "/.\n/etc\n/etc/a.conf\n/bin\n/bin/a\n"
    assert found["var/lib/dpkg/info/a.postinst"].mode == 0o755
    assert "var/lib/dpkg/info/a.control" not in found
    status = content(tmp_path, "var/lib/dpkg/status")
    md5 = hashlib.md5(b"set", usedforsecurity=False).hexdigest()
    assert status.startswith("Package: a\n") and status.endswith("\n\n")
    assert "\nStatus: install ok unpacked\nConffiles:\n /etc/a.conf " + md5 in status


def test_a_package_of_several_architectures_is_recorded_with_its_own(tmp_path: Path) -> None:
    found = unpacked(tmp_path, deb(tmp_path, "lib", {}, more="Multi-Arch: same\n"))
    assert "var/lib/dpkg/info/lib:amd64.list" in found


def test_manuals_stay_out_and_are_recorded_all_the_same(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"./usr/share/man/man1/a.1.gz": b"x", "./usr/share/misc/a": b"x"}
    found = unpacked(tmp_path, deb(tmp_path, "a", files))
    assert "usr/share/misc/a" in found and "usr/share/man/man1/a.1.gz" not in found
    assert "/usr/share/man/man1/a.1.gz" in content(tmp_path, "var/lib/dpkg/info/a.list")


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.deb"
    wrong.write_bytes(b"hello")
    with pytest.raises(EnvironmentProblem, match="not a Debian package"):
        list(members(wrong))
    wrong.write_bytes(b"!<arch>\n")
    with pytest.raises(EnvironmentProblem, match="without its 'control' part"):
        unpacked(tmp_path, wrong)


def test_the_kernel_and_its_modules_are_found(tmp_path: Path) -> None:
    top = "./lib/modules/6.1/"
    files: dict[str, bytes | str] = {
        "./boot/vmlinuz-6.1": b"kernel",
        f"{top}kernel/drivers/virtio-blk.ko": b"\0depends=virtio,ring\0",
        f"{top}kernel/virtio.ko": b"\0depends=ring\0",
        f"{top}kernel/ring.ko": b"\0depends=\0",
        f"{top}kernel/net/other.ko": b"",
    }
    kernel, modules = parts.kernel(deb(tmp_path, "linux-image", files))
    assert kernel == b"kernel"
    assert list(parts.in_order(modules, ["virtio_blk"])) == ["ring.ko", "virtio.ko", "virtio-blk.ko"]
    with pytest.raises(EnvironmentProblem, match="no module `gone`"):
        parts.in_order(modules, ["gone"])
    with RootTar(tmp_path / "root.tar", 7) as root:
        parts.add_modules(root, modules, ("kernel/net/",))
    with tarfile.open(tmp_path / "root.tar") as tar:
        assert [name for name in tar.getnames() if "modules" in name] == [
            "usr/lib/modules/6.1/kernel/net/other.ko"
        ]


def test_a_package_without_what_it_should_have_is_refused(tmp_path: Path) -> None:
    empty = deb(tmp_path, "a", {"./x": b""})
    with pytest.raises(EnvironmentProblem, match="without a kernel"):
        parts.kernel(empty)
    with pytest.raises(EnvironmentProblem, match="without busybox"):
        parts.busybox(empty)
    assert parts.busybox(deb(tmp_path, "b", {"./bin/busybox": b"box"})) == b"box"


def test_what_makes_file_systems_comes_with_its_libraries(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "./sbin/mke2fs": b"program",
        "./sbin/other": b"",
        "./etc/mke2fs.conf": b"conf",
        "./lib/x86_64-linux-gnu/libext2fs.so.2": "->libext2fs.so.2.4",
        "./lib/x86_64-linux-gnu/libext2fs.so.2.4": b"library",
        "./lib64/ld-linux-x86-64.so.2": "->/lib/ld",
        "./usr/lib/x86_64-linux-gnu/gconv/libx.so": b"",
    }
    found = {entry.path: entry.data for entry in parts.mkfs([deb(tmp_path, "e2fsprogs", files)])}
    assert found == {
        "sbin/mke2fs": b"program",
        "etc/mke2fs.conf": b"conf",
        "lib/x86_64-linux-gnu/libext2fs.so.2": b"libext2fs.so.2.4",
        "lib/x86_64-linux-gnu/libext2fs.so.2.4": b"library",
        "lib64/ld-linux-x86-64.so.2": b"/lib/ld",
    }
