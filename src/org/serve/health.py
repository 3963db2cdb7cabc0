"""What the server says about itself, at once: nothing is asked of anybody while a request waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from org import __version__
from org.compose.servers import list_models
from org.config import Settings
from org.errors import ModelError, ServerUnreachable

PROBE_S = 10.0
"""How old the answer about the model server may be before it is asked again, in the background."""


class Health:
    """`commit` and `nonce` are what the process was started with; `state` is one of `starting`,
    `serving` and `draining`. `probe` tells whether the model server answers."""

    def __init__(self, probe: Callable[[], Awaitable[bool]], *, commit: str = "", nonce: str = "") -> None:
        self.state = "starting"
        self._probe = probe
        self._commit = commit
        self._nonce = nonce
        self._began = time.monotonic()
        self._reachable: bool | None = None
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def report(self, nonce: str = "") -> dict[str, Any]:
        """As `GET /health` answers. `model` is None until the model server was asked once."""
        self._ask_again()
        generation = f"{__version__}+{self._commit[:12]}" if self._commit else __version__
        return {
            "status": self.state,
            "commit": self._commit,
            "generation": generation,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began, 3),
            "model_reachable": self._reachable,
            "nonce": nonce or self._nonce,
        }

    async def endpoint(self, request: Request) -> Response:
        """`GET /health`, with `?nonce=` given back."""
        return JSONResponse(self.report(request.query_params.get("nonce", "")[:200]))

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _ask_again(self) -> None:
        now = time.monotonic()
        if self._asking is None and now - self._asked > PROBE_S:
            self._asked = now
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            self._reachable = await self._probe()
        finally:
            self._asking = None


async def probe_models(settings: Settings) -> bool:
    """Whether something answers as the model server, be it with an error."""
    try:
        client, _ = await list_models(settings)
    except ServerUnreachable:
        return False
    except ModelError:
        return True
    await client.aclose()
    return True
