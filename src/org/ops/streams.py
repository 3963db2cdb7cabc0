"""What several processes here wait for: a line, or the first of several things."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def read_line(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next object; None when the other side is gone, or says what is no object."""
    try:
        said = await reader.readuntil(b"\n")
        read = json.loads(said)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return None
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


async def first_of(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of them is done, or for so long; none of them is cancelled by it."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
