"""Base URLs, in the many ways people write them. Pure.

A base URL here is `scheme://host:port/path` without a slash at its end, and its path is the one
below which `/chat/completions` lies (`/v1` for Ollama and llama.cpp).
"""

from __future__ import annotations

import re

OLLAMA_PORT = 11434
DEFAULT_BASE = f"http://127.0.0.1:{OLLAMA_PORT}/v1"

# Strict on purpose: what is not understood here is refused, so that no other parser can read
# another host out of it (credentials, backslashes, blanks, escapes).
_URL = re.compile(
    r"""(?:(?P<scheme>https?)://)?
        (?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|)
        (?::(?P<port>[0-9]{1,5}))?
        (?P<path>(?:/[\w.~%+-]*)*)""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_IPV6 = re.compile(r"[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*|::", re.IGNORECASE)
_LOOPBACK = re.compile(r"localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\]", re.ASCII)
_MOST_HOST, _MOST_LABEL = 253, 63  # letters of a name, and between two of its dots
# To listen on every address is no address to connect to.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def base_url(text: str, *, ollama: bool = False) -> str:
    """The base URL that `text` means, in its one canonical form.

    Takes `host`, `:port`, `host:port`, an IPv6 address with or without brackets, and
    `http(s)://host[:port][/path]`. Without a scheme it is http and port 11434, as for Ollama; with
    one, the scheme's own port. `0.0.0.0` and `::` become loopback. Without a path it ends in `/v1`;
    `ollama` says that a path is where Ollama is mounted, and `/v1` is below it.
    Raises `ValueError` for anything else.
    """
    text = text.strip()
    if _IPV6.fullmatch(text):
        text = f"[{text}]"
    parts = _URL.fullmatch(text)
    if parts is None or not text or (parts["scheme"] and not parts["host"] and not parts["port"]):
        raise ValueError("no URL of a model server")
    scheme = (parts["scheme"] or "http").lower()
    host = parts["host"].lower()
    if len(host) > _MOST_HOST or not all(0 < len(label) <= _MOST_LABEL for label in host.split(".") if host):
        raise ValueError("no such host")
    port = int(parts["port"] or (_scheme_port(scheme) if parts["scheme"] else OLLAMA_PORT))
    if not 0 < port < 65536:
        raise ValueError("no such port")
    path = parts["path"].rstrip("/")
    if not path or (ollama and not path.endswith("/v1")):
        path += "/v1"
    shown_port = "" if port == _scheme_port(scheme) else f":{port}"
    return f"{scheme}://{_EVERYWHERE.get(host, host)}{shown_port}{path}"


def origin(base: str) -> str:
    """Scheme, host and port of a canonical base URL."""
    return "/".join(base.split("/", 3)[:3])


def is_loopback(base: str) -> bool:
    """Whether a canonical base URL leads to this machine itself."""
    host = re.sub(r":[0-9]+$", "", origin(base).split("://", 1)[1])
    return _LOOPBACK.fullmatch(host) is not None


def _scheme_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
