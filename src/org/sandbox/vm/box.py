"""A second wall around QEMU itself, for a guest that breaks out of the first."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from org.sandbox.vm.environment import bare

_NOBODY = "65534"
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# QEMU's own: no program is started, no right gained, no call of the past made.
_SECCOMP = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


async def boxed(
    argv: Sequence[str], reads: Sequence[Path], writes: Sequence[Path], *, kvm: bool
) -> tuple[list[str], tuple[str, ...]]:
    """(QEMU's command line behind the walls that can be had here, their names).

    It then sees the system's programs, and `reads` and `writes`, folders or files that are there; only
    to `writes` it can write. No network, no other process, and no variable but `PATH`.
    """
    words, walls = list(argv), []
    if sys.platform == "linux":
        words += _SECCOMP
        walls.append("seccomp")
    front = await _working_front(argv[0], reads, writes, kvm=kvm)
    return [*front, *words], (*walls, "box") if front else tuple(walls)


def lacking(walls: Sequence[str]) -> str:
    """What is missing among the walls of a machine that is up, in words; empty when nothing that could be
    had on such a system."""
    if sys.platform != "linux" or "box" in walls:
        return ""
    return "bubblewrap around QEMU: `bwrap` is not there, or does not work here"


async def alone(argv: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]) -> list[str]:
    """The command line of a tool of QEMU, which then sees just as little where that can be had."""
    return [*await _working_front(argv[0], reads, writes, kvm=False), *argv]


async def _working_front(
    program: str, reads: Sequence[Path], writes: Sequence[Path], *, kvm: bool
) -> list[str]:
    """What goes before the program, or nothing when that does not work here."""
    front = _front(reads, writes, kvm=kvm)
    return front if front and await _works([*front, program, "--version"]) else []


def _front(reads: Sequence[Path], writes: Sequence[Path], *, kvm: bool) -> list[str]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return []
    words = [bwrap, "--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--clearenv", "--setenv", "PATH", _PATH]
    for name in _SYSTEM:
        words += ["--ro-bind-try", name, name]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    if kvm:
        words += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    for path in reads:
        words += ["--ro-bind", str(path), str(path)]
    for path in writes:
        words += ["--bind", str(path), str(path)]
    return [*words, "--chdir", "/", "--"]


async def _works(argv: Sequence[str]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=bare(),
    )
    return await process.wait() == 0
