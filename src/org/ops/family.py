"""The processes that descend from one: kept together, limited, and ended to the last.

A process that forks twice, leaves its session and clears its environment is still found: whatever loses
its parent becomes a child of the nearest ancestor that asked for it, which is the generation's keeper.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import stat
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "cand"
"""Under whose name candidates run, where there is such a user and we may become them."""
CURRENT = "org"
"""Under whose name current runs in a machine, where the verbs are root's."""
MOST_PROCESSES = 256
"""Processes and threads of a candidate at once."""
SWEEP_S = 5.0
"""A process that is killed may hang in the kernel; nobody waits longer for it."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS
_FREEZE_ROUNDS = 50
_WAIT_S = 0.01
_GIB = 1 << 30
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    home: str = ""


def adopt_orphans() -> None:
    """From now on, what descends from this process and loses its parent becomes its child."""
    _prctl(_SUBREAPER)


def stay_who_we_are() -> None:
    """From now on, no set-user-id program makes somebody else of this process."""
    _prctl(_NO_NEW_PRIVS)


def _prctl(option: int) -> None:
    if _LIBC.prctl(option, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


# -- who it runs as, and how much it may have


def account_for(paths: Iterable[Path], name: str = ACCOUNT) -> tuple[Account | None, str]:
    """That user, for a generation that has to read these paths; None means as we do, and why."""
    if os.geteuid() != 0:
        return None, "only root can start it under another user"
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None, f"there is no user `{name}`"
    account = Account(found.pw_uid, found.pw_gid, found.pw_dir)
    for path in paths:
        for part in reversed((path, *path.parents)):
            if not _may_enter(part, account):
                return None, f"`{name}` may not read {part}"
    return account, ""


def _may_enter(path: Path, account: Account) -> bool:
    found = path.stat()
    bits = stat.S_IMODE(found.st_mode)
    if found.st_uid == account.uid:
        bits >>= 6
    elif found.st_gid == account.gid:
        bits >>= 3
    # A folder on the way has to be entered, a program to be run.
    return bool(bits & 1)


def limits_for(account: Account | None) -> dict[str, int]:
    """The limits of a candidate, by their names in `resource`. Without a user of its own, what the user
    runs already counts as processes too."""
    running = 0 if account else _tasks_of(os.getuid())
    return {
        "RLIMIT_NPROC": running + MOST_PROCESSES,
        "RLIMIT_DATA": 4 * _GIB,
        "RLIMIT_FSIZE": 2 * _GIB,
        "RLIMIT_CORE": 0,
    }


def set_limits(limits: Mapping[str, int]) -> None:
    """For this process and its children, never above what holds already."""
    for name, wanted in limits.items():
        number = getattr(resource, name)
        _, most = resource.getrlimit(number)
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(number, (value, value))


def _tasks_of(uid: int) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if process.stat().st_uid == uid:
                count += len(os.listdir(process / "task"))
    return count


# -- who there is


def descendants(pid: int, spared: Set[int] = frozenset()) -> set[int]:
    """The living processes below `pid`, but for the spared and what is below them. A process that has ended
    and was not waited for is none."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in spared:
            with suppress(OSError):
                state, parent = _state(int(name))
                if state not in "ZX":
                    parents[int(name)] = parent
    found: set[int] = set()
    grown = True
    while grown:
        below = {child for child, parent in parents.items() if parent == pid or parent in found}
        grown = not below <= found
        found |= below
    return found


def _state(pid: int) -> tuple[str, int]:
    """The state and the parent of a process. Raises `OSError` when there is none."""
    fields = _stat(pid)
    return fields[0], int(fields[1])


def began(pid: int) -> int:
    """When a process began, in ticks since the boot: with its pid it is that process and no other.
    0 when there is none."""
    try:
        return int(_stat(pid)[19])
    except OSError:
        return 0


def _stat(pid: int) -> list[str]:
    """The fields of a process from its state on; its name, before them, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


# -- the end


def sweep(root: int, spared: Set[int] = frozenset()) -> int:
    """Kill everything that descends from a process, but for the spared and what is below them, and wait until
    it has ended; how many are left after all.

    They are frozen first: what runs on could have more children than are killed meanwhile.
    """
    frozen: set[int] = set()
    for _ in range(_FREEZE_ROUNDS):
        fresh = descendants(root, spared) - frozen
        if not fresh:
            break
        _signal(fresh, signal.SIGSTOP)
        frozen |= fresh
    deadline = time.monotonic() + SWEEP_S
    while left := descendants(root, spared):
        if time.monotonic() > deadline:
            break
        _signal(left, signal.SIGKILL)
        time.sleep(_WAIT_S)
    return len(left)


def reap() -> dict[int, int]:
    """Wait for children that have ended: their exit codes by pid, negative for a signal."""
    ended = {}
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # what is not ours to end is left, and counted
            os.kill(pid, number)
