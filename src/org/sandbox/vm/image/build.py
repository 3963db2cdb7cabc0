"""Makes an image of this program's own recipe: packages are fetched and unpacked here, and configured
by a guest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.request import OpenerDirector

from org.errors import EnvironmentProblem
from org.sandbox.vm import accel, initramfs, layout, qemu
from org.sandbox.vm.image import archive, disk, fetch, parts, recipe, stage, store
from org.sandbox.vm.image.fetch import Stopped, Wanted
from org.sandbox.vm.image.index import Package, closure, newest
from org.sandbox.vm.image.store import Image, OnProgress, Progress
from org.sandbox.vm.image.unpack import RootTar
from org.sandbox.vm.layout import ImageFolder

_REPORT_S = 0.2


def _ignored(progress: Progress) -> None:
    """Nobody looks."""


async def build_image(
    cache: Path,
    *,
    mirror: str | None = None,
    arch: str | None = None,
    on_progress: OnProgress = _ignored,
    refresh: bool = False,
) -> Image:
    """The image for `arch` (as in `uname -m`, default this machine's), made when it is not there.

    `cache` is the user's cache folder of this program. With `refresh` the archive is asked for newer
    packages even if there is an image. An interrupted call may be repeated: what was fetched is kept.
    Raises `EnvironmentProblem`. On `aarch64` the same code was never tried.
    """
    arch = arch or os.uname().machine
    if arch not in recipe.DEBIAN_ARCH:
        known = ", ".join(recipe.DEBIAN_ARCH)
        raise EnvironmentProblem(f"no image can be made for `{arch}`", f"known: {known}")
    image = None if refresh else store.find_image(cache, arch)
    if image is not None:
        return image
    async with store.making(cache, "makes an image", on_progress):
        image = None if refresh else store.find_image(cache, arch)
        return image or await _build(cache, mirror, arch, on_progress)


async def _build(cache: Path, mirror: str | None, arch: str, on_progress: OnProgress) -> Image:
    debian = recipe.DEBIAN_ARCH[arch]
    on_progress(Progress("reading the archive's index"))
    opener = fetch.opener(await archive.proxies())
    index, signed = await archive.read(archive.sources(mirror), debian, opener)
    wanted = (*recipe.WANTED, recipe.BUSYBOX, recipe.kernel(debian))
    chosen = closure(newest(index), wanted, recipe.WITHOUT)
    key = _key(arch, chosen)
    known = store.read_image(ImageFolder(layout.images(cache) / key))
    if known is not None:
        return known
    debs = await _fetch(cache, chosen, opener, on_progress)
    work = store.work_folder(cache, key)
    folder = ImageFolder(work)
    total = len(chosen)
    on_progress(Progress("unpacking", packages_total=total))
    tar = work / "root.tar"
    modules = await asyncio.to_thread(_unpack, debs, folder, tar)
    on_progress(Progress("looking for an accelerator", packages_total=total))
    chosen_accel = await accel.choose(cache, folder.kernel, arch)
    initrd = stage.archive(folder.busybox.read_bytes(), modules, folder.mkfs.read_bytes(), "configure")
    disk.make_sparse(folder.root, recipe.SIZE)
    watch = _Configuring(sum(map(_in_root, debs)), on_progress)
    drives = (qemu.Drive(str(folder.root), "raw"), qemu.Drive(str(tar), "raw", read_only=True))
    await stage.run(work, folder.kernel, initrd, drives, chosen_accel, arch, watch.line)
    tar.unlink()
    manifest = {
        "arch": arch,
        "made_at": time.time(),
        "packages": {package.name: package.version for package in chosen},
        "recipe": store.recipe_sum(arch),
        "sha256": {package.name: package.sha256 for package in chosen},
        "signed": signed,
    }
    return store.finish(work, cache, key, manifest)


def _key(arch: str, chosen: Iterable[Package]) -> str:
    lines = [store.recipe_sum(arch)]
    lines += [f"{package.name} {package.version} {package.sha256}" for package in chosen]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


async def _fetch(
    cache: Path, chosen: list[Package], opener: OpenerDirector, on_progress: OnProgress
) -> dict[str, Path]:
    """The packages as files, by name."""
    folder = layout.packages(cache)
    debs = {package.name: folder / f"{package.sha256}.deb" for package in chosen}
    files = [
        Wanted(f"{package.base}/{package.path}", package.size, package.sha256, debs[package.name])
        for package in chosen
    ]
    # The threads only count; what is shown is told from here.
    lock = threading.Lock()
    counted = {"bytes": 0, "packages": 0}

    def count(size: int, whole: bool) -> None:
        with lock:
            counted["bytes"] += size
            counted["packages"] += whole

    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(fetch.fetch_all, files, opener, count, stop))
    started, total = time.monotonic(), sum(package.size for package in chosen)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_REPORT_S)
            done = counted["bytes"]
            seconds = time.monotonic() - started
            left = seconds * (total - done) / done if done else None
            on_progress(Progress("fetching", done, total, counted["packages"], len(chosen), left))
        await task
    finally:
        stop.set()
        await asyncio.wait([task])
        # Of a call that is cancelled, the error of a thread that was stopped is nobody's.
        stopped = task.exception()
        if stopped is not None and not isinstance(stopped, Stopped | EnvironmentProblem):
            raise stopped
    return debs


def _unpack(debs: Mapping[str, Path], folder: ImageFolder, tar: Path) -> dict[str, bytes]:
    """Write the tar of the root, and the parts that start a guest; the modules for the initramfs."""
    kernel, modules = parts.kernel(debs[_kernel_name(debs)])
    with RootTar(tar, recipe.MTIME) as root:
        for name in recipe.FOLDERS:
            root.folder(name)
        for name, path in debs.items():
            if _in_root(name):
                root.add(path, "installed" if name in recipe.CONFIGURED else "unpacked")
        parts.add_modules(root, modules, recipe.ROOT_MODULES)
        for name, (text, mode) in recipe.FILES.items():
            root.file(name, text.encode(), mode)
    boot = parts.in_order(modules, recipe.BOOT_MODULES)
    folder.kernel.write_bytes(kernel)
    folder.busybox.write_bytes(parts.busybox(debs[recipe.BUSYBOX]))
    mkfs = parts.mkfs(debs[name] for name in recipe.MKFS)
    folder.mkfs.write_bytes(initramfs.pack(mkfs))
    folder.modules.mkdir()
    for file_name, content in boot.items():
        (folder.modules / file_name).write_bytes(content)
    (folder.modules / "order").write_text("".join(f"{name}\n" for name in boot))
    return boot


def _in_root(name: str) -> bool:
    """Whether a package is part of the root, and not only of what starts a guest."""
    return not name.startswith("linux-") and name != recipe.BUSYBOX


def _kernel_name(names: Iterable[str]) -> str:
    """The package that holds the kernel; its name has the version that another one only points at."""
    return max((name for name in names if name.startswith("linux-image-")), key=len)


class _Configuring:
    """Tells how far a second stage is by what it says."""

    def __init__(self, packages: int, on_progress: OnProgress) -> None:
        self._packages = packages
        self._on_progress = on_progress
        self._done = 0
        self._what = "starting a guest"
        self._since = time.monotonic()

    def line(self, line: str) -> None:
        step = stage.step(line)
        if step:
            self._what, self._since = step, time.monotonic()
        elif line.startswith("Setting up "):
            self._done += 1
        else:
            return
        seconds = time.monotonic() - self._since
        left = seconds * (self._packages - self._done) / self._done if self._done else None
        self._on_progress(
            Progress(self._what, packages_done=self._done, packages_total=self._packages, seconds_left=left)
        )
