"""The web page: one file, whose own script and style alone may run, by a nonce that is new in each answer."""

from __future__ import annotations

import gzip
import html
import json
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from org.commands import COMMANDS

NONCE = b"@NONCE@"
"""What stands in the file where the nonce belongs."""
VOCABULARY = b"@COMMANDS@"
"""What stands in the file where the slash commands belong: `{name: [usage, about]}`."""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'nonce-{nonce}'",
        "style-src 'nonce-{nonce}'",
        "connect-src 'self'",
        "img-src data:",  # its icon
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


def page_endpoint() -> Callable[[Request], Awaitable[Response]]:
    """Answers `GET /`. The file is read once."""
    words = json.dumps({name: (known.usage, known.about) for name, known in COMMANDS.items()})
    file = files("org.serve").joinpath("page.html").read_bytes()
    parts = file.replace(VOCABULARY, html.escape(words).encode()).split(NONCE)

    async def page(request: Request) -> Response:
        nonce = secrets.token_hex(16)
        body = nonce.encode().join(parts)
        headers = {
            "Content-Security-Policy": _POLICY.format(nonce=nonce),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 6)
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type="text/html", headers=headers)

    return page
