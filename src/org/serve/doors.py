"""Who may come in: requests are checked here before anything else looks at them.

The server listens on loopback, but so does every web page that the person visits, in a way: a page may
send requests to 127.0.0.1, or have its own name point there. So a request must name us as its host,
must not come from a page of somebody else, and must show the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from org.errors import EnvironmentProblem
from org.serve.connection import know
from org.serve.passes import Passes
from org.serve.refusal import Refusal, answer

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEY_S = 7 * 86_400
"""How long a page is signed in."""
_EVENTS = re.compile(r"/rooms/[^/]+/events")
_URGENT = re.compile(r"/rooms/[^/]+/(interrupt|approvals/[^/]+)")
"""What must get through however much else is asked for: it stops things."""


def read_token(path: Path) -> str:
    """The token in that file, readable by its owner only; made when there is none yet.

    Raises `EnvironmentProblem` when it can be neither read nor made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_token(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(
            f"the token of the server cannot be kept: `{path}`: {error}", "check its rights and the disk"
        ) from error
    if len(token) < 32:
        raise EnvironmentProblem(f"this is no token: `{path}`", f"remove it: `rm {path}`")
    return token


def _make_token(path: Path) -> None:
    """The file appears whole or not at all, and the first of several servers makes it."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.") as draft:  # readable by us only
        draft.write(secrets.token_urlsafe(32) + "\n")
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, path)


@dataclass(slots=True)
class Pace:
    """How many requests that change something are let through: `rate` a second, `burst` at once."""

    rate: float = 50.0
    burst: float = 200.0
    _left: float = 0.0
    _at: float = float("-inf")

    def allows(self) -> bool:
        """Whether one more may pass now; then it is counted."""
        now = time.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Doors:
    """An ASGI application in front of another: lets in who shows the token.

    It is shown as `Authorization: Bearer TOKEN`. In its place a page shows the key that `POST /login`
    gives it, which is good for the page's own address; and to begin an event stream, since an
    EventSource can send no header, a ticket in the address that counts once. There is no cookie: a
    browser sends those to every port of a host, whoever listens there. `names` are host names of ours
    besides `localhost` and every address; `public` are paths that need no token, since they tell nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        passes: Passes,
        *,
        names: Collection[str] = (),
        public: Collection[str] = (),
        pace: Pace | None = None,
    ) -> None:
        self._app = app
        self._token = token
        self._passes = passes
        self._names = frozenset(name.lower() for name in names) | {"localhost"}
        self._public = frozenset(public)
        self._pace = pace or Pace()
        self._guesses = Pace(self._pace.rate, self._pace.burst)  # of others, who must not use up ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            _check_origin(headers)
            changes = scope["method"] not in SAFE_METHODS
            if changes or scope["path"] not in self._public:
                self._check_token(scope, headers)
                know(scope)
            if changes and not _URGENT.fullmatch(scope["path"]):
                _check_pace(self._pace)
        except Refusal as refusal:
            await answer(refusal, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def login(self, request: Request) -> Response:
        """A key for the page that shows the token: scripts of other addresses cannot read where it
        keeps that. A key gets no new one."""
        if not self._is_token(request.headers):
            raise _stranger()
        key = self._passes.issue(_page(request.headers), KEY_S)
        return JSONResponse({"key": key, "seconds": KEY_S})

    def _check_host(self, headers: Headers) -> None:
        """A name that is not ours points here by somebody's trick; an address cannot be made to."""
        name = _host_name(headers.get("host", ""))
        if name in self._names or name.endswith(".localhost") or _is_address(name):
            return
        raise Refusal(
            421,
            f"this server is not called `{name[:100]}`",
            "use 127.0.0.1, or name it with `org serve --name`",
        )

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        shown = _bearer(headers)
        if self._is_token(headers) or (shown and self._passes.holds(shown, _page(headers))):
            return
        if not headers.get("authorization") and scope["method"] == "GET" and _EVENTS.fullmatch(scope["path"]):
            ticket = QueryParams(scope["query_string"]).get("ticket", "")
            if self._passes.take(ticket, events_of(scope["path"])):
                return
        _check_pace(self._guesses)
        raise _stranger()

    def _is_token(self, headers: Headers) -> bool:
        return hmac.compare_digest(_bearer(headers).encode(errors="surrogatepass"), self._token.encode())


def events_of(path: str) -> str:
    """What a ticket for the event stream at that path is good for."""
    return f"events {path}"


def _page(headers: Headers) -> str:
    """What the key of a page is good for: the address that the page has."""
    return f"page {headers.get('host', '').lower()}"


def _bearer(headers: Headers) -> str:
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


def _check_pace(pace: Pace) -> None:
    if not pace.allows():
        raise Refusal(429, "too many requests", "wait a second", {"Retry-After": "1"})


def _stranger() -> Refusal:
    return Refusal(
        401,
        "the token is missing or wrong",
        "send `Authorization: Bearer TOKEN`; `org serve` prints a link with it",
        {"WWW-Authenticate": "Bearer"},
    )


def _check_origin(headers: Headers) -> None:
    """Browsers say which page sends a request; other programs say nothing."""
    origin = headers.get("origin")
    if origin is not None:
        foreign = _host_of(origin) != headers.get("host", "").lower()
    else:
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        foreign = site in ("cross-site", "same-site") and mode != "navigate"
    if foreign:
        raise Refusal(403, "requests of other pages are refused")


def _host_of(origin: str) -> str:
    """Host and port of an origin as a Host header has them; empty for what is none, `null` among it."""
    scheme, _, host = origin.lower().partition("://")
    return host if scheme in ("http", "https") else ""


def _host_name(host: str) -> str:
    """The name in a Host header, without the port; empty for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for what is no number
    except ValueError:
        return ""
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return ""
    return (parts.hostname or "").rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
