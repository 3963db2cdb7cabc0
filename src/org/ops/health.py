"""How a generation says that it is well: one `GET` over a socket, small and soon answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

ANSWER_S = 5.0
"""Whoever takes longer for an answer is not well."""
_MOST_BYTES = 65_536


async def ask_privately(path: str) -> dict[str, str | int]:
    """The texts and numbers that a generation says on its private socket: {} when it does not answer, or
    not with an object. Whatever it says, it is no more than that."""
    status, body = await _ask(asyncio.open_unix_connection(path), "/health")
    try:
        read = json.loads(body) if status == 200 else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(read, dict):
        return {}
    return {name: value for name, value in read.items() if isinstance(value, str | int)}


async def is_well(port: int, target: str) -> bool:
    """Whether what listens on a port of this host answers with 200."""
    status, _ = await _ask(asyncio.open_connection("127.0.0.1", port), target)
    return status == 200


async def _ask(connecting: Any, target: str) -> tuple[int, bytes]:
    """Status and body, (0, b"") without an answer."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await connecting
            try:
                writer.write(
                    f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                return int(head.split()[1]), await _body(reader, head.lower())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, IndexError, asyncio.IncompleteReadError):
        return 0, b""
    except asyncio.LimitOverrunError:  # a head without an end
        return 0, b""


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    for field in head.split(b"\r\n"):
        name, _, value = field.partition(b":")
        if name == b"content-length":
            return await reader.readexactly(min(int(value), _MOST_BYTES))
    return await reader.read(_MOST_BYTES)
