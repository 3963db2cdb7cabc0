"""Disks as files: where a root file system lies in one, and copies that take no more room than needed."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

SECTOR = 512
HEAD = 34 * SECTOR  # bytes of a disk's beginning that hold its tables
EXT_HEAD = 2048
QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_HEAD = 80
_QCOW2_FEATURES = 3  # the first version of the format that has some
_QCOW2_DATA_FILE = 1 << 2
_CHUNK = 1 << 20
_GPT_ENTRIES, _GPT_ENTRY = 128, 128
_EXTENDED = (0x05, 0x0F, 0x85)


def is_ext(head: bytes) -> bool:
    """Whether a file system of the ext family begins with `head` (`EXT_HEAD` bytes)."""
    return head[1080:1082] == b"\x53\xef"


def is_qcow2(head: bytes) -> bool:
    return head.startswith(QCOW2_MAGIC)


def qcow2_refers(head: bytes) -> str:
    """What a disk in qcow2 that begins with `head` needs beside itself, in words; empty when nothing.

    It is read here and not by QEMU, which would open what the disk names."""
    head = head.ljust(_QCOW2_HEAD, b"\0")
    version, backing = struct.unpack_from(">IQ", head, 4)
    (encryption,) = struct.unpack_from(">I", head, 32)
    (features,) = struct.unpack_from(">Q", head, 72) if version >= _QCOW2_FEATURES else (0,)
    if backing:
        return "it stands on another file"
    if features & _QCOW2_DATA_FILE:
        return "its content is in another file"
    return "it is encrypted" if encryption else ""


def partitions(head: bytes) -> Iterator[tuple[int, int]]:
    """The partitions of a disk that begins with `head` (`HEAD` bytes), as (offset, length) in bytes."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        yield from _gpt(head)
    elif head[510:512] == b"\x55\xaa":
        for at in range(446, 510, 16):
            kind = head[at + 4]
            start, count = struct.unpack_from("<II", head, at + 8)
            if kind and kind not in _EXTENDED and count:
                yield start * SECTOR, count * SECTOR


def _gpt(head: bytes) -> Iterator[tuple[int, int]]:
    table, count, size = struct.unpack_from("<QII", head, SECTOR + 72)
    if size < _GPT_ENTRY:
        return
    for number in range(min(count, _GPT_ENTRIES)):
        at = table * SECTOR + number * size
        if at + _GPT_ENTRY > len(head):
            return
        if head[at : at + 16] != bytes(16):
            first, last = struct.unpack_from("<QQ", head, at + 32)
            yield first * SECTOR, (last - first + 1) * SECTOR


def make_sparse(path: Path, size: int) -> None:
    """An empty disk of `size` bytes."""
    with path.open("wb") as file:
        file.truncate(size)


def chunks(path: Path, offset: int = 0, length: int | None = None) -> Iterator[tuple[int, bytes]]:
    """What a file holds but zeros, from `offset` on, as (position from there, up to `_CHUNK` bytes).

    Holes are passed over without reading them.
    """
    zeros = bytes(_CHUNK)
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size if length is None else offset + length
        at = offset
        while at < end:
            data = _next_data(file.fileno(), at, end)
            if data >= end:
                return
            # Chunks begin at the same places however the holes lie.
            at = max(at, data - (data - offset) % _CHUNK)
            chunk = os.pread(file.fileno(), min(_CHUNK, end - at), at)
            if not chunk:
                return
            if chunk != zeros[: len(chunk)]:
                yield at - offset, chunk
            at += len(chunk)


def clone(source: Path, target: Path) -> None:
    """Copy a file with its holes; its bytes only where the file system cannot share them."""
    size, at = source.stat().st_size, 0
    if sys.platform != "linux":
        copy_sparse(source, target, 0, size)
        return
    with source.open("rb") as old, target.open("xb") as new:
        new.truncate(size)
        while at < size and (at := _next_data(old.fileno(), at, size)) < size:
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                done = os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)
                if not done:  # it became shorter
                    return
                at += done


def _next_data(file: int, at: int, size: int) -> int:
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole to the end
            return size
        raise


def copy_sparse(source: Path, target: Path, offset: int, length: int) -> None:
    """Copy `length` bytes from `offset` on to a new file, leaving holes where there are zeros."""
    with target.open("xb") as file:
        for position, chunk in chunks(source, offset, length):
            file.seek(position)
            file.write(chunk)
        file.truncate(length)
