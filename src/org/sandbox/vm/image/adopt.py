"""Makes an image of a root file system that the user brings: a tar, ext4, or a disk in qcow2 or raw."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import lzma
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from org.errors import EnvironmentProblem, UsageError
from org.sandbox.vm import accel, initramfs, qemu
from org.sandbox.vm.box import alone
from org.sandbox.vm.image import disk, recipe, stage, store
from org.sandbox.vm.image.store import Image, OnProgress, Progress
from org.sandbox.vm.layout import ImageFolder

_PLAIN = "given"  # what was packed, unpacked, in the folder where the image is made


async def import_image(cache: Path, path: Path, *, base: Image, on_progress: OnProgress) -> Image:
    """An image with the root file system in `path`, and the kernel of `base`, which this program made.

    `path` is only read: a tar, a file system of the ext family, or a disk with one, raw or qcow2. It needs
    Python 3.11 or newer, bash and useradd; accounts of a guest that are missing are made. Raises
    `UsageError` for a file that is none of these kinds, `EnvironmentProblem` when it cannot be used.
    """
    async with store.making(cache, f"imports {path.name}", on_progress):
        on_progress(Progress("reading the file"))
        digest = await asyncio.to_thread(_sum, path)
        key = hashlib.sha256(f"{digest} {base.key} {store.recipe_sum(base.arch)}".encode()).hexdigest()[:24]
        known = store.read_image(store.folder_of(cache, key))
        if known is not None:
            return known
        work = store.work_folder(cache, key)
        folder = ImageFolder(work)
        await asyncio.to_thread(_copy_boot, base.folder, folder)
        drives = await _drives(path, folder)
        modules = initramfs.modules(folder)
        initrd = stage.archive(folder.busybox.read_bytes(), modules, folder.mkfs.read_bytes(), "adopt")
        chosen = await accel.choose(cache, folder.kernel, base.arch)
        await stage.run(work, folder.kernel, initrd, drives, chosen, base.arch, _shown(on_progress))
        (work / _PLAIN).unlink(missing_ok=True)
        manifest = {
            "arch": base.arch,
            "made_at": time.time(),
            "packages": {},
            "recipe": f"imported {digest}",
            "signed": False,
        }
        return store.finish(work, cache, key, manifest)


def _sum(path: Path) -> str:
    """What identifies the content of a file, however its holes lie. Raises `UsageError`."""
    digest = hashlib.sha256()
    try:
        digest.update(b"%d" % path.stat().st_size)
        for position, chunk in disk.chunks(path):
            digest.update(b"%d:" % position + chunk)
        return digest.hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _copy_boot(base: ImageFolder, folder: ImageFolder) -> None:
    """What starts a guest, from an image that is there."""
    for name in (base.kernel.name, base.busybox.name, base.mkfs.name):
        shutil.copyfile(base.path / name, folder.path / name)
    shutil.copytree(base.modules, folder.modules)


async def _drives(path: Path, folder: ImageFolder) -> tuple[qemu.Drive, ...]:
    """Put the root in its place, or let it be made there from a tar. Raises `UsageError`."""
    root = qemu.Drive(str(folder.root), "raw")
    plain = folder.path / _PLAIN
    head = _head(path)
    if disk.is_qcow2(head):
        if refers := disk.qcow2_refers(head):
            raise UsageError(
                f"not a usable disk: {path}: {refers}",
                "`qemu-img convert -O qcow2 FILE NEW` makes a whole one",
            )
        await _convert(path, plain)
        path = plain
    found = _file_systems(path)
    if found:
        offset, length = max(found, key=lambda one: one[1])
        await asyncio.to_thread(disk.copy_sparse, path, folder.root, offset, length)
        return (root,)
    if path != plain and await asyncio.to_thread(_is_tar, path):
        given = await asyncio.to_thread(_unpacked, path, plain)
        disk.make_sparse(folder.root, recipe.SIZE)
        return root, qemu.Drive(str(given.absolute()), "raw", read_only=True)
    raise UsageError(
        f"neither a tar nor a disk with an ext4 file system: {path}",
        "`tar -C ROOT -cf FILE .` makes a tar of a root file system",
    )


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path) as tar:
            # Zeros pass for an empty one.
            return tar.next() is not None
    except tarfile.TarError:
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(disk.HEAD)


def _unpacked(path: Path, plain: Path) -> Path:
    """The tar itself, or an unpacked copy at `plain`."""
    with path.open("rb") as file:
        unpacking = _unpacking(file)
        if unpacking is None:
            return path
        with unpacking, plain.open("xb") as writing:
            shutil.copyfileobj(unpacking, writing)
    return plain


def _unpacking(file: BinaryIO) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | None:
    """What reads a packed file as if it were not, None when it is not."""
    head = file.read(8)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if head.startswith(b"\xfd7zXZ") else None


async def _convert(path: Path, plain: Path) -> None:
    """A disk in qcow2 as a plain one. Raises `EnvironmentProblem`, `UsageError`."""
    words = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(plain))
    try:
        # Whatever the disk makes of `qemu-img`, it sees that disk alone.
        process = await asyncio.create_subprocess_exec(
            *await alone(words, [path], [plain.parent]),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot start `qemu-img`: {error.strerror}", "`apt-get install qemu-utils`"
        ) from error
    _, said = await process.communicate()
    if process.returncode != 0:
        raise UsageError(f"not a usable disk: {path}: {said.decode(errors='replace').strip()}")


def _file_systems(path: Path) -> list[tuple[int, int]]:
    """The file system that a file is, or those of its partitions, as (offset, length) in bytes."""
    head = _head(path)
    if disk.is_ext(head):
        return [(0, path.stat().st_size)]
    found = []
    with path.open("rb") as file:
        for offset, length in disk.partitions(head):
            file.seek(offset)
            if disk.is_ext(file.read(disk.EXT_HEAD)):
                found.append((offset, length))
    return found


def _shown(on_progress: OnProgress) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        if stage.step(line):
            on_progress(Progress(stage.step(line)))

    return on_line
