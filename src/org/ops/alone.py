"""One supervisor per program: whoever holds the lock of its pid file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from org.errors import Busy
from org.ops.layout import Layout

_LOCK_S = 10.0  # one that is ending may take a moment to let go
_POLL_S = 0.05


@asynccontextmanager
async def alone(layout: Layout, held: int | None) -> AsyncIterator[int]:
    """Be the one supervisor of a program; `held` is the lock of the image before. Raises `Busy`."""
    if held is not None:
        os.set_inheritable(held, False)
        lock = held
    else:
        lock = os.open(layout.supervisor_pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if held is None:
            await _locked(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        yield lock
    finally:
        os.close(lock)


async def _locked(lock: int) -> None:
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                pid = os.pread(lock, 32, 0).decode().strip()
                raise Busy(f"a supervisor runs already: pid {pid}", "`org status` asks it") from None
        await asyncio.sleep(_POLL_S)
