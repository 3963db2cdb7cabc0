"""One question over HTTP: whatever answers, it ends, and says what it was."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from fitness_kit import completion
from org.ops.fitness import ask
from org.ops.fitness.ask import Door, Late, put, read, request
from org.ops.fitness.rules import Ask

SOON = 0.5


@contextmanager
def listening(act: Callable[[socket.socket], None]) -> Iterator[Door]:
    """Something that takes one connection, reads a request and does that."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                with suppress(OSError):  # whoever asked has had enough
                    act(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Door(server.getsockname()[1], Ask("/ask", "me"))
        thread.join()


def drip(connection: socket.socket) -> None:
    """A byte now and then, so that no wait for the next one is ever long."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def silence(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def saying(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


@pytest.mark.parametrize("act", [drip, silence])
def test_a_late_answer_is_none(act: Callable[[socket.socket], None]) -> None:
    with listening(act) as door:
        reply = put(door, "hi", seed=1, seconds=SOON)
    assert (reply.kind, reply.why) == ("late", "no answer within 0.5 s")
    assert reply.seconds >= SOON


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe{",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_broken(data: bytes) -> None:
    with listening(saying(data)) as door:
        assert put(door, "hi", seed=1, seconds=20).kind == "broken"


def test_more_than_anybody_reads_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "MOST_BYTES", 1000)
    with listening(saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000)) as door:
        reply = put(door, "hi", seed=1, seconds=20)
    assert (reply.kind, reply.why) == ("broken", "ValueError: more than 1000 bytes")


def test_nobody_there_is_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reply = put(Door(port, Ask()), "hi", seed=1, seconds=20)
    assert (reply.kind, "Refused" in reply.why) == ("broken", True)
    with pytest.raises(ConnectionRefusedError):
        request(Door(port, Ask()), "GET", "/")


def test_what_is_asked() -> None:
    heard: list[bytes] = []

    def hear(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                data = b""
                while b'"hi"' not in data:
                    data += connection.recv(65_536)
                heard.append(data)
                hear(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        door = Door(server.getsockname()[1], Ask("/ask", "me"), "secret")
        put(door, "hi", seed=7, seconds=20, system="be brief", max_tokens=8)
        thread.join()
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ask HTTP/1.1")
    assert b"Authorization: Bearer secret" in head
    assert json.loads(body) == {
        "model": "me",
        "seed": 7,
        "max_tokens": 8,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    }


def test_begun_is_told_also_when_nothing_could_be_sent() -> None:
    told: list[bool] = []
    with listening(silence) as door, pytest.raises(Late):
        request(door, "POST", "/", {}, SOON, begun=lambda: told.append(True))
    assert told


# -- what an answer says


def test_a_completion() -> None:
    reply = read(200, completion("42", 17), 0.5)
    assert (reply.kind, reply.text, reply.tokens, reply.seconds) == ("answered", "42", 17, 0.5)


@pytest.mark.parametrize("tokens", [None, "many", True, -1, float("nan"), float("inf"), [1], 10**400, 10**12])
def test_odd_counts_are_none(tokens: object) -> None:
    assert read(200, completion("42", tokens), 0).tokens is None


def test_what_it_says_can_be_written_and_shown() -> None:
    said = b'{"choices": [{"message": {"content": "a\\ud800\\nb", "reasoning_content": "\\udc80"}}]}'
    reply = read(200, said, 0)
    assert (reply.text, reply.thoughts) == ("a?\nb", "?")
    reply = read(500, b'{"error": {"message": "\\ud800\\u001b[2Jsorry\\n\\u2713 all is well"}}', 0)
    assert reply.why == "status 500:   [2Jsorry ✓ all is well"
    with listening(saying(b"\x1b[2J\xff\r\n\r\n")) as door:
        assert put(door, "hi", seed=1, seconds=20).why.isprintable()


@pytest.mark.parametrize(
    ("status", "data", "kind"),
    [
        (503, b'{"error": {"message": "down"}}', "endpoint"),
        (502, b'{"error": {"message": "down", "type": "server_error"}}', "endpoint"),
        (503, b"down", "broken"),
        (500, b'{"error": {"message": "down"}}', "broken"),
        (404, b'{"error": {"message": "no such model"}}', "broken"),
        (200, b"garbage", "broken"),
        (200, b"[]", "broken"),
        (200, b'{"choices": []}', "broken"),
        (200, b'{"choices": [{"message": []}]}', "broken"),
        (200, b'{"choices": [{"message": {"content": NaN}}]}', "broken"),
        (200, b'{"choices": [{"message": {"content": null}}]}', "broken"),
        (200, b'{"choices": {"0": 1}}', "broken"),
        (200, b"[" * 100_000, "broken"),
        (200, completion(["parts"]), "broken"),
    ],
)
def test_what_else_may_come(status: int, data: bytes, kind: str) -> None:
    assert read(status, data, 0).kind == kind
