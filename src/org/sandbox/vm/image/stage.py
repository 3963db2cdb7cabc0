"""The second stage: a guest makes, or adopts, the root file system."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from org.errors import EnvironmentProblem
from org.sandbox.vm import initramfs, qemu
from org.sandbox.vm.tied import tied

_DEADLINE_S = 1800.0
_MEMORY_MIB = 1024
_CHUNK = 4096
_LINE = 4096  # bytes of a line that are kept, its last
_SAID = "org-image: "


def archive(busybox: bytes, modules: Mapping[str, bytes], mkfs: bytes, configure: str) -> bytes:
    """The initramfs of a second stage that runs the script `configure` in the new root; `mkfs` is an
    archive with the program that makes file systems."""
    # The kernel unpacks one archive after the other.
    return mkfs + initramfs.pack(
        [
            *initramfs.base(busybox, modules),
            initramfs.file("init", initramfs.script("second_stage"), 0o755),
            initramfs.file("configure", initramfs.script(configure)),
            initramfs.file("accounts", initramfs.script("accounts")),
        ]
    )


async def run(
    work: Path,
    kernel: Path,
    initrd: bytes,
    drives: tuple[qemu.Drive, ...],
    accel: qemu.Accel,
    arch: str,
    on_line: Callable[[str], None],
) -> None:
    """Run a second stage on `drives` (the disk, and a tar to make it from) to its end; `on_line` gets
    what it says, line by line.

    Raises `EnvironmentProblem` with the last lines when it fails. Cancelling it ends the guest.
    """
    archive_path = work / "second.cpio"
    archive_path.write_bytes(initrd)
    spec = qemu.MachineSpec(
        kernel=str(kernel),
        initrd=str(archive_path),
        drives=drives,
        accel=accel,
        arch=arch,
        memory_mib=_MEMORY_MIB,
    )
    try:
        last = await asyncio.wait_for(_watch(qemu.argv(spec), on_line), _DEADLINE_S)
    except TimeoutError as error:
        raise EnvironmentProblem(f"the image was not ready after {_DEADLINE_S:g} s") from error
    finally:
        archive_path.unlink()
    if not any(line == f"{_SAID}done" for line in last):
        raise EnvironmentProblem("the image could not be made; its last words: " + " | ".join(last))


async def _watch(argv: list[str], on_line: Callable[[str], None]) -> deque[str]:
    """Run QEMU to its end; the last lines it said."""
    last: deque[str] = deque(maxlen=12)
    try:
        process = await asyncio.create_subprocess_exec(
            *tied(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot start `{argv[0]}`: {error.strerror}", "`apt-get install qemu-system-x86 qemu-utils`"
        ) from error
    output = process.stdout
    assert output is not None
    try:
        rest = b""
        while chunk := await output.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_LINE:]
            for raw in lines:
                line = _plain(raw)
                if line:
                    last.append(line)
                    on_line(line)
        await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return last


def _plain(raw: bytes) -> str:
    """A line of the console without what the firmware paints around it."""
    text = raw.decode("utf-8", "replace").strip()
    start = text.find(_SAID)
    return text[start:] if start > 0 else text


def step(line: str) -> str:
    """The step that a line announces, or nothing."""
    return line.removeprefix(f"{_SAID}step ") if line.startswith(f"{_SAID}step ") else ""
