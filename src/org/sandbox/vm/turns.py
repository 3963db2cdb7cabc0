"""One process at a time does a thing; the others wait, and say for what."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

_POLL_S = 0.1


@asynccontextmanager
async def turn(path: Path, what: str, on_wait: Callable[[str], None]) -> AsyncIterator[None]:
    """Be the only one who holds the file `path`, which is made. Who holds it meanwhile is told to
    `on_wait`; `what` is what others are then told of this process."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told = ""
        while not _locked(lock):
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            if holder != told:
                on_wait(f"waiting for another process: {holder}")
                told = holder
            await asyncio.sleep(_POLL_S)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{what} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
