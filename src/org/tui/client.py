"""A server of rooms (`org serve`): where it is, and requests to it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from org.config.urls import is_loopback
from org.errors import Busy, EnvironmentProblem, ModelError, OrgError, ServerUnreachable, UsageError
from org.llm.http import Origin, Response
from org.llm.sse import Splitter

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
SILENCE_S = 40.0
"""After this long without a byte, not even a comment, a stream is taken for dead."""

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before a broken stream is taken up again; the last is repeated."""

TRIES = 4
"""How often a request that got no answer is sent, each with the same key."""

_URL = re.compile(
    r"(?P<base>https?://[^/#?\s]+)(?:/(?:rooms/(?P<room>[\w.-]+)/?)?)?(?:#token=(?P<token>[\w.~-]+))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a room is served: the server, the room's name (empty: the one last used) and the token."""

    base: str
    room: str
    token: str


def place_of(url: str, room: str, token_file: Path) -> Place:
    """What an address given by a person means. The token is the one behind `#token=`, or for a
    server of this machine the one in `token_file`. Raises `UsageError`."""
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise UsageError(f"not the address of a server: `{url}`", "write it like http://127.0.0.1:7001")
    base, token = match["base"], match["token"] or ""
    if not is_loopback(base) and base.startswith("http:"):
        raise UsageError(f"a token is not sent over an open line: `{base}`", "use https://")
    if not token and is_loopback(base) and token_file.is_file():
        token = token_file.read_text(encoding="ascii", errors="replace").strip()
    if not token:
        raise UsageError(
            f"no token for {base}", "take the whole address that `org serve` printed, `#token=...` too"
        )
    return Place(base, room or match["room"] or "", token)


class Client:
    """Requests to one server. They raise `EnvironmentProblem` when it cannot be reached."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._origin = Origin(place.base, connect_timeout_s=CONNECT_TIMEOUT_S)

    def close(self) -> None:
        self._origin.close()

    async def ask(
        self, method: str, path: str, body: object = None, *, again: bool = False
    ) -> dict[str, Any]:
        """The answer to a request. When none came it is sent again, a POST only if it is known not to
        have arrived, or if `again` says that doing it twice does it once."""
        again = again or method != "POST"
        key = secrets.token_hex(16) if method == "POST" else ""
        for left in reversed(range(TRIES)):
            try:
                response = await self._send(method, path, body, key)
            except ModelError as error:
                if not (again or isinstance(error, ServerUnreachable)):
                    raise self._unanswered(error) from error
                if not left:
                    raise self._lost(error) from error
                await asyncio.sleep(RETRY_S[0])
                continue
            if response.status != 503 or not left:
                return _answer(response)
            await asyncio.sleep(RETRY_S[1])  # one server hands over to another
        raise AssertionError("the last try returns or raises")

    async def stream(self, path: str, on_event: Callable[[bytes], None]) -> None:
        """Read an event stream until it ends. Raises `ModelError` when it breaks."""
        splitter = Splitter()

        def take(data: bytes) -> bool:
            for payload in splitter.feed(data):
                on_event(payload)
            return False

        connection, _ = await self._origin.acquire()
        try:
            request = self._origin.request("GET", path, self._headers())
            response = await connection.exchange(request, take, SILENCE_S)
        finally:
            connection.close()
        _answer(response)

    async def _send(self, method: str, path: str, body: object, key: str) -> Response:
        headers = self._headers()
        data = b"" if body is None else json.dumps(body).encode()
        if key:
            headers["Idempotency-Key"] = key
        if method != "POST" and data:  # the request adds them to a POST only
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        connection, _ = await self._origin.acquire()
        request = self._origin.request(method, path, headers, data)
        response = await connection.exchange(request, lambda data: False, ANSWER_TIMEOUT_S)
        self._origin.release(connection)
        return response

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._place.token}"}

    def _unanswered(self, error: OrgError) -> EnvironmentProblem:
        reason = error.message.rpartition(": ")[2]
        return EnvironmentProblem(
            f"no answer from {self._place.base}: {reason}", "look whether it was done before you ask again"
        )

    def _lost(self, error: OrgError) -> EnvironmentProblem:
        reason = error.message.rpartition(": ")[2]
        return EnvironmentProblem(
            f"no room server at {self._place.base}: {reason}", "start one with `org serve`"
        )


def _answer(response: Response) -> dict[str, Any]:
    """The body of an answer; an error in it is raised."""
    try:
        data = json.loads(response.body or b"{}")
    except ValueError:
        data = {}
    if response.status < 400:
        return data if isinstance(data, dict) else {}
    error = data.get("error") if isinstance(data, dict) else None
    detail = error if isinstance(error, dict) else {}
    message = str(detail.get("message") or f"the server answers with {response.status}")
    hint = str(detail.get("hint") or "")
    if response.status == 409:
        raise Busy(message, hint)
    kind = EnvironmentProblem if response.status >= 500 else UsageError
    raise kind(message, hint)
