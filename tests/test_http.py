from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from org.errors import OrgError, ServerUnreachable, StreamBroken, StreamStalled, UsageError
from org.llm import http
from org.llm.http import Origin, Response, Unanswered
from replay import (
    BARE_STREAM_HEAD,
    CUT,
    HANG,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    Answer,
    Replay,
    chunk,
    head,
    plain,
    replay,
    stream,
)

IDLE_S = 10.0


class Client:
    """One origin; `ask` gives the answer and, apart, what came as a stream."""

    def __init__(self, server: Replay) -> None:
        self.origin = Origin(server.url, connect_timeout_s=5)
        self.streamed = b""

    async def ask(self, *, idle_timeout_s: float = IDLE_S, until: bytes = b"[DONE]") -> Response:
        self.streamed = b""

        def on_stream(data: bytes) -> bool:
            self.streamed += data
            return until in self.streamed

        connection, _ = await self.origin.acquire()
        request = self.origin.request("POST", "/chat/completions", {"X-Test": "1"}, b"{}")
        response = await connection.exchange(request, on_stream, idle_timeout_s)
        self.origin.release(connection)
        return response


@asynccontextmanager
async def client_of(*answers: Answer) -> AsyncIterator[tuple[Client, Replay]]:
    async with replay(*answers) as server:
        client = Client(server)
        try:
            yield client, server
        finally:
            client.origin.close()


async def failure(*answer: bytes | object) -> str:
    """The message of the error that an answer ends in."""
    async with client_of(list(answer)) as (client, _):  # type: ignore[arg-type]
        with pytest.raises(StreamBroken) as caught:
            await client.ask()
    return caught.value.message


async def test_a_request_as_it_stands_on_the_wire() -> None:
    async with client_of([plain("{}")]) as (client, server):
        response = await client.ask()
        assert (response.status, response.body) == (200, b"{}")
        assert response.headers["content-type"] == "application/json"
        (request,) = server.requests
        assert request.line == "POST /v1/chat/completions HTTP/1.1"
        assert request.body == b"{}"
        assert request.headers == {
            "host": f"127.0.0.1:{server.port}",
            "user-agent": "org",
            "x-test": "1",
            "content-type": "application/json",
            "content-length": "2",
        }


@pytest.mark.parametrize(
    "answer",
    [
        [STREAM_HEAD, chunk(b"a"), chunk(b"bc"), LAST_CHUNK],
        [STREAM_HEAD + chunk(b"a") + chunk(b"bc") + LAST_CHUNK],
        [bytes([byte]) for byte in stream(b"abc", (2,))],
        [head("100 Continue"), head("103 Early Hints", "Link: </x>", "Content-Length: 5"), stream(b"abc")],
        [BARE_STREAM_HEAD + b"ab", b"c", CUT],
        [BARE_STREAM_HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc", CUT],
        [head("200 OK", "Content-Type: Text/Event-Stream; charset=utf-8", "Content-Length: 3"), b"abc"],
        [STREAM_HEAD, b"3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"],
        [STREAM_HEAD, chunk(b"abc"), CUT],  # whether that was all, the stream itself must say
    ],
)
async def test_the_body_of_a_stream_in_any_framing(answer: Answer) -> None:
    async with client_of(answer) as (client, _):
        response = await client.ask()
        assert (response.status, response.body, client.streamed) == (200, b"", b"abc")


@pytest.mark.parametrize(
    "answer",
    [
        [plain("abc")],
        [head("200 OK", "Transfer-Encoding: chunked"), chunk(b"ab") + chunk(b"c") + LAST_CHUNK],
        [head("200 OK"), b"ab", b"c", CUT],
        [plain("abc", "500 Internal Server Error", "text/event-stream")],
    ],
)
async def test_the_body_of_what_is_no_stream(answer: Answer) -> None:
    async with client_of(answer) as (client, _):
        response = await client.ask()
        assert (response.body, client.streamed) == (b"abc", b"")


async def test_an_answer_without_a_body() -> None:
    async with client_of([head("204 No Content")]) as (client, _):
        assert await client.ask() == Response(204, {}, b"")


# -- kept connections


async def test_a_connection_is_used_again_when_its_answer_was_read_to_the_end() -> None:
    async with client_of([stream(b"x")], [plain("{}")]) as (client, server):
        for _ in range(3):
            await client.ask()
        assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize(
    "answer",
    [
        [plain("{}", "200 OK", "application/json", "Connection: close")],
        [plain("{}").replace(b"HTTP/1.1", b"HTTP/1.0")],
        [STREAM_HEAD + chunk(b"[DONE]"), HANG],  # its end was not waited for
    ],
)
async def test_a_connection_is_not_used_again(answer: Answer) -> None:
    async with client_of(answer, [plain("{}")]) as (client, server):
        await client.ask()
        await client.ask()
        assert server.connections == 2


async def test_the_rest_of_a_stream_that_is_over_is_read_without_waiting_for_it() -> None:
    async with client_of([STREAM_HEAD + chunk(b"[DONE]"), HANG]) as (client, _):
        connection, _ = await client.origin.acquire()
        await connection.exchange(client.origin.request("GET", "/x", {}), lambda _: True, IDLE_S)
        states = [connection.idle]
        connection.data_received(LAST_CHUNK)
        assert [*states, connection.idle] == [False, True]
        connection.close()


@pytest.mark.parametrize(
    "more", [plain("more", "500 Oh"), b"HTTP/1.1 2", b"garbage", STREAM_HEAD + chunk(b"y")]
)
@pytest.mark.parametrize("answer", [plain("{}"), stream(b"x")])
async def test_what_follows_a_whole_answer_does_not_change_it(answer: bytes, more: bytes) -> None:
    async with client_of([answer + more], [plain("{}")]) as (client, server):
        response = await client.ask()
        assert (response.status, response.body + client.streamed) in [(200, b"{}"), (200, b"x")]
        await client.ask()
        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_close_a_kept_connection() -> None:
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    async with client_of([plain("{}"), late], [plain("{}")]) as (client, server):
        await client.ask()
        await server.requests[0].gone.wait()
        await client.ask()
        assert server.connections == 2


async def test_few_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEPT_CONNECTIONS", 2)
    async with client_of([plain("{}")]) as (client, server):
        connections = [await client.origin.acquire() for _ in range(5)]
        assert server.open <= 5
        for connection, used in connections:
            assert not used
            client.origin.release(connection)
        assert sum(not connection.closed for connection, _ in connections) == 2


# -- what goes wrong


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_no_answer_at_all_is_told_from_half_of_one(end: object) -> None:
    async with client_of([end]) as (client, _):  # type: ignore[list-item]
        with pytest.raises(Unanswered, match="closed the connection before it answered"):
            await client.ask()
    for half in (b"HTTP/1.1 200", head("200 OK", "Content-Length: 10") + b"abc", head("100 Continue")):
        message = await failure(half, end)
        assert message == "the server closed the connection in the middle of its answer"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the server does not speak HTTP/1.1: "),
        (b"\x15\x03\x01\x00\x02\x02\x16", "the server does not speak HTTP/1.1: "),
        (head("200 OK", "Content-Length: x"), "the server does not speak HTTP/1.1: "),
        (STREAM_HEAD + b"zz\r\n", "the server does not speak HTTP/1.1: "),
        (head("101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade"), "something else than HTTP"),
        (plain(b"\x1f\x8b\x08", "200 OK", "text/event-stream", "Content-Encoding: gzip"), "as `gzip`"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(answer: bytes, message: str) -> None:
    assert message in await failure(answer, HANG)


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1_000),  # headers without end
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000),  # a header without end
        (b"", head("100 Continue") * 500),  # interim answers without end
        (STREAM_HEAD + b"0\r\n", b"T: x\r\n" * 2_000),  # trailers without end
        (STREAM_HEAD + b"5;x=", b"x" * 10_000),  # the size of a chunk without end
    ],
)
async def test_a_server_that_never_comes_to_the_body_is_given_up(
    start: bytes, flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "OVERHEAD_LIMIT", 30_000)
    message = await failure(start, *[flood] * 10, HANG)
    assert "bytes without an answer in them" in message


async def test_an_answer_too_long_to_keep_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_LIMIT", 10_000)
    message = await failure(head("200 OK"), b"x" * 20_000, HANG)
    assert message == "the server's answer is longer than 10000 bytes"


async def test_a_long_stream_has_no_such_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_LIMIT", 10_000)
    monkeypatch.setattr(http, "OVERHEAD_LIMIT", 10_000)
    async with client_of([STREAM_HEAD, *[chunk(b"x" * 1_000)] * 100, LAST_CHUNK]) as (client, _):
        await client.ask()
        assert client.streamed == b"x" * 100_000


async def test_what_the_callback_raises_ends_the_exchange() -> None:
    async with client_of([stream(b"x"), HANG]) as (client, server):
        connection, _ = await client.origin.acquire()

        def refuse(data: bytes) -> bool:
            raise OrgError("no more")

        with pytest.raises(OrgError, match="no more"):
            await connection.exchange(client.origin.request("GET", "/x", {}), refuse, IDLE_S)
        assert connection.closed
        await server.requests[0].gone.wait()


async def test_a_bug_in_the_callback_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of([stream(b"x"), HANG]) as (client, _):
        connection, _ = await client.origin.acquire()
        with pytest.raises(ZeroDivisionError):
            await connection.exchange(
                client.origin.request("GET", "/x", {}), lambda data: bool(1 / 0), IDLE_S
            )
    assert "ZeroDivisionError" in caplog.text


# -- silence


async def test_silence_for_longer_than_the_idle_timeout_is_a_stall() -> None:
    answers: list[Answer] = [[HANG], [STREAM_HEAD + chunk(b"x"), HANG]]
    for answer in answers:
        async with client_of(answer) as (client, server):
            with pytest.raises(StreamStalled) as caught:
                await client.ask(idle_timeout_s=0.05)
            assert caught.value.message == "nothing came from the model server for 0.05 s"
            await server.requests[0].gone.wait()


async def test_a_sign_of_life_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle timeout is measured from the newest byte, by the loop's clock."""
    loop = asyncio.get_running_loop()
    seconds = [loop.time()]
    async with client_of([HANG]) as (client, _):
        connection, _ = await client.origin.acquire()
        asking = connection.exchange(client.origin.request("GET", "/x", {}), lambda _: False, 10)
        task = asyncio.create_task(asking)
        monkeypatch.setattr(loop, "time", lambda: seconds[0])
        for data in (b"", STREAM_HEAD, chunk(b": ping\n"), chunk(b": ping\n")):
            await passed(1)
            connection.data_received(data)
            seconds[0] += 9
            await passed(3)
            assert not task.done()
        seconds[0] += 2
        with pytest.raises(StreamStalled):
            await task


async def passed(turns: int) -> None:
    """Let the loop turn a few times."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_an_exchange_leaves_no_timer_behind() -> None:
    async with client_of([plain("{}")]) as (client, _):
        connection, _ = await client.origin.acquire()
        await connection.exchange(client.origin.request("GET", "/x", {}), lambda _: True, IDLE_S)
        assert connection._watch.cancelled()
        connection.close()


async def test_cancelling_closes_the_socket_at_once() -> None:
    async with client_of([STREAM_HEAD + chunk(b"x"), HANG]) as (client, server):
        asking = asyncio.create_task(client.ask())
        request = await server.came.get()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await request.gone.wait()
        assert server.open == 0


# -- where a server is


@pytest.mark.parametrize(
    ("path", "target"), [("", "/x"), ("/", "/x"), ("/v1", "/v1/x"), ("/v1/", "/v1/x"), ("/a/v1//", "/a/v1/x")]
)
def test_targets_below_a_base_url(path: str, target: str) -> None:
    origin = Origin("http://localhost:11434" + path, connect_timeout_s=1)
    start = f"GET {target} HTTP/1.1\r\nHost: localhost:11434\r\n"
    assert origin.request("GET", "/x", {}).startswith(start.encode())
    assert origin.request("GET", "//api/tags", {}).startswith(b"GET /api/tags HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.com/v1", "Example.com"),
        ("https://example.com:8443/v1", "example.com:8443"),
        ("http://[::1]:5/v1", "[::1]:5"),
        ("http://127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_host_is_named_as_in_the_url(url: str, host: str) -> None:
    assert f"\r\nHost: {host}\r\n".encode() in Origin(url, connect_timeout_s=1).request("GET", "/x", {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:11434",
        "ftp://127.0.0.1/v1",
        "http:///v1",
        "http://[::1/v1",
        "http://127.0.0.1:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1/v1?key=1",
        "http://127.0.0.1/v1#x",
        "http://127.0.0.1/v1 HTTP/1.1\r\nX: y",
        "http://exämple.com/v1",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a base URL"):
        Origin(url, connect_timeout_s=1)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        Origin("http://me:secret@127.0.0.1/v1", connect_timeout_s=1)
    assert "secret" not in caught.value.message + caught.value.hint
    assert "ORG_API_KEY" in caught.value.hint


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection_is_said_in_words(host: str) -> None:
    url = f"http://{host}:{unused_port()}/v1"
    with pytest.raises(ServerUnreachable) as caught:
        await Origin(url, connect_timeout_s=5).acquire()
    assert caught.value.message == f"no model server at {url}: connection refused"
    assert "ollama serve" in caught.value.hint


async def test_a_host_that_has_no_address() -> None:
    with pytest.raises(ServerUnreachable, match=r"no model server at http://no-such-host\.invalid/v1: "):
        await Origin("http://no-such-host.invalid/v1", connect_timeout_s=5).acquire()


async def test_a_server_that_does_not_take_the_connection() -> None:
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):  # the queue holds one more than it was told
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        with pytest.raises(ServerUnreachable) as caught:
            await Origin(url, connect_timeout_s=0.05).acquire()
    assert caught.value.message == f"no model server at {url}: no answer within 0.05 s"


async def test_loopback_of_ipv6() -> None:
    async with replay([plain("{}")], host="::1") as server:
        client = Client(server)
        assert (await client.ask()).body == b"{}"
        assert server.requests[0].headers["host"] == f"[::1]:{server.port}"
        client.origin.close()


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, and its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout -"
    argv = ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    keys = subprocess.run(argv, check=True, capture_output=True)
    path.write_bytes(keys.stdout)
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def fresh_trust() -> Iterator[None]:
    """The process keeps one context: it is made anew within a test, and again after it."""
    http._tls_context.cache_clear()
    yield
    http._tls_context.cache_clear()


@pytest.mark.usefixtures("fresh_trust")
async def test_a_certificate_that_nobody_vouches_for_is_refused(server_tls: ssl.SSLContext) -> None:
    async with replay([plain("{}")], tls=server_tls) as server:
        with pytest.raises(ServerUnreachable) as caught:
            await Client(server).ask()
    assert caught.value.message == f"the certificate of {server.url} is not trusted: self-signed certificate"
    assert "SSL_CERT_FILE" in caught.value.hint


@pytest.mark.usefixtures("fresh_trust")
async def test_a_certificate_named_as_trusted_is_taken(
    server_tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with replay([plain("{}")], tls=server_tls) as server:
        client = Client(server)
        assert (await client.ask()).body == b"{}"
        client.origin.close()


async def test_no_tls_where_it_was_expected() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(plain("{}", "400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(ServerUnreachable, match=f"no model server at {url}: no TLS there"):
            await Origin(url, connect_timeout_s=5).acquire()


# -- many


async def test_a_thousand_connections_opened_and_dropped_leave_no_files_open() -> None:
    async with client_of([HANG]) as (client, server):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1_000):
            asking = asyncio.create_task(client.ask())
            await server.came.get()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await server.emptied()
        assert server.connections == 1_000
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(asyncio.all_tasks()) <= 2


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is asked for one: the request goes to the server itself."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")

    async def ask() -> bytes:
        async with client_of([plain("{}")]) as (client, _):
            return (await client.ask()).body

    assert asyncio.run(ask()) == b"{}"
