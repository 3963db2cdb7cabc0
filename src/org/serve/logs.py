"""What the server writes about its own work: one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("org.serve.requests")

Counted = Callable[[str, str, int, float], None]
"""Told (method, route, status, seconds) of each answer; status 0 when there was none."""


class Lines(logging.Formatter):
    """A record as one line of JSON, with what `extra={"fields": {...}}` adds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def write_logs(out: TextIO, level: int = logging.INFO) -> logging.Handler:
    """Write what this program and its server log to a file; returns what does that."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(Lines())
    for name in ("org", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level if name == "org" else max(level, logging.WARNING))
    return handler


class Requests:
    """An ASGI application around another, that logs and counts every request when it is over. Neither
    headers nor the query of an address are logged: they may hold what is nobody's business."""

    def __init__(self, app: ASGIApp, counted: Counted) -> None:
        self._app = app
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            seconds = monotonic() - began
            route = getattr(scope.get("route"), "path", "")
            self._counted(scope["method"], route, status, seconds)
            fields = {"method": scope["method"], "path": scope["path"], "status": status}
            _log.info("request", extra={"fields": {**fields, "seconds": round(seconds, 4)}})
