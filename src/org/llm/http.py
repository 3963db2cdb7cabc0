"""HTTP/1.1 over asyncio with llhttp (`httptools`) as the parser.

Written for one kind of traffic: few hosts, long streams. The body of an event stream is pushed to
a callback once per read, not once per chunk, so a delta costs parsing and nothing else.
`docs/decisions/http-client.md` has the measurements behind not using a general HTTP client.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httptools

from org.errors import OrgError, ServerUnreachable, StreamBroken, StreamStalled, UsageError

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes kept of an answer that is no event stream."""
OVERHEAD_LIMIT = 256 * 1024
"""Bytes in a row that bring no body: endless headers, interim answers or trailers."""
KEPT_CONNECTIONS = 64
"""Connections kept open for the next requests."""


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` have lower-case names; `body` is empty when it went to the callback as a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Unanswered(StreamBroken):
    """The connection closed before the first byte of an answer; sending again is safe."""


class Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._closed = False
        self.idle = True
        """Whether the last exchange ended cleanly and the server keeps the connection open."""

    # -- what a client does with it

    async def exchange(
        self,
        request: bytes,
        on_stream: Callable[[bytes], bool],
        idle_timeout_s: float,
    ) -> Response:
        """Send a request and wait for its answer.

        The bytes of an event stream go to `on_stream`, which answers whether the stream is over
        in its own terms; what it raises is raised here. Raises `Unanswered`, `StreamStalled`.
        Cancelling closes the socket, which ends the work on the server.
        """
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._on_stream = on_stream
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0
        self._overhead = 0
        self._streaming = False
        self._head_seen = False
        self._framed = False
        self._complete = False
        self._keep_alive = False
        self.idle = False
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._answer = answer
        self._transport.write(request)
        self._heard_at = self._loop.time()
        self._watch = self._loop.call_later(idle_timeout_s, self._check_idle, answer, idle_timeout_s)
        try:
            return await answer
        except BaseException:
            self.close()
            raise
        finally:
            self._watch.cancel()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self.idle = False
        if self._transport is not None:
            self._transport.abort()

    def _check_idle(self, answer: asyncio.Future[Response], timeout_s: float) -> None:
        left = self._heard_at + timeout_s - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check_idle, answer, timeout_s)
        elif not answer.done():
            answer.set_exception(
                StreamStalled(
                    f"nothing came from the model server for {timeout_s:g} s",
                    "raise `[client] idle_timeout_s`, or look whether the server is still alive",
                )
            )

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self.idle:  # bytes that nobody asked for
            self.close()
            return
        self._heard_at = self._loop.time()
        self._overhead += len(data)
        try:
            self._parse(data)
            self._check()
            if self._streaming and self._body:
                chunk = b"".join(self._body)
                self._body.clear()
                # When the stream is over in its own terms, its last bytes need not be waited for.
                if not answer.done() and self._on_stream(chunk):
                    self._succeed()
        except OrgError as error:
            self._fail(error)
        if self._complete:
            self._succeed()
            self.idle = self._keep_alive and not self._closed
            if not self.idle:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self.idle = False
        if exc is not None and not isinstance(exc, OSError):
            self._fail(exc)  # a bug in the callback; asyncio closed the connection over it
        elif not self._head_seen and not self._overhead:
            self._fail(Unanswered("the server closed the connection before it answered"))
        elif self._head_seen and (self._streaming or not self._framed):
            self._succeed()  # whether a stream was whole, its own end tells
        else:
            self._fail(StreamBroken("the server closed the connection in the middle of its answer"))

    def _succeed(self) -> None:
        if self._answer is not None and not self._answer.done():
            body = b"" if self._streaming else b"".join(self._body)
            self._answer.set_result(Response(self._parser.get_status_code(), self._headers, body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                raise StreamBroken(f"the server does not speak HTTP/1.1: {error}") from error
            self._keep_alive = False  # the answer is whole; what follows it was not asked for
        except httptools.HttpParserUpgrade as error:
            raise StreamBroken("the server wants to speak something else than HTTP/1.1") from error

    def _check(self) -> None:
        coding = self._headers.get("content-encoding", "identity").lower()
        if self._head_seen and coding != "identity":
            raise StreamBroken(f"the server encoded its answer as `{coding}`, which it was not asked for")
        if self._overhead > OVERHEAD_LIMIT:
            raise StreamBroken(f"the server sent {self._overhead} bytes without an answer in them")
        if self._body_size > BODY_LIMIT:
            raise StreamBroken(f"the server's answer is longer than {BODY_LIMIT} bytes")

    # -- callbacks of the parser

    def on_message_begin(self) -> None:
        if self._complete:
            raise StreamBroken("more than one answer")  # stops the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._head_seen = True
        self._framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        kind = self._headers.get("content-type", "").lower()
        self._streaming = self._parser.get_status_code() < 300 and kind.startswith("text/event-stream")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._overhead = 0
        if not self._streaming:
            self._body_size += len(data)

    def on_message_complete(self) -> None:
        if self._head_seen:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it right after
        else:  # an interim answer (100, 103)
            self._headers = {}


# No other parts, and nothing that could end a line of a request.
_BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[\w.~%+-]*)*)",
    re.ASCII,
)


class Origin:
    """The connections to one base URL, and how requests to it are written.

    Proxy variables of the environment are not read: a model server stands on this machine or in
    the local network, and a proxy in between breaks streams and long silences.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float) -> None:
        parts = _BASE_URL.fullmatch(base_url)
        port = int(parts["port"] or 0) if parts else 0
        if parts is None or port > 65535:
            if "@" in base_url:
                raise UsageError("a base URL holds no user or password", "set the key in ORG_API_KEY")
            raise UsageError(f"not a base URL: `{base_url}`", "write it like http://127.0.0.1:11434/v1")
        self.url = base_url.rstrip("/")
        self._tls = parts["scheme"] == "https"
        self._host = parts["host"].strip("[]")
        self._port = port or (443 if self._tls else 80)
        self._path = parts["path"].rstrip("/")
        self._authority = f"{parts['host']}:{port}" if port else parts["host"]
        self._connect_timeout_s = connect_timeout_s
        self._connections: list[Connection] = []

    async def acquire(self) -> tuple[Connection, bool]:
        """(connection, whether it was used before). Raises `ServerUnreachable`."""
        while self._connections:
            connection = self._connections.pop()
            if connection.idle:
                return connection, True
            connection.close()  # its last stream was not read to its end
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=_tls_context() if self._tls else None
                )
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {self._connect_timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise ServerUnreachable(
                f"the certificate of {self.url} is not trusted: {error.verify_message}",
                "name the file of its authority in SSL_CERT_FILE",
            ) from error
        except OSError as error:
            raise self._unreachable(_reason(error)) from error
        return connection, False

    def release(self, connection: Connection) -> None:
        """Hand a connection back after an exchange."""
        if len(self._connections) >= KEPT_CONNECTIONS:
            connection.close()
        elif not connection.closed:
            self._connections.append(connection)

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
        """The bytes of a request. `path` is below the base URL's path; with `//` in front, below `/`."""
        target = path[1:] if path.startswith("//") else self._path + path
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._authority}", "User-Agent: org"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(
            f"no model server at {self.url}: {reason}",
            "start it (`ollama serve`), or name another with `--base URL` or ORG_BASE",
        )


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One for the process: making one costs more than 20 ms."""
    return ssl.create_default_context()


def _reason(error: OSError) -> str:
    """`connection refused` out of asyncio's longer words, and the resolver's own."""
    if isinstance(error, ssl.SSLError):
        return f"no TLS there ({error.reason or error})"
    # asyncio joins the failures at several addresses into one text, without a number of its own.
    numbers = dict.fromkeys(int(n) for n in re.findall(r"\[Errno (\d+)\] Connect call failed", str(error)))
    if numbers:
        return ", ".join(os.strerror(n).lower() for n in numbers)
    return (error.strerror or str(error)).lower()
