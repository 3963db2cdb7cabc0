"""One lock for all that changes something of a program: whoever holds it is the only writer.

It is a lock of the kernel on an open file, so it ends with its holder however that ends. The Git commands
that the holder runs inherit it: one that outlives a killed holder keeps the lock until it has ended, so
nobody tidies up while it still writes. A server must not inherit it, or it would hold it for life.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from org.errors import Busy
from org.ops.layout import Layout

_ORPHAN_S = 20.0
_PAUSE_S = 0.02


@contextmanager
def hold(layout: Layout, purpose: str) -> Iterator[int]:
    """Hold the lock for the block; gives the open file's number. Raises `Busy`, which names the holder.

    When the holder is dead, what it was running is waited for. Holding it twice is being busy.
    """
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {purpose}\n".encode(), 0)
        try:
            yield fd
        finally:  # said, for a program that was just started may for a moment have the file open still
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _take(fd: int) -> None:
    deadline = time.monotonic() + _ORPHAN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, purpose = _holder(fd)
            if _lives(pid) or time.monotonic() > deadline:
                raise Busy(
                    f"`org {purpose}` is at work here: process {pid}", "try again when it has ended"
                ) from None
            time.sleep(_PAUSE_S)
        else:
            return


def _holder(fd: int) -> tuple[int, str]:
    """Who wrote its name last: the holder, unless it has only just begun."""
    pid, _, purpose = os.pread(fd, 200, 0).decode(errors="replace").strip().partition(" ")
    return int(pid) if pid.isdecimal() else 0, purpose or "…"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
