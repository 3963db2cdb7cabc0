"""One question to one generation, over HTTP, within a time that nothing it does can stretch.

What it says is cleaned here, once: what comes from here can be counted, written to a file and shown.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from org.ops import plain
from org.ops.fitness.rules import Ask
from org.ops.listener import HOST

MOST_BYTES = 4 << 20
"""A longer answer is none."""
MOST_TOKENS = 10**9
"""Of one answer; who says more says nothing."""
_NO_ENDPOINT = frozenset({502, 503})
_SHOWN = 200

Kind: TypeAlias = Literal["answered", "endpoint", "late", "broken"]


@dataclass(frozen=True, slots=True)
class Reply:
    """`endpoint` is when it says that its model server has failed; `why` says what was wrong otherwise.
    `tokens` is None when it does not say."""

    kind: Kind
    seconds: float
    text: str = ""
    thoughts: str = ""
    tokens: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a generation answers; `token` may be empty."""

    port: int
    ask: Ask
    token: str = ""


class Late(Exception):
    """There was no whole answer in time."""


def put(door: Door, prompt: str, *, seed: int, seconds: float, system: str = "", **more: object) -> Reply:
    """Ask it. Whatever it does, this returns."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    body = {"model": door.ask.model, "seed": seed, "messages": messages, **more}
    began = time.monotonic()
    try:
        status, data = request(door, "POST", door.ask.path, body, seconds)
    except Late:
        return Reply("late", time.monotonic() - began, why=f"no answer within {seconds:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply("broken", time.monotonic() - began, why=_line(f"{type(error).__name__}: {error}"))
    return read(status, data, time.monotonic() - began)


def read(status: int, data: bytes, seconds: float) -> Reply:
    """What an answer says. Pure."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if status != 200:
        error = said.get("error") if isinstance(said, dict) else None
        why = str(error.get("message", "")) if isinstance(error, dict) else ""
        told = _line(f"status {status}{': ' * bool(why)}{why}")
        kind: Kind = "endpoint" if status in _NO_ENDPOINT and isinstance(error, dict) else "broken"
        return Reply(kind, seconds, why=told)
    try:
        message = said["choices"][0]["message"]
        text, thoughts = message["content"], message.get("reasoning_content") or ""
    except (AttributeError, KeyError, IndexError, TypeError):
        text, thoughts = None, ""
    if not isinstance(text, str) or not isinstance(thoughts, str):
        return Reply("broken", seconds, why="status 200, and no completion")
    return Reply("answered", seconds, plain.text(text), plain.text(thoughts), _tokens(said))


def _line(text: str) -> str:
    return plain.line(text[:_SHOWN])


def _tokens(said: Mapping[str, Any]) -> int | None:
    usage = said.get("usage")
    found = usage.get("total_tokens") if isinstance(usage, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return int(found) if 0 <= found <= MOST_TOKENS else None


def request(
    door: Door,
    method: str,
    path: str,
    body: object = None,
    seconds: float = 30.0,
    *,
    begun: Callable[[], object] = bool,
) -> tuple[int, bytes]:
    """Status and body. `body` is sent as JSON, bytes as they are; `begun` is called when all is sent, or
    could not be.

    Raises `Late`, `OSError`, `http.client.HTTPException`, `ValueError` for too much.
    """
    connection = http.client.HTTPConnection(HOST, door.port, timeout=seconds)
    headers = {"Authorization": f"Bearer {door.token}"} if door.token else {}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    ends = time.monotonic() + seconds
    watch: threading.Timer | None = None
    try:
        connection.connect()
        # What drips bytes never runs into a socket's own timeout.
        watch = threading.Timer(ends - time.monotonic(), _cut, (connection.sock,))
        watch.daemon = True
        watch.start()
        connection.request(method, path, data, headers)
        begun()
        response = connection.getresponse()
        found = response.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException):
        if time.monotonic() >= ends:
            raise Late from None
        raise
    finally:
        begun()
        if watch is not None:
            watch.cancel()
        connection.close()
    if time.monotonic() >= ends:
        raise Late
    if len(found) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return response.status, found


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        sock.shutdown(socket.SHUT_RDWR)
