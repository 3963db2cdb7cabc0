"""Limits on a whole family of processes, where this process may make cgroups (as root, mostly).

The kernel does not count the processes of root (`RLIMIT_NPROC`), so that for root this is the only
limit on their number. Where no cgroup can be made, nothing here has an effect. When this process
is killed, an empty cgroup of its own may stay behind.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from org.sandbox.limits import Limits

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@contextmanager
def cgroup(
    limits: Limits, stale: list[Path], root: Path = ROOT, own: Path = Path("/proc/self/cgroup")
) -> Iterator[list[Path]]:
    """New cgroups with `limits`, one for each hierarchy; their folders, perhaps none.

    Whoever writes itself into `cgroup.procs` of each is inside, with all it starts. They are
    removed at the end, when everybody inside has ended. The kernel may need a moment more to take
    the last one apart; such a folder joins `stale` and goes with the next call.
    """
    made: list[Path] = []
    waiting, stale[:] = stale[:], []
    _remove(waiting, stale)
    try:
        for parent, files in _parents(root, own.read_text()):
            folder = parent / f"org-{secrets.token_hex(6)}"
            with suppress(OSError):  # not ours to make: the limits of each process remain
                folder.mkdir()
                made.append(folder)
                for name, field in files.items():
                    (folder / name).write_text(str(getattr(limits, field)))
        yield made
    finally:
        _remove(made, stale)


def _remove(folders: list[Path], stale: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            stale.append(folder)


def _parents(root: Path, own: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folders to make a cgroup in, with the files to write and the limit that belongs there."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "pids":
            yield root / "pids" / path[1:], {"pids.max": "processes"}
        elif controllers == "memory":
            yield root / "memory" / path[1:], {"memory.limit_in_bytes": "memory"}
        elif not controllers:
            # Version 2: a cgroup with processes cannot hand limits down, so ours stands beside it.
            parent = (root / path[1:]).parent if path != "/" else root
            enabled = parent / "cgroup.subtree_control"
            if enabled.exists() and {"pids", "memory"} <= set(enabled.read_text().split()):
                yield parent, {"pids.max": "processes", "memory.max": "memory"}
