"""A lock for things that must not interleave, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from org.errors import LockTimeout


class ChannelLock:
    """A first-in, first-out lock for the tasks of one event loop, with a deadline for each wait.

    Letting go hands the lock to the longest-waiting task directly, so that nobody who comes later can
    get in between. A waiter that is cancelled or times out leaves the queue; one that is cancelled at
    the moment it is handed the lock passes it on. `name` is what a `LockTimeout` says it waited for.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        # Whoever holds the lock is told apart by a token of its own: for one that had to wait, the
        # future it waited on. A stale release has another token and does nothing.
        self._holder: object | None = None
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def locked(self) -> bool:
        return self._holder is not None

    async def wait_for_lock(self, timeout_s: float | None = None) -> Callable[[], None]:
        """Wait for the lock, at most `timeout_s` seconds (None: for ever), and answer with what lets
        go of it. Letting go twice is harmless. Raises `LockTimeout`."""
        if self._holder is None:
            token = object()
            self._holder = token
            return partial(self._let_go, token)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = None if timeout_s is None else loop.call_later(timeout_s, self._expire, waiter)
        try:
            granted = await waiter
        except asyncio.CancelledError:
            if self._holder is waiter:
                self._let_go(waiter)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise LockTimeout(f"not free after {timeout_s:g} s: {self._name or 'a lock'}")
        return partial(self._let_go, waiter)

    @asynccontextmanager
    async def hold(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        """Hold the lock for the block. Raises `LockTimeout` before it."""
        release = await self.wait_for_lock(timeout_s)
        try:
            yield
        finally:
            release()

    def _let_go(self, token: object) -> None:
        if self._holder is not token:
            return
        self._holder = None
        while self._waiting:
            waiter = self._waiting.popleft()
            # A waiter whose task was cancelled a moment ago is still in the queue until that task runs.
            if not waiter.done():
                self._holder = waiter
                waiter.set_result(True)
                return

    def _expire(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self._waiting.remove(waiter)
            waiter.set_result(False)
