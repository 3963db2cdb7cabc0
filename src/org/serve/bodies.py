"""What comes and goes in the bodies of requests and answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from org.serve.refusal import Refusal

BODY_BYTES = 1024 * 1024
"""The longest body of a request."""
BODY_S = 30.0
"""Within which it must have come."""


class Json(JSONResponse):
    """In ASCII: half a surrogate pair, which models do write, has no other form."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


async def read_object(
    request: Request, known: Mapping[str, type], required: Sequence[str] = ()
) -> dict[str, Any]:
    """The body as a JSON object whose keys are `known`, with values of those types. Raises `Refusal`."""
    data = await read_body(request)
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(422, "the body is not a JSON object")
    for key in required:
        if key not in value:
            raise Refusal(422, f"missing: `{key}`")
    for key, item in value.items():
        if key not in known:
            raise Refusal(422, f"unknown: `{key[:40]}`", "known are: " + ", ".join(known))
        if not _fits(item, known[key]):
            raise Refusal(422, f"`{key}`: expected {_NAMES[known[key]]}")
    return value


_NAMES: dict[type, str] = {
    str: "text",
    list: "a list",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:  # which is a number, in Python
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


async def read_body(request: Request) -> bytes:
    """The body, within the limits of size and time. Raises `Refusal`."""
    length = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    size = int(length) if length.isdecimal() else 0
    try:
        async with asyncio.timeout(BODY_S):
            if size <= BODY_BYTES:
                size = 0
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > BODY_BYTES:
                        break
    except TimeoutError:
        raise Refusal(408, "the body did not come", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "the body ended early") from None
    if size > BODY_BYTES:
        raise Refusal(413, f"the body is longer than {BODY_BYTES} bytes", headers={"Connection": "close"})
    return b"".join(parts)
