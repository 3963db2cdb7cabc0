"""Waiting for what tells nobody that it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 30.0


async def until(true: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Look again and again: at other processes, or at what the code under test keeps for itself."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 -- neither sets an event of ours
            await asyncio.sleep(0.01)
