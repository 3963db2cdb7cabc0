"""What a request is refused with: a status, and the message and hint that every error here has."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from org.errors import Busy, Denied, EnvironmentProblem, ModelError, OrgError, UsageError


class Refusal(OrgError):
    """A request is refused with an HTTP status of its own."""

    def __init__(
        self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.headers = headers


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


def answer(error: OrgError) -> JSONResponse:
    """The error as an answer: `{"error": {"message": ..., "hint": ...}}`."""
    headers = error.headers if isinstance(error, Refusal) else None
    body = {"error": {"message": error.message, "hint": error.hint}}
    return JSONResponse(body, status_of(error), dict(headers or {}))
