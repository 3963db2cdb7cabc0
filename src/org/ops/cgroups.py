"""In a machine: what keeps a generation that eats memory from taking all the others along.

Whoever starts generations there is in a cgroup that the machine's agent has made and bounded. It moves aside
in it, with its like, and each generation is started in a group of its own beside them: one that wants more
than its share is ended whole, and those who watch over it live. Elsewhere nothing is done: there, who may
make groups is not ours to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from org.ops import place

_ASIDE = "keep"
_LAST, _FIRST = -900, 500
"""Who is ended last, and who first, when it is not a single one who wants too much."""
_GONE_S = 2.0
_POLL_S = 0.01


def move_aside() -> None:
    """Have this process, and all in its group, beside the generations that it is to start."""
    own = _own()
    if own is None or own.name == _ASIDE:
        return
    aside = own / _ASIDE
    aside.mkdir(exist_ok=True)
    while pids := (own / "cgroup.procs").read_text().split():  # one may just be starting another
        for pid in pids:
            with suppress(ProcessLookupError, FileNotFoundError):  # it has ended
                (aside / "cgroup.procs").write_text(pid)
                _rank(pid, _LAST)
    (own / "cgroup.subtree_control").write_text("+memory")
    (own / "memory.oom.group").write_text("0")


def join(pid: int) -> None:
    """Be where that process is from now on, and end as late: in a machine, what a verb started ends with
    the group of the verb."""
    _, _, group = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")
    Path(f"/sys/fs/cgroup{group}/cgroup.procs").write_text(str(os.getpid()))
    _rank("self", _LAST)


@contextmanager
def bounded(name: str, share: float, *, first: bool) -> Iterator[None]:
    """What is started in the block is in a group called so, and has that share of the memory of who starts
    it. `first` are those who are ended before others."""
    leaf = _beside(name)
    if leaf is None:
        yield
        return
    leaf.mkdir()
    whole = (leaf.parent / "memory.max").read_text().strip()
    if whole.isdecimal():
        (leaf / "memory.max").write_text(str(int(int(whole) * share)))
    (leaf / "memory.oom.group").write_text("1")
    before = Path("/proc/self/oom_score_adj").read_text()
    (leaf / "cgroup.procs").write_text("0")
    _rank("self", _FIRST if first else 0)
    try:
        yield
    finally:
        (leaf.parent / _ASIDE / "cgroup.procs").write_text("0")
        _rank("self", int(before))


def close(name: str) -> str:
    """Remove the group of a generation that has ended; what it was bounded to when that ended it, or
    nothing."""
    leaf = _beside(name)
    if leaf is None or not leaf.is_dir():
        return ""
    events = dict(line.split() for line in (leaf / "memory.events").read_text().splitlines())
    most = (leaf / "memory.max").read_text().strip()
    deadline = time.monotonic() + _GONE_S
    while (leaf / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    with suppress(OSError):  # somebody hangs in there: it goes with the group around it
        leaf.rmdir()
    killed = int(events.get("oom_kill", "0")) > 0
    return f"{int(most) >> 20} MiB of memory" if killed and most.isdecimal() else "memory" * killed


def _beside(name: str) -> Path | None:
    own = _own()
    return own.parent / name if own is not None and own.name == _ASIDE else None


def _own() -> Path | None:
    """The group of this process, where groups can be made in it."""
    if not place.in_guest():
        return None
    _, _, group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")
    own = Path(f"/sys/fs/cgroup{group}")
    with suppress(OSError):
        if "memory" in (own / "cgroup.controllers").read_text().split() and os.access(own, os.W_OK):
            return own
    return None


def _rank(pid: str, number: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(number))
