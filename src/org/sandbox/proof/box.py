"""The wall around QEMU itself, looked at from outside: what its process may do and see, by the kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from org.sandbox.proof.report import Probe
from org.sandbox.vm.layout import MachineFolder

WALL = "box"
_PROC = Path("/proc")
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FILTERED = "2"
_VARIABLES = {"PATH", "LANG", "PWD"}
_OF_NO_DISK = ("tmpfs", "proc", "devpts", "mqueue", "devtmpfs")
_NAMESPACES = {"pid": "other processes", "net": "the network", "mnt": "files", "ipc": "shared memory"}

Said: TypeAlias = tuple[bool, str]


def look(supervisor: int | None, folder: Path) -> tuple[list[Probe], tuple[str, ...]]:
    """(What of the wall stands, by attempt; its names, for those that do). `supervisor` is the process
    that a machine lives in, `folder` the machine's, of which its QEMU may write to the disk alone.

    Nothing, where this is not told by /proc.
    """
    if not _PROC.joinpath("self", "ns").is_dir() or supervisor is None:
        return [], ()
    qemu = next(_below(supervisor), None)
    if qemu is None:
        return [Probe("process", WALL, "find QEMU", "inconclusive", "its process is not to be seen")], ()
    status = _status(qemu)
    looks: dict[str, tuple[str, Callable[[], Said]]] = {
        "box-user": ("is it root?", lambda: _user(qemu)),
        "box-capabilities": ("has it capabilities?", lambda: _capabilities(status)),
        "box-setuid": ("can it gain rights?", lambda: _no_more(status)),
        "box-seccomp": ("are its system calls filtered?", lambda: _filtered(status)),
        "box-devices": ("does it see network devices?", lambda: _devices(qemu)),
        "box-home": ("does it see your home?", lambda: _home(qemu, Path.home())),
        "box-writes": ("where can it write?", lambda: _writes(qemu, folder)),
        "box-environment": ("has it variables of yours?", lambda: _variables(qemu)),
    }
    for name, what in _NAMESPACES.items():
        looks[f"box-{name}"] = (f"does it share {what}?", lambda name=name: _namespace(qemu, name))  # type: ignore[misc]
    probes = [_probe(name, tried, made) for name, (tried, made) in looks.items()]
    return probes, _standing(probes, qemu)


def _probe(name: str, tried: str, made: Callable[[], Said]) -> Probe:
    try:
        held, detail = made()
    except OSError as error:
        return Probe(name, WALL, tried, "inconclusive", f"cannot be seen: {error.strerror}")
    return Probe(name, WALL, tried, "held" if held else "fell", detail)


def _standing(probes: list[Probe], qemu: int) -> tuple[str, ...]:
    held = {probe.name for probe in probes if probe.held}
    names = []
    around = {"box-devices", "box-home", "box-writes", "box-environment"}
    if {f"box-{name}" for name in _NAMESPACES} | around <= held:
        names.append("bubblewrap")
    if "box-seccomp" in held:
        names.append("seccomp")
    if {"box-user", "box-capabilities", "box-setuid"} <= held:
        names.append(f"uid {_inner(qemu)} in its namespace, without capabilities")
    return tuple(names)


def _below(pid: int) -> Iterator[int]:
    """The QEMUs among what that process started, and what these started."""
    for task in _PROC.joinpath(str(pid), "task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            if _PROC.joinpath(str(child), "comm").read_text().startswith("qemu"):
                yield child
            yield from _below(child)


def _status(pid: int) -> dict[str, str]:
    lines = _PROC.joinpath(str(pid), "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _inner(qemu: int) -> int:
    """Its user's number as it sees it itself: that of the one line of its own namespace's map."""
    inner, _, _ = _PROC.joinpath(str(qemu), "uid_map").read_text().split(maxsplit=2)
    return int(inner)


def _user(qemu: int) -> Said:
    lines = _PROC.joinpath(str(qemu), "uid_map").read_text().splitlines()
    if len(lines) != 1 or lines[0].split()[2] != "1":
        return False, "it may be any user"
    inner = _inner(qemu)
    own = os.stat(f"/proc/{qemu}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    if inner == 0 or not own:
        return False, f"uid {inner}, in a namespace of {'its own' if own else 'others'}"
    outer = _status(qemu)["Uid"].split()[0]
    return True, f"uid {inner} in a namespace of its own, uid {outer} outside"


def _capabilities(status: dict[str, str]) -> Said:
    for name in _CAPABILITIES:
        if int(status[name], 16):
            return False, f"{name} is {status[name]}"
    return True, "none, nor any to be had"


def _no_more(status: dict[str, str]) -> Said:
    held = status["NoNewPrivs"] == "1"
    return held, "no_new_privs is set" if held else "programs may gain rights by setuid"


def _filtered(status: dict[str, str]) -> Said:
    count = status.get("Seccomp_filters", "?")
    held = status["Seccomp"] == _FILTERED
    return held, f"by {count} filters" if held else f"no (mode {status['Seccomp']})"


def _namespace(qemu: int, name: str) -> Said:
    theirs = os.readlink(f"/proc/{qemu}/ns/{name}")
    held = theirs != os.readlink(f"/proc/self/ns/{name}")
    return held, f"no: {theirs}" if held else f"yes: {theirs} is this process's too"


def _devices(qemu: int) -> Said:
    lines = _PROC.joinpath(str(qemu), "net", "dev").read_text().splitlines()[2:]
    names = [line.partition(":")[0].strip() for line in lines]
    others = [name for name in names if name != "lo"]
    return not others, f"there is {', '.join(others)}" if others else "only lo"


def _home(qemu: int, home: Path) -> Said:
    """Folders that lead to a machine's own are there, with nothing else in them."""
    mounted = {Path(target) for target, _ in _mounts(qemu)}
    root = _PROC.joinpath(str(qemu), "root")
    for place in (home, Path("/root"), Path("/home")):
        with suppress(FileNotFoundError):
            for name in os.listdir(root / place.relative_to("/")):
                if not any(target.is_relative_to(place / name) for target in mounted):
                    return False, f"it sees {place / name}"
    return True, "nothing of it but what is the machine's"


def _writes(qemu: int, folder: Path) -> Said:
    """Each mount that can be written and is not in memory. The machine's copy of the memory that it was
    forked from is one: QEMU opens it for writing."""
    machine = MachineFolder(folder.resolve())
    own = {machine.overlay: "disk", machine.ram: "copy of its snapshot's memory"}
    places = [Path(target) for target, kind in _mounts(qemu, writable=True) if kind not in _OF_NO_DISK]
    others = [str(place) for place in places if place not in own and not place.is_relative_to("/dev")]
    if others:
        return False, f"in {', '.join(others)}"
    return True, "to the machine's " + " and ".join(own[place] for place in places if place in own)


def _variables(qemu: int) -> Said:
    """Its own, and those of whoever started it, which it may read too."""
    status = _status(qemu)
    for pid in (qemu, int(status["PPid"])):
        words = _PROC.joinpath(str(pid), "environ").read_bytes().split(b"\0")
        names = {word.partition(b"=")[0].decode(errors="replace") for word in words if word}
        if names - _VARIABLES:
            return False, f"there is {', '.join(sorted(names - _VARIABLES))}"
    return True, "none but where programs are"


def _mounts(qemu: int, *, writable: bool = False) -> list[tuple[str, str]]:
    """(Where, file system) of what is mounted in its namespace."""
    found = []
    for line in _PROC.joinpath(str(qemu), "mountinfo").read_bytes().rstrip(b"\n").split(b"\n"):
        before, _, after = line.partition(b" - ")
        target, options = before.split(b" ")[4:6]
        if not writable or b"rw" in options.split(b","):
            found.append((_path(target), os.fsdecode(after.split(b" ")[0])))
    return found


def _path(written: bytes) -> str:
    """A path as /proc writes it: of a byte that would end the field, three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) % 256]), written))
