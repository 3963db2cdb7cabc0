"""Cgroups for the commands of a guest: what ends, bounds and measures a whole family of processes.

Version 2 does all of it; where its controllers are still with version 1, these hierarchies bound and
measure, and version 2 only ends. What the kernel at hand does not offer stands in `Groups.missing`.
Standard library only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

_RESERVE = 67_108_864  # bytes of memory that all commands together leave to the agent and the kernel


class Group:
    """The cgroups of one family. Who writes `0` to each of `entrances` is inside, with all it starts."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = folders  # hierarchy to folder; one folder may stand for several
        self.entrances: list[int] = []
        for folder in sorted(set(folders.values())):
            self.entrances.append(os.open(folder + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        self.events = -1
        if "v2" in folders:
            self.events = os.open(folders["v2"] + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)

    def kill(self) -> None:
        """End everybody inside. Without version 2 it has to be called until the group is empty."""
        if "v2" in self._folders:
            _write(self._folders["v2"] + "/cgroup.kill", "1")
            return
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def empty(self) -> bool:
        if self.events >= 0:
            return b"populated 0" in os.pread(self.events, 4096, 0)
        return not self._pids()

    def _pids(self) -> list[int]:
        return [
            int(pid) for folder in self._folders.values() for pid in _read(folder + "/cgroup.procs").split()
        ]

    def peak(self) -> int | None:
        """The most bytes of memory that the family had at once, where the kernel counts it."""
        folder = self._folders.get("memory", "")
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            with suppress(OSError):
                return int(_read(f"{folder}/{name}"))
        return None

    def out_of_memory(self) -> bool:
        """Whether somebody inside was ended for want of memory."""
        folder = self._folders.get("memory", "")
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                fields = dict(line.split() for line in _read(f"{folder}/{name}").splitlines())
                return int(fields.get("oom_kill", "0")) > 0
        return False

    def close(self) -> list[str]:
        """Remove it; the folders that somebody is still in."""
        for fd in (*self.entrances, *([self.events] if self.events >= 0 else [])):
            os.close(fd)
        return remove(sorted(set(self._folders.values())))


class Groups:
    """Makes groups below one of its own, see `base`. Made once by the agent, as root."""

    def __init__(self, mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> None:
        self._count = 0
        self.live = 0
        """Groups that were made and not dropped."""
        self._stale: list[str] = []
        name = f"org-{os.getpid()}"
        bases = {
            hierarchy: f"{parent}/{name}" for hierarchy, parent in _parents(_read(mounts), _read(own)).items()
        }
        self._bases = {hierarchy: base for hierarchy, base in bases.items() if _made(base)}
        if "v2" in self._bases:
            self._delegate(self._bases["v2"])
        self.missing = self._missing()

    def _delegate(self, base: str) -> None:
        """Hand the controllers of version 2 down to the groups of commands, where they are to be had."""
        for name in ("memory", "pids"):
            if name in self._bases:
                continue
            with suppress(OSError):
                _write(os.path.dirname(base) + "/cgroup.subtree_control", f"+{name}")
            with suppress(OSError):
                _write(base + "/cgroup.subtree_control", f"+{name}")
                self._bases[name] = base
        if self._bases.get("memory") == base:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            _write(base + "/memory.max", str(max(total // 2, total - _RESERVE)))

    def _missing(self) -> tuple[str, ...]:
        told = {
            "pids": "the number of a command's processes is not bounded",
            "memory": "a command's memory is neither bounded nor measured as a whole",
        }
        missing = [text for name, text in told.items() if name not in self._bases]
        if not self._bases:
            missing.append("processes that leave a command's session are not ended with it")
        return tuple(missing)

    def make(self, memory: int, pids: int) -> Group:
        """A new group with at most `memory` bytes and `pids` processes."""
        self._stale = remove(self._stale)
        self._count += 1
        folders = {hierarchy: f"{base}/{self._count}" for hierarchy, base in self._bases.items()}
        for folder in set(folders.values()):
            os.mkdir(folder)
        for name, value in (
            ("pids", {"pids.max": pids}),
            ("memory", {"memory.max": memory, "memory.swap.max": 0, "memory.oom.group": 1}),
            ("memory", {"memory.limit_in_bytes": memory}),
        ):
            if name in folders:
                for file, number in value.items():
                    _write_if_there(f"{folders[name]}/{file}", str(number))
        group = Group(folders)
        self.live += 1
        return group

    def drop(self, group: Group) -> None:
        """Remove a group; what the kernel has not taken apart yet goes the next time."""
        self.live -= 1
        self._stale += group.close()

    def end(self, agent: int) -> None:
        """End and remove what another agent, a process that has ended, had running."""
        for base in sorted(set(self._bases.values())):
            theirs = f"{os.path.dirname(base)}/org-{agent}"
            _write_if_there(theirs + "/cgroup.kill", "1")
            with suppress(FileNotFoundError):
                inside = [entry.path for entry in os.scandir(theirs) if entry.is_dir()]
                self._stale += remove([*inside, theirs])

    def close(self) -> None:
        remove([*self._stale, *sorted(set(self._bases.values()))])


def _parents(mounts: str, own: str) -> dict[str, str]:
    """Where groups can be made: `v2`, `pids`, `memory` to the folder of this very process."""
    places = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        place, (kind, _, options) = left.split()[4], right.split()
        if kind == "cgroup2":
            places["v2"] = place
        elif kind == "cgroup":
            places |= {name: place for name in ("pids", "memory") if name in options.split(",")}
    parents = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ["v2"]:
            if name in places:
                parents[name] = places[name] + path.rstrip("/")
    return parents


def remove(folders: list[str]) -> list[str]:
    """Remove empty cgroups, with those that were made in them; those that are not empty."""
    left = []
    for folder in folders:
        try:
            remove([entry.path for entry in os.scandir(folder) if entry.is_dir()])
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            left.append(folder)
    return left


def _made(folder: str) -> bool:
    try:
        os.mkdir(folder)
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_if_there(path: str, text: str) -> None:
    with suppress(FileNotFoundError):
        _write(path, text)
