"""Where file systems lie in disks of others, and copies with holes."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.errors import UsageError
from org.sandbox.vm.image import adopt, disk
from org.sandbox.vm.layout import ImageFolder


def mbr(*entries: tuple[int, int, int]) -> bytearray:
    """A disk's head with partitions (kind, first sector, sectors)."""
    head = bytearray(disk.HEAD)
    for number, (kind, start, count) in enumerate(entries):
        at = 446 + 16 * number
        head[at + 4] = kind
        struct.pack_into("<II", head, at + 8, start, count)
    head[510:512] = b"\x55\xaa"
    return head


def ext(size: int = 1 << 20) -> bytes:
    """The beginning of a file system of the ext family, and then something."""
    return bytes(1080) + b"\x53\xef" + b"x" * (size - 1082)


def qemu_img(folder: Path, *words: str) -> None:
    subprocess.run(["qemu-img", *words], cwd=folder, check=True)


def gpt(*entries: tuple[int, int], count: int = 128, size: int = 128) -> bytearray:
    """A disk's head with partitions (first sector, last sector)."""
    head = mbr((0xEE, 1, 0xFFFFFFFF))
    head[512:520] = b"EFI PART"
    struct.pack_into("<QII", head, 512 + 72, 2, count, size)
    for number, (first, last) in enumerate(entries):
        at = 1024 + number * size
        head[at : at + 16] = b"L" * 16
        struct.pack_into("<QQ", head, at + 32, first, last)
    return head


def test_partitions_of_the_old_table() -> None:
    head = mbr((0x83, 2048, 100), (0x05, 4096, 10), (0x82, 5000, 1), (0, 1, 1))
    assert list(disk.partitions(bytes(head))) == [(2048 * 512, 100 * 512), (5000 * 512, 512)]


def test_partitions_of_the_new_table() -> None:
    assert list(disk.partitions(bytes(gpt((2048, 4095), (34, 34))))) == [
        (2048 * 512, 2048 * 512),
        (34 * 512, 512),
    ]


def test_a_disk_without_a_table_has_none() -> None:
    assert list(disk.partitions(bytes(disk.HEAD))) == []


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_any_table_is_read_without_harm(noise: bytes, count: int, size: int) -> None:
    head = gpt(count=count, size=size)
    head[1024 : 1024 + len(noise)] = noise
    assert len(list(disk.partitions(bytes(head)))) <= disk.HEAD // 48


def test_a_copy_keeps_the_bytes_and_leaves_holes(tmp_path: Path) -> None:
    data = b"head" + bytes(3 << 20) + b"tail" + bytes(2 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"before" + data + b"after")
    disk.copy_sparse(source, target, 6, len(data))
    assert target.read_bytes() == data
    assert target.stat().st_blocks * 512 < len(data)


@pytest.mark.parametrize("end", [b"", b"tail"])
def test_a_clone_is_the_same_and_ones_own(tmp_path: Path, end: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = (64 << 20) + len(end)
    with source.open("wb") as file:
        file.write(b"head")
        file.seek(32 << 20)
        file.write(b"middle")
        file.seek(64 << 20)
        file.write(end)
        file.truncate(size)
    disk.clone(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
    with target.open("r+b") as file:
        file.write(b"HEAD")
    assert source.read_bytes()[:4] == b"head"
    with pytest.raises(FileExistsError):
        disk.clone(source, target)


async def test_the_largest_file_system_of_a_disk_is_taken(tmp_path: Path) -> None:
    small, large = bytearray(8192), bytearray(65536)
    small[1080:1082] = large[1080:1082] = b"\x53\xef"
    large[4000:4005] = b"large"
    noise = b"\xff" * 131072
    head = mbr((0x83, 128, len(small) // 512), (0x83, 256, len(large) // 512), (0x83, 512, len(noise) // 512))
    image = bytearray(512 * 512) + noise
    image[: len(head)] = head
    image[128 * 512 : 128 * 512 + len(small)] = small
    image[256 * 512 : 256 * 512 + len(large)] = large
    path = tmp_path / "disk.raw"
    path.write_bytes(image)
    folder = ImageFolder(tmp_path)
    drives = await adopt._drives(path, folder)
    assert [drive.path for drive in drives] == [str(folder.root)]
    assert folder.root.read_bytes() == large


@pytest.mark.parametrize("content", [b"", b"hello", bytes(512) + b"x" * 5000, b"QFI\xfbnot really"])
async def test_what_is_neither_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        await adopt._drives(path, ImageFolder(tmp_path))


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(100), b"x" + bytes(5 << 20), bytes((2 << 20) + 7) + b"end"]
)
def test_zeros_and_holes_are_alike(tmp_path: Path, data: bytes) -> None:
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"
    dense.write_bytes(data)
    disk.make_sparse(sparse, len(data))
    with sparse.open("r+b") as file:
        for at in range(len(data)):
            if data[at]:
                file.seek(at)
                file.write(data[at : at + 1])
    assert adopt._sum(dense) == adopt._sum(sparse)
    assert list(disk.chunks(dense)) == list(disk.chunks(sparse))


def test_different_files_have_different_sums(tmp_path: Path) -> None:
    contents = [
        b"",
        bytes(1),
        bytes(2),
        b"x",
        bytes(1 << 20) + b"x",
        bytes(2 << 20) + b"x",
        b"x" + bytes(1 << 20),
    ]
    sums = set()
    for content in contents:
        (tmp_path / "file").write_bytes(content)
        sums.add(adopt._sum(tmp_path / "file"))
    assert len(sums) == len(contents)


def test_a_file_that_cannot_be_read_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        adopt._sum(tmp_path / "none")


@pytest.mark.vm
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-b", "secret", "-F", "raw"), "another file"),
        (("-o", "data_file=secret,data_file_raw=on", "1M"), "another file"),
        (("-o", "compat=0.10", "-b", "secret", "-F", "raw"), "another file"),
        (
            ("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", "1M"),
            "encrypted",
        ),
    ],
    ids=["backing", "data", "old", "encrypted"],
)
async def test_a_disk_that_names_another_file_is_refused_unread(
    tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    (tmp_path / "secret").write_bytes(ext())
    path = tmp_path / "given.qcow2"
    at = len(words) - 1 if words[-1] == "1M" else len(words)
    qemu_img(tmp_path, "create", "-q", "-f", "qcow2", *words[:at], str(path), *words[at:])
    with pytest.raises(UsageError, match=why):
        await adopt._drives(path, ImageFolder(tmp_path / "work"))


@pytest.mark.vm
async def test_a_disk_in_qcow2_is_read_behind_a_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, path, work = tmp_path / "plain", tmp_path / "given.qcow2", tmp_path / "work"
    plain.write_bytes(ext())
    work.mkdir()
    qemu_img(tmp_path, "convert", "-O", "qcow2", str(plain), str(path))
    await adopt._drives(path, ImageFolder(work))
    assert ImageFolder(work).root.read_bytes() == plain.read_bytes()
    # What escapes the check still finds nothing: the same disk, over a file that is there.
    qemu_img(tmp_path, "create", "-q", "-f", "qcow2", "-b", str(plain), "-F", "raw", str(path))
    monkeypatch.setattr(disk, "qcow2_refers", lambda _head: "")
    with pytest.raises(UsageError, match="not a usable disk"):
        await adopt._drives(path, ImageFolder(work))


def test_a_disk_that_is_cut_off_is_no_fault() -> None:
    assert disk.qcow2_refers(disk.QCOW2_MAGIC) == ""
