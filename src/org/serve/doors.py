"""Who may come in: requests are checked here before anything else looks at them.

The server listens on loopback, but so does every web page that the person visits, in a way: a page may
send requests to 127.0.0.1, or have its own name point there. So a request must name us as its host,
must not come from a page of somebody else, and must show the token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from org.errors import EnvironmentProblem
from org.serve.refusal import Refusal, answer

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE_DAYS = 30


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

    It is shown as `Authorization: Bearer TOKEN`, or as the cookie that `POST /login` gives in exchange
    for that: an EventSource can send no header. `names` are host names of ours besides `localhost` and
    every address; `public` are paths that need no token, since they tell nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        *,
        names: Collection[str] = (),
        public: Collection[str] = (),
        pace: Pace | None = None,
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = hmac.new(self._token, b"cookie", hashlib.sha256).hexdigest()
        self._names = frozenset(name.lower() for name in names) | {"localhost"}
        self._public = frozenset(public)
        self._pace = pace or Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            _check_origin(headers)
            if scope["method"] not in SAFE_METHODS and not self._pace.allows():
                raise Refusal(429, "too many requests", "wait a second", {"Retry-After": "1"})
            if not (scope["path"] in self._public and scope["method"] in SAFE_METHODS):
                self._check_token(headers)
        except Refusal as refusal:
            await answer(refusal, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def login(self, request: Request) -> Response:
        """Exchange the token, sent as a header, for a cookie that the page's scripts cannot read."""
        self._check_token(request.headers, cookie_counts=False)
        response = Response(status_code=204)
        response.set_cookie(
            _cookie_name(request.headers),
            self._cookie,
            max_age=COOKIE_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

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

    def _check_token(self, headers: Headers, *, cookie_counts: bool = True) -> None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() == "bearer" and _same(shown.strip(), self._token.decode()):
                return
        elif cookie_counts:
            cookies = cookie_parser(headers.get("cookie", ""))
            if _same(cookies.get(_cookie_name(headers), ""), self._cookie):
                return
        raise Refusal(
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


def _cookie_name(headers: Headers) -> str:
    """Cookies do not know ports, and two servers may be told apart by nothing else."""
    try:
        port = urlsplit(f"//{headers.get('host', '')}").port
    except ValueError:
        port = None
    return f"org-{port}" if port else "org"


def _same(shown: str, secret: str) -> bool:
    return hmac.compare_digest(shown.encode(errors="surrogatepass"), secret.encode())
