"""Which accelerator really works here: a kernel must start under it and say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from org.errors import EnvironmentProblem
from org.sandbox.vm import initramfs, qemu
from org.sandbox.vm.environment import bare
from org.sandbox.vm.qemu import Accel, MachineSpec
from org.sandbox.vm.tied import tied

PROBE_S = 8.0
# What the kernel prints early: firmware that answers, and a device that opens, prove nothing.
_LINE = b"Linux version "
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_KVM = Path("/dev/kvm")


async def choose(cache: Path, kernel: Path, arch: str) -> Accel:
    """The fastest accelerator that works for guests of `arch`. A verdict holds until the host
    boots again or has another QEMU. Raises `EnvironmentProblem` when there is no QEMU."""
    version = await qemu_version(arch)
    candidate = _candidate(arch)
    if candidate is None:
        return "tcg"
    this = {"accel": candidate, "boot": _boot_id(), "qemu": version, "arch": arch}
    path = cache / "accel.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = json.loads(path.read_text())
        if {name: known.get(name) for name in this} == this:
            return candidate if known.get("works") is True else "tcg"
    works = await works_with(candidate, kernel, arch)
    cache.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(this | {"works": works}) + "\n")
    return candidate if works else "tcg"


async def works_with(accel: Accel, kernel: Path, arch: str, seconds: float = PROBE_S) -> bool:
    """Whether the kernel says its first line within `seconds` under `accel`."""
    with tempfile.TemporaryDirectory(prefix="org-") as folder:
        initrd = Path(folder, "initrd")
        initrd.write_bytes(initramfs.pack([]))
        spec = MachineSpec(
            kernel=str(kernel),
            initrd=str(initrd),
            accel=accel,
            arch=arch,
            memory_mib=256,
            append="ignore_loglevel",
        )
        process = await asyncio.create_subprocess_exec(
            *tied(qemu.argv(spec)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=bare(),
        )
        output = process.stdout
        assert output is not None
        try:
            return await asyncio.wait_for(_seen(output), seconds)
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _seen(output: asyncio.StreamReader) -> bool:
    said = b""
    while chunk := await output.read(4096):
        said += chunk
        if _LINE in said:
            return True
    return False


def _candidate(arch: str) -> Accel | None:
    """What could be faster than emulation, if it works."""
    host = os.uname()
    if host.machine.replace("arm64", "aarch64") != arch:
        return None
    if host.sysname == "Darwin":
        return "hvf"
    return "kvm" if os.access(_KVM, os.R_OK | os.W_OK) else None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux: the verdict holds for this kernel
        return " ".join(os.uname())


async def qemu_version(arch: str) -> str:
    """What the QEMU for guests of `arch` says that it is. Raises `EnvironmentProblem`."""
    name = qemu.program(arch)
    try:
        process = await asyncio.create_subprocess_exec(
            *(name, "--version"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=bare(),
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot start `{name}`: {error.strerror}", f"`{install_hint(arch)}`"
        ) from error
    said, _ = await process.communicate()
    return said.decode(errors="replace").splitlines()[0] if said else ""


async def check_programs(arch: str) -> None:
    """Raises `EnvironmentProblem` when a program is missing that a machine is made with."""
    await qemu_version(arch)
    if shutil.which("qemu-img") is None:
        raise EnvironmentProblem("there is no `qemu-img`", f"`{install_hint(arch)}`")


def install_hint(arch: str) -> str:
    """What to type when QEMU is missing."""
    return f"apt-get install qemu-system-{'arm' if arch == 'aarch64' else 'x86'} qemu-utils"


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)
