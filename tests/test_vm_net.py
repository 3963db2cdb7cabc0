"""The relay from both its ends: programs of the guest on one side, a model server on the other."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from org.errors import SandboxGone
from org.sandbox.vm import frames, net
from org.sandbox.vm.gate import Asked, Gate, Refusal, Upstream
from org.sandbox.vm.net import Caps, Policy, Relay, holder, relaying
from stepping import Server, stepping
from vm_kit import Impostor, free_port, impostor, relay
from waiting import until

DEADLINE_S = 30.0
KEY = "secret-key"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with stepping() as model:
        yield model


class Way:
    """A relay between a guest that listens on `model` and a server; `lines` is its log."""

    def __init__(self, model: int, relay: Relay, lines: list[str]) -> None:
        self.model = model
        self.relay = relay
        self.lines = lines

    async def ask(self, data: bytes) -> bytes:
        """What a program of the guest gets for these bytes, all of it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.model)
        try:
            writer.write(data)
            async with asyncio.timeout(DEADLINE_S):
                return await reader.read(-1)
        finally:
            writer.close()


@asynccontextmanager
async def path_to(server: Server, policy: Policy | None = None, inbound: int = 0) -> AsyncIterator[Way]:
    model = free_port()
    lines: list[str] = []
    chosen = policy or Policy(Upstream("127.0.0.1", server.port, key=KEY), {})
    async with (
        relay(model, [inbound] if inbound else []) as guest,
        relaying(guest.path, chosen, lines.append) as running,
    ):
        serving = asyncio.create_task(running.run())
        try:
            yield Way(model, running, lines)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError, SandboxGone):
                await serving


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1:11434",
        f"Content-Length: {len(body)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# -- the gate, by itself


def passed(data: bytes, size: int = 1_000_000, most_body: int = 1000) -> tuple[Gate, bytes]:
    gate = Gate(most_body)
    body = b"".join(gate.feed(data[start : start + size]) for start in range(0, len(data), size))
    return gate, body


GOOD = [
    (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    (b"GET /api/tags HTTP/1.0\r\n\r\n", b""),
    (b"GET /api/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mine\r\n\r\n", b""),
    (post("/v1/chat/completions", b'{"a": 1}', "Content-Type: application/json"), b'{"a": 1}'),
    (
        b"POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        b"abcde",
    ),
]


@pytest.mark.parametrize(("data", "body"), GOOD)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_may_pass_is_understood_however_it_is_split(data: bytes, body: bytes, size: int) -> None:
    gate, got = passed(data, size)
    assert gate.complete
    assert got == body
    assert gate.asked is not None
    head = gate.asked.head(Upstream("model.example", 80, key=KEY)).decode()
    assert head.count("Host: model.example:80\r\n") == 1
    assert head.count(f"Authorization: Bearer {KEY}\r\n") == 1
    assert "mine" not in head
    assert head.endswith("Connection: close\r\n\r\n")


OK = "Host: x\r\nContent-Length: 0\r\n\r\n"
BAD = [
    *(
        f"GET {path} HTTP/1.1\r\n{OK}"
        for path in ("/", "*", "/v1", "/v1/", "/v1/models/", "/v1/models/x", "/v1/files")
    ),
    *(
        f"GET {path} HTTP/1.1\r\n{OK}"
        for path in ("//v1/models", "/v1//models", "/v1/../v1/models", "/v1/./models")
    ),
    *(
        f"GET {path} HTTP/1.1\r\n{OK}"
        for path in ("/%761/models", "/v1%2fmodels", "/v1/models%00", "/v1/models%20")
    ),
    *(
        f"GET {path} HTTP/1.1\r\n{OK}"
        for path in ("/v1/models?x=1", "/v1/models#x", "/v1/models;x", "/V1/models")
    ),
    *(
        f"GET {path} HTTP/1.1\r\n{OK}"
        for path in ("http://127.0.0.1/v1/models", "//evil/v1/models", "\\v1\\models")
    ),
    *(
        f"POST {path} HTTP/1.1\r\n{OK}"
        for path in ("/api/pull", "/api/create", "/api/delete", "/api/push", "/api/copy")
    ),
    *(
        f"POST {path} HTTP/1.1\r\n{OK}"
        for path in ("/api/chat", "/api/generate", "/api/embed", "/v1/completions")
    ),
    *(
        f"{method} /v1/models HTTP/1.1\r\n{OK}"
        for method in ("POST", "DELETE", "HEAD", "PUT", "OPTIONS", "TRACE", "X")
    ),
    f"GET /v1/chat/completions HTTP/1.1\r\n{OK}",
    f"DELETE /api/show HTTP/1.1\r\n{OK}",
    f"CONNECT evil:443 HTTP/1.1\r\n{OK}",
    f"CONNECT /v1/models HTTP/1.1\r\n{OK}",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /v1/models HTTP/2.0\r\nHost: x\r\n\r\n",
    "GET /v1/models\r\n",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nX: a\x01b\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nX\0: a\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/1.1 200 OK\r\n\r\n",
    *(
        f"POST /api/show HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"
        for fields in (
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3, 3",
            "Content-Length: -3",
            "Content-Length: +3",
            "Content-Length: 0x3",
            "Content-Length: 3 3",
            "Content-Length: 99999999999999999999999",
            "Content-Length: 1001",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\x0bchunked",
        )
    ),
    "POST /api/show HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
    "POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + "3e9\r\n"
    + "x" * 1001
    + "\r\n0\r\n\r\n",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /api/tags HTTP/1.1\r\nHost: x\r\n\r\n",
    f"POST /api/show HTTP/1.1\r\nContent-Length: 2\r\n\r\nabDELETE /api/delete HTTP/1.1\r\n{OK}",
    "GET /v1/models HTTP/1.1\r\n" + "X: y\r\n" * 101 + "\r\n",
    "GET /v1/models HTTP/1.1\r\nX: " + "y" * 40_000 + "\r\n\r\n",
    "GET /" + "x" * 200_000,
    "GET /v1/models HTTP/1.1\r\nX: " + "y" * 200_000,
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:60].encode("unicode_escape").decode())
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_may_not_pass_is_refused_however_it_is_split(text: str, size: int) -> None:
    with pytest.raises(Refusal):
        passed(text.encode("latin-1") + b"\r\n\r\n", size)


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=4))
def test_changed_requests_are_refused_or_are_one_of_the_few(
    good: tuple[bytes, bytes], changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(good[0])
    for place, piece in changes:
        data[place : place + len(piece)] = piece
    with suppress(Refusal):
        gate, _ = passed(bytes(data))
        if gate.asked is not None:
            lines = gate.asked.head(Upstream("m", 1)).decode("ascii").split("\r\n")
            assert lines[0].split(" ")[1] in {
                "/v1/models",
                "/v1/chat/completions",
                *(f"/api/{name}" for name in ("version", "tags", "ps", "show")),
            }
            assert lines[-2:] == ["", ""]
            names = [line.split(":")[0] for line in lines[1:-2]]
            assert len(set(names)) == len(names)
            assert not {"Upgrade", "upgrade", "authorization", "Authorization"} & set(names)


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_are_refused_or_wait_for_more(data: bytes, size: int) -> None:
    with suppress(Refusal):
        gate, _ = passed(data, size)
        assert gate.asked is None
        assert gate.shown.isascii()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1", {"/v1/models": "/v1/models", "/api/tags": "/api/tags"}),
        ("/ollama/v1", {"/v1/models": "/ollama/v1/models", "/api/tags": "/ollama/api/tags"}),
        ("/openai", {"/v1/models": "/openai/models", "/api/tags": ""}),
    ],
)
def test_paths_are_those_of_the_server(path: str, target: dict[str, str]) -> None:
    for asked, wanted in target.items():
        gate, _ = passed(f"GET {asked} HTTP/1.1\r\n\r\n".encode())
        assert gate.asked is not None
        upstream = Upstream("::1", 80, path)
        if wanted:
            head = gate.asked.head(upstream)
            assert head.startswith(f"GET {wanted} HTTP/1.1\r\nHost: [::1]:80\r\n".encode())
        else:
            with pytest.raises(Refusal):
                gate.asked.head(upstream)


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(Upstream("h", 1, key=KEY)) + str(Policy(Upstream("h", 1, key=KEY)))


# -- through a guest and back


async def test_a_request_goes_and_its_answer_comes(server: Server) -> None:
    async with path_to(server) as path:
        fields = ["Authorization: Bearer stolen", "Cookie: x", "Content-Type: application/json", "Host-X: y"]
        answer = await path.ask(post("/v1/chat/completions", b"x" * 3_000_000, *fields))
        assert answer.endswith(b'{"length": 3000000}')
        assert server.bodies == [b"x" * 3_000_000]
        assert server.heads[0].splitlines() == [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            f"Authorization: Bearer {KEY}",
            "content-type: application/json",
            "Content-Length: 3000000",
            "Connection: close",
            "",
        ]
        (line,) = path.lines
        assert line.startswith("POST /v1/chat/completions 200 ")
        assert KEY not in line


async def test_chunks_and_a_client_that_waits_to_go_on(server: Server) -> None:
    async with path_to(server) as path:
        head = (
            "POST /api/show HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", path.model)
        writer.write(head.encode())
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            for piece in (b"5\r\nhel", b"lo\r\n1\r", b"\n!\r\n0\r\n\r\n"):
                writer.write(piece)
                await writer.drain()
            assert (await reader.read(-1)).endswith(b'{"length": 6}')
        writer.close()
        assert server.bodies == [b"hello!"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /v1/models/../../api/pull HTTP/1.1\r\n\r\n", 403),
        (b"DELETE /api/delete HTTP/1.1\r\n\r\n", 403),
        (b"DELETE /v1/models HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n", 403),
        (b"SSH-2.0-OpenSSH\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\nGET /api/tags HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_what_is_refused_never_reaches_the_server(server: Server, data: bytes, code: int) -> None:
    async with path_to(server) as path:
        answer = await path.ask(data)
        assert status(answer) == code
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["message"]
        assert server.heads == []
        assert f"refused {code}" in path.lines[0]
        assert path.relay.counts.refused == 1
        assert (await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("streams", [1, 8, 32])
async def test_events_come_one_by_one_and_in_order(server: Server, streams: int) -> None:
    """The server sends an event only after the one before was seen: a buffer anywhere would hang here."""

    async def follow(path: Way, name: str, count: int) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", path.model)
        body = json.dumps({"stream": name, "count": count}).encode()
        writer.write(post("/v1/chat/completions", body))
        await reader.readuntil(b"\r\n\r\n")
        seen = []
        while line := await reader.readline():
            if line.strip():
                seen.append(line.decode().strip())
                server.gates[name].set()
        writer.close()
        return seen

    async with path_to(server) as path, asyncio.timeout(DEADLINE_S):
        names = [f"s{number}" for number in range(streams)]
        seen = await asyncio.gather(*(follow(path, name, 20) for name in names))
        for name, lines in zip(names, seen, strict=True):
            assert lines == [*(f"data: {name} {number}" for number in range(20)), "data: [DONE]"]


async def test_who_leaves_ends_the_request_on_the_server(server: Server) -> None:
    async with path_to(server) as path, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", path.model)
        writer.write(post("/v1/chat/completions", b'{"stream": "x", "count": 1000}'))
        await reader.readuntil(b"data: x 0\n\n")
        writer.close()
        await server.cut.wait()
        assert server.open == 0


async def test_a_server_that_is_not_there_is_an_answer(server: Server) -> None:
    nobody = Policy(Upstream("127.0.0.1", free_port()), {})
    async with path_to(server, nobody) as path:
        assert status(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 502


async def test_caps(server: Server) -> None:
    upstream = Upstream("127.0.0.1", server.port)
    async with path_to(server, Policy(upstream, {}, Caps(requests=2, asked=1000, answered=50))) as path:
        assert status(await path.ask(post("/api/show", b"x" * 1001))) == 413
        assert len(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 0  # the answer has 53 bytes
        assert "cut at 50 bytes" in path.lines[-1]
        waiting = []
        for _ in range(2):
            waiting.append(await asyncio.open_connection("127.0.0.1", path.model))
        assert status(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 503
        for _, writer in waiting:
            writer.close()


async def test_a_guest_that_says_nothing_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "_HEAD_S", 0.2)
    async with path_to(server) as path:
        assert status(await path.ask(b"POST /api/sh")) == 408


async def test_a_hundred_requests_at_a_time_get_their_own_answers(server: Server) -> None:
    many = replace(Policy(Upstream("127.0.0.1", server.port), {}), caps=Caps(requests=128))
    async with path_to(server, many) as path:
        answers = await asyncio.gather(*(path.ask(post("/api/show", b"x" * number)) for number in range(100)))
        assert [json.loads(answer.split(b"\r\n\r\n")[1])["length"] for answer in answers] == [*range(100)]
        assert path.relay.counts.requests == 100


# -- into the guest


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()


async def test_a_server_in_the_guest_appears_here_while_it_is_there(server: Server) -> None:
    inside, outside = free_port(), free_port()
    policy = Policy(Upstream("127.0.0.1", server.port), {inside: outside})
    async with path_to(server, policy, inside) as path:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", outside)
        async with await asyncio.start_server(echo, "127.0.0.1", inside):
            await until(lambda: path.relay.serving == {inside: ""})
            data = os.urandom(2_000_000)
            reader, writer = await asyncio.open_connection("127.0.0.1", outside)

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read(-1) == data + b"bye"  # the half that is closed stays closed alone
            await sending
            writer.close()
        await until(lambda: path.relay.serving == {})
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", outside)


async def test_who_holds_a_port_is_named_and_the_port_is_taken_when_it_is_free(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "_AGAIN_S", 0.05)
    inside = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outside = taken.getsockname()[1]
        assert f"(process {os.getpid()})" in holder(outside)
        policy = Policy(Upstream("127.0.0.1", server.port), {inside: outside})
        serving = await asyncio.start_server(echo, "127.0.0.1", inside)
        async with path_to(server, policy, inside) as path, serving:
            await until(lambda: bool(path.relay.serving))
            assert f"process {os.getpid()}" in path.relay.serving[inside]
            taken.close()
            await until(lambda: path.relay.serving == {inside: ""})


def test_nobody_holds_a_free_port() -> None:
    assert holder(free_port()) == ""


# -- guests that lie


@asynccontextmanager
async def against(
    server: Server, policy: Policy | None = None
) -> AsyncIterator[tuple[Impostor, asyncio.Task[None]]]:
    async with asyncio.timeout(DEADLINE_S), impostor() as guest:
        chosen = policy or Policy(Upstream("127.0.0.1", server.port), {})
        async with relaying(guest.path, chosen, lambda _line: None) as running:
            serving = asyncio.create_task(running.run())
            try:
                yield guest, serving
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


def opened(number: int, to: object = "model") -> bytes:
    return frames.told(frames.OPEN, number, {"to": to})


async def test_bytes_may_come_before_the_server_was_reached(server: Server) -> None:
    async with against(server) as (guest, _):
        await guest.say(opened(1) + frames.frame(frames.DATA, 1, b"GET /v1/models HTTP/1.1\r\n\r\n"))
        assert b"200 OK" in (await guest.next(frames.DATA)).payload


@pytest.mark.parametrize(
    "said",
    [
        opened(2),
        opened(1) * 2,
        opened(5) + opened(3),
        frames.frame(frames.OPEN, 1, b"[" * 5000),
        opened(1) + frames.credit(1, 1),
        opened(1) + frames.frame(frames.PING, 0, bytes(8)),
        frames.frame(frames.DATA, 1, b"x") * 20_000,
    ],
    ids=range(7),
)
async def test_what_breaks_the_protocol_closes_everything(server: Server, said: bytes) -> None:
    async with against(server) as (guest, serving):
        saying = asyncio.create_task(guest.say(said))
        with pytest.raises(SandboxGone, match="broke the protocol"):
            await serving
        await saying


@pytest.mark.parametrize("to", ["", "evil:443", 22, 7001, None, ["model"], {"model": 1}])
async def test_nothing_else_can_be_reached(server: Server, to: object) -> None:
    async with against(server) as (guest, _):
        await guest.say(opened(1, to))
        assert b"error" in (await guest.next(frames.CLOSE)).payload
        assert server.heads == []


@pytest.mark.parametrize("serving", [22, "7001", [22, 80, "x", None, {}], {}, [[7001]]])
async def test_no_other_port_is_opened_here(server: Server, serving: object) -> None:
    policy = Policy(Upstream("127.0.0.1", server.port), {7001: free_port()})
    async with against(server, policy) as (guest, _):
        await guest.say(frames.told(frames.NOTE, 0, {"serving": serving}) + opened(1, "x"))
        await guest.next(frames.CLOSE)  # the note was heard before
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", policy.inbound[7001])


async def test_a_connection_that_is_reset_ends_alone(server: Server) -> None:
    policy = Policy(Upstream("127.0.0.1", server.port), {7001: free_port()})
    async with against(server, policy) as (guest, serving):
        await guest.say(frames.told(frames.NOTE, 0, {"serving": [7001]}))
        for said in (frames.EOF, b""), (frames.DATA, b"x"):
            with await connected(policy.inbound[7001]) as client:
                number = (await guest.next(frames.OPEN)).channel
                client.shutdown(socket.SHUT_WR)
                await guest.next(frames.EOF)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await guest.say(frames.frame(said[0], number, said[1]))  # nobody is there to take it
            await guest.next(frames.CLOSE)
        assert not serving.done()
        with await connected(policy.inbound[7001]):
            await guest.next(frames.OPEN)


async def connected(port: int) -> socket.socket:
    """A connection to a port here, once somebody listens there."""
    while True:
        with suppress(ConnectionRefusedError):
            return await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
        await asyncio.sleep(0.01)


async def test_a_flood_of_requests_leaves_the_log_what_it_had(server: Server) -> None:
    lines: list[str] = []
    async with asyncio.timeout(DEADLINE_S), impostor() as guest:
        policy = Policy(Upstream("127.0.0.1", server.port), {})
        async with relaying(guest.path, policy, lines.append) as running:
            serving = asyncio.create_task(running.run())
            for number in range(1, 1001, 2):
                await guest.say(opened(number) + frames.frame(frames.DATA, number, b"x\r\n\r\n"))
                await guest.next(frames.CLOSE)
            await guest.hang_up()
            with pytest.raises(SandboxGone):
                await serving
    told = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("lines left out")]
    assert len(lines) < 400
    assert len(lines) - len(told) + sum(told) == 500


async def test_a_fault_of_the_relay_closes_everything_and_its_text_is_not_logged(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError(KEY)

    monkeypatch.setattr(Asked, "head", broken)
    async with path_to(server) as path:
        assert await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n") == b""
        await until(lambda: path.relay.gone is not None)
        assert "relay: RuntimeError" in path.lines
        assert KEY not in "\n".join(path.lines)


async def test_a_key_that_no_request_can_hold_is_an_answer_and_in_no_log(server: Server) -> None:
    policy = Policy(Upstream("127.0.0.1", server.port, key="gehe\u0131m-\N{SNOWMAN}"), {})
    async with path_to(server, policy) as path:
        assert status(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 502
        assert status(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 502
        await until(lambda: len(path.lines) == 2)
        assert "gehe" not in "\n".join(path.lines)


async def test_a_flood_of_channels_is_refused_and_forgotten(server: Server) -> None:
    async with against(server) as (guest, serving):
        for number in range(1, 4001, 2):
            await guest.say(opened(number))
        for _ in range(2000 - Caps().requests):
            await guest.next(frames.CLOSE)
        assert not serving.done()


@pytest.mark.parametrize("seed", range(30))
async def test_rubbish_does_not_get_through_and_ends(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    async with against(server) as (guest, serving):
        for turn in range(chance.randrange(1, 60)):
            number = chance.choice([1, 1, 3, turn * 2 + 1, chance.randrange(2**32)])
            payload = chance.choice(
                [b"", chance.randbytes(4), BAD[turn].encode("latin-1")[:9000], b"{}", b'{"to":"model"}']
            )
            await guest.say(frames.frame(chance.randrange(0, 12), number, payload))
        await guest.hang_up()
        with pytest.raises(SandboxGone):
            await serving
        assert all(head.split(" ")[1] in {"/v1/models", "/api/show"} for head in server.heads)


async def test_the_guests_relay_serves_the_next_host_too(server: Server) -> None:
    model = free_port()
    policy = Policy(Upstream("127.0.0.1", server.port), {})
    async with relay(model) as guest, asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            async with relaying(guest.path, policy, lambda _line: None) as running:
                serving = asyncio.create_task(running.run())
                path = Way(model, running, [])
                assert status(await path.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")) == 200
                hanging = await asyncio.open_connection("127.0.0.1", model)
                hanging[1].write(post("/v1/chat/completions", b'{"stream": "x", "count": 9}'))
                await hanging[0].readuntil(b"data: x 0\n\n")
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
            assert await hanging[0].read() == b""
            hanging[1].close()
        assert Path(guest.path).exists()
