"""What a request is refused with: a status, and the message and hint that every error here has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from org.errors import Busy, Denied, EnvironmentProblem, ModelError, OrgError, UsageError

OPENAI = "/v1/"
"""How the paths begin whose clients expect everything as OpenAI says it."""


class Refusal(OrgError):
    """A request is refused with an HTTP status of its own. `param` is what of the request is off, and
    `code` a word for it; OpenAI's clients are told these."""

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.headers = headers
        self.param = param
        self.code = code


def status_of(error: OrgError) -> int:
    """The HTTP status that says what the error says."""
    if isinstance(error, Refusal):
        return error.status
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 500


_STATUS: tuple[tuple[type[OrgError], int], ...] = (
    (UsageError, 422),
    (Busy, 409),
    (Denied, 403),
    (ModelError, 502),
    (EnvironmentProblem, 503),
)


def answer(error: OrgError, path: str) -> Response:
    """The error as an answer to a request for that path: `{"error": {"message": ..., "hint": ...}}`,
    or in OpenAI's form."""
    headers = error.headers if isinstance(error, Refusal) else None
    status, body = status_of(error), {"message": error.message, "hint": error.hint}
    if path.startswith(OPENAI):
        status, body = openai_error(error)
    # In ASCII: half a surrogate pair, which a request may hold, has no other form.
    text = json.dumps({"error": body})
    return Response(text, status, dict(headers or {}), media_type="application/json")


def openai_error(error: OrgError) -> tuple[int, dict[str, Any]]:
    """(status, what of it is said) as OpenAI does; its clients know neither 422 nor hints."""
    status = status_of(error)
    status = 400 if status == 422 else status
    param, code = (error.param, error.code) if isinstance(error, Refusal) else (None, None)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return status, {
        "message": f"{error.message} ({error.hint})" if error.hint else error.message,
        "type": "rate_limit_error" if status == 429 else kind,
        "param": param,
        "code": code or _CODES.get(status),
    }


_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
