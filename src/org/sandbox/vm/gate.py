"""Which requests of a guest reach the model server: a handful of paths, each read to the last byte and
written anew. Pure.

What goes on is made here from what was understood, never copied from what came: whatever another
parser might read into the guest's bytes does not reach it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import httptools

PATHS = {
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/api/version": "GET",
    "/api/tags": "GET",
    "/api/ps": "GET",
    "/api/show": "POST",
}
_PASSED_ON = ("accept", "accept-encoding", "content-type", "user-agent")
_MOST_HEAD = 32_768
_MOST_FIELDS = 100
_PLAIN = re.compile(rb"[\t\x20-\x7e]*")
_NAME = re.compile(rb"[A-Za-z0-9_.!#$%&'*+^`|~-]+")


class Refusal(Exception):
    """The request does not go on; the HTTP status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upstream:
    """The model server: `path` is the one below which `/chat/completions` lies. `key` may be empty."""

    host: str
    port: int
    path: str = "/v1"
    tls: bool = False
    key: str = ""

    def __repr__(self) -> str:
        return f"Upstream({self.authority}{self.path})"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may go on. `length` is that of the body, None when it comes in chunks."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...]
    length: int | None
    waits: bool  # for the word to go on, before it sends the body

    def head(self, upstream: Upstream) -> bytes:
        """The request's head for the model server. Raises `Refusal` when that has no such path, or cannot
        be named or given its key in a request."""
        lines = [f"{self.method} {_target(self.path, upstream)} HTTP/1.1", f"Host: {upstream.authority}"]
        if upstream.key:
            lines.append(f"Authorization: Bearer {upstream.key}")
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.length is None:
            lines.append("Transfer-Encoding: chunked")
        elif self.method == "POST":
            lines.append(f"Content-Length: {self.length}")
        lines += ["Connection: close", "", ""]
        try:
            return "\r\n".join(lines).encode("ascii")
        except UnicodeEncodeError:  # it holds the key: nothing of it is passed on
            raise Refusal(502, "the model server's address or key is not ASCII") from None


def _target(path: str, upstream: Upstream) -> str:
    if path.startswith("/v1/"):
        return upstream.path + path.removeprefix("/v1")
    if not upstream.path.endswith("/v1"):
        raise Refusal(404, f"the model server has no `{path}`")
    return upstream.path.removesuffix("/v1") + path


class Gate:
    """Reads one request, fed as it comes, and checks it. `most_body` bounds its body in bytes."""

    def __init__(self, most_body: int) -> None:
        self.asked: Asked | None = None
        """The request, once its head is read."""
        self.complete = False
        """Whether its body is."""
        self._most_body = most_body
        self._reader = _Reader()
        self._parser = httptools.HttpRequestParser(self._reader)
        self._fed = 0
        self._body = 0

    @property
    def shown(self) -> str:
        """What was asked for, for a log: whatever it was, in one short line."""
        method = self._parser.get_method().decode("latin-1") if self._reader.url else "-"
        path = bytes(self._reader.url[:80]).decode("latin-1")
        return f"{method} {path if path.isprintable() and path.isascii() else repr(path)}"

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the guest; those of the body among them, freed of what framed them.

        Raises `Refusal`.
        """
        if self.complete and data:
            raise Refusal(400, "one request a connection")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise Refusal(403, "this goes nowhere but to the model server") from error
        except httptools.HttpParserError as error:
            raise Refusal(400, "this is no HTTP/1.1 request") from error
        reader = self._reader
        if reader.begun > 1 or reader.late_fields:
            raise Refusal(400, "one request a connection, and no trailers")
        if self.asked is None:
            self._fed += len(data)
            if reader.size > _MOST_HEAD or (self._fed > 2 * _MOST_HEAD and not reader.head_read):
                raise Refusal(431, "the head of the request is too long")
            if not reader.head_read:
                return b""
            self.asked = self._check()
        self.complete = reader.complete
        body, reader.body = bytes(reader.body), bytearray()
        self._body += len(body)
        if self._body > self._most_body:
            raise Refusal(413, f"the request is longer than {self._most_body} bytes")
        return body

    def _check(self) -> Asked:
        method = self._parser.get_method().decode("latin-1")
        fields = self._reader.fields
        target = bytes(self._reader.url).decode("latin-1")
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            raise Refusal(505, "only HTTP/1.1 is spoken here")
        if PATHS.get(target) is None:
            raise Refusal(403, "only the model server's API can be reached from here")
        if PATHS[target] != method:
            raise Refusal(405, f"`{target}` takes {PATHS[target]}")
        if len(fields) > _MOST_FIELDS:
            raise Refusal(431, "too many header fields")
        if not all(_NAME.fullmatch(name) and _PLAIN.fullmatch(value) for name, value in fields):
            raise Refusal(400, "a header field with letters that it may not have")
        named: dict[str, list[str]] = {}
        for name, value in fields:
            named.setdefault(name.decode().lower(), []).append(value.decode().strip())
        for single in ("content-length", "host", "transfer-encoding", "expect"):
            if len(named.get(single, [])) > 1:
                raise Refusal(400, f"`{single}` twice")
        if "upgrade" in named:
            raise Refusal(403, "this goes nowhere but to the model server")
        passed_on = tuple((field, named[field][0]) for field in _PASSED_ON if field in named)
        waits = named.get("expect", [""])[0].lower() == "100-continue"
        return Asked(method, target, passed_on, self._length(named), waits)

    def _length(self, named: dict[str, list[str]]) -> int | None:
        coding = named.get("transfer-encoding")
        length = named.get("content-length", ["0"])[0]
        if coding is not None:
            if "content-length" in named or coding[0].lower() != "chunked":
                raise Refusal(400, "`Transfer-Encoding` may be `chunked`, without a `Content-Length`")
            if self._parser.get_http_version() != "1.1":
                raise Refusal(400, "chunks are of HTTP/1.1")
            return None
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise Refusal(400, "a `Content-Length` that is no number")
        if int(length) > self._most_body:
            raise Refusal(413, f"the request is longer than {self._most_body} bytes")
        return int(length)


class _Reader:
    """What httptools calls."""

    def __init__(self) -> None:
        self.url = bytearray()
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.size = 0
        self.begun = 0
        self.head_read = False
        self.complete = False
        self.late_fields = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        if self.begun == 1:
            self.url += url
            self.size += len(url)

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self.size += len(name) + len(value or b"")
        if self.head_read:
            self.late_fields = True
        elif self.size <= _MOST_HEAD:
            self.fields.append((bytes(name), bytes(value or b"")))

    def on_headers_complete(self) -> None:
        self.head_read = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class Answer:
    """Follows an answer of the model server, for its status and its end."""

    def __init__(self) -> None:
        self.complete = False
        self.status = 0
        self.received = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises `Refusal` (502) for what is no answer."""
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Refusal(502, "the model server gave no HTTP answer") from error

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self.complete = self.status >= 200  # what comes before is not yet the answer


def refusal(error: Refusal) -> bytes:
    """The answer that a guest gets for what does not go on, in the form of the API."""
    body = json.dumps({"error": {"message": str(error), "type": "refused", "code": error.status}}).encode()
    head = f"HTTP/1.1 {error.status} Refused\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """Bytes of a body in chunks; no bytes are its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)
