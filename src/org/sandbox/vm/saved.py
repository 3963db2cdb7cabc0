"""States of machines on the disk: what tells whether one can be gone on from, and which are kept.

A state is a folder with a manifest that is written last. It fits one machine only: the `key` is made
of all that must be the same when it is read again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from org.sandbox.vm import qemu
from org.sandbox.vm.layout import ImageFolder, StateFolder
from org.sandbox.vm.qemu import MachineSpec, Memory

KEPT = 2
"""States, and images, that are kept though nobody uses them: the newest ones."""

_FORMAT = 1
_CPU_INFO = Path("/proc/cpuinfo")


def key_of(spec: MachineSpec, image: ImageFolder, initrd: bytes, qemu_version: str) -> str:
    """What machines have in common that can go on from the same state."""
    alike = replace(
        spec,
        kernel="",
        initrd="",
        qmp=-1,
        memory=Memory(),
        incoming=False,
        drives=tuple(replace(drive, path="") for drive in spec.drives),
        ports=tuple(replace(port, fd=-1) for port in spec.ports),
    )
    processor = "" if spec.accel == "tcg" else _processor()
    texts = [str(_FORMAT), str(image.path), qemu_version, processor, *qemu.argv(alike)]
    return hashlib.sha256("\0".join(texts).encode() + b"\0" + initrd).hexdigest()[:24]


def _processor() -> str:
    """This machine's: a guest that runs on it has seen what it can."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def seal(state: StateFolder, key: str, disk: Path | None = None) -> None:
    """Declare what is in the folder complete, once it is on the disk. `disk` is what belongs to it and
    lies elsewhere."""
    files: dict[str, Any] = {}
    for path in sorted(state.path.iterdir()):
        settle(path)
        files[path.name] = _mark(path)
    beside = _mark(disk) if disk else None
    write(state.manifest, json.dumps({"key": key, "files": files, "disk": beside}) + "\n")


def write(path: Path, text: str) -> None:
    """A small file that is there whole or as it was before, even after this machine lost its power."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")  # others may write it just now
    try:
        part.write_text(text)
        put(part, path)
    finally:
        part.unlink(missing_ok=True)


def drafted(path: Path) -> Path:
    """Where its only writer makes the file that becomes the one at `path` by `put`."""
    return path.with_name(f".{path.name}")


def put(draft: Path, path: Path) -> None:
    settle(draft)
    draft.replace(path)


def settle(path: Path) -> None:
    """Have a file on the disk, where QEMU left it to the system."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flaw(state: StateFolder, key: str, disk: Path | None = None) -> str:
    """Why it cannot be gone on from, as the end of a sentence; empty when it can. `disk` as for `seal`."""
    try:
        manifest = json.loads(state.manifest.read_text())
        if manifest["key"] != key:
            return "QEMU, its options, the image or this program are not as they were"
        for name, mark in manifest["files"].items():
            if _mark(state.path / name) != mark:
                return f"`{name}` was changed since it was saved"
        if disk and _mark(disk) != manifest["disk"]:
            return "its disk was changed since it was saved"
    except FileNotFoundError:
        return "it is not complete"
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return "it cannot be read"
    return ""


def _mark(path: Path) -> list[int]:
    """Size and time of the last change, of whatever kind; nobody but the kernel can set the latter."""
    info = path.stat()
    return [info.st_size, info.st_ctime_ns]


def use_up(state: StateFolder) -> None:
    """Remove it such that it does not come back, not even after this machine lost its power."""
    state.manifest.unlink()
    folder = os.open(state.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    remove(state.path)


def remove(folder: Path) -> None:
    """With all that is in it, if it is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextmanager
def held(manifest: Path) -> Iterator[bool]:
    """Keep the folder of a manifest from being removed by `prune`; whether it is there."""
    try:
        lock = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield os.fstat(lock).st_nlink > 0
    finally:
        os.close(lock)


def prune(folder: Path, spared: Callable[[Path], bool]) -> list[Path]:
    """Remove what is not spared, not held, and not of the newest `KEPT`; the folders that are gone."""
    found = []
    for manifest in folder.glob("[!.]*/manifest.json"):
        with suppress(FileNotFoundError):
            found.append((manifest.stat().st_mtime_ns, manifest))
    old = [manifest for _, manifest in sorted(found, reverse=True)[KEPT:]]
    return [one.parent for one in old if not spared(one.parent) and _removed(one)]


def _removed(manifest: Path) -> bool:
    try:
        lock = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        manifest.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(lock)
    shutil.rmtree(manifest.parent)
    return True
