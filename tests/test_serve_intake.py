"""No connection is lost between two hands: it is answered, or waits at the socket for who comes next."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from org.serve import drain, intake
from serve_kit import DEADLINE_S, Client, Process, listening, request
from waiting import until

TLS = Path(__file__).parent / "data" / "tls"
ASK = request("GET", "/", connection="close")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


@asynccontextmanager
async def serving(
    listener: socket.socket, keep_alive_s: float = DEADLINE_S, **options: Any
) -> AsyncIterator[drain.Server]:
    """A server on a listener that we keep, as whoever starts one does; it is drained at the end."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse("here")

    async def finish(seconds: float) -> None:
        pass

    server = drain.Server(
        drain.config(Starlette(routes=[Route("/", answer)]), **options),
        accepting=lambda: None,
        draining=lambda: None,
        finish=finish,
        keep_alive_s=keep_alive_s,
    )
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    theirs = [listener.dup()]
    await server.startup(theirs)
    try:
        yield server
    finally:
        await server.shutdown(theirs)


def connect(listener: socket.socket, stack: ExitStack) -> socket.socket:
    """A connection that nobody has taken yet."""
    return stack.enter_context(socket.create_connection(listener.getsockname(), timeout=DEADLINE_S))


def knock(listener: socket.socket, stack: ExitStack) -> socket.socket:
    """One with a request on it."""
    client = connect(listener, stack)
    client.sendall(ASK)
    return client


def answered(client: socket.socket) -> bool:
    return client.recv(4096).startswith(b"HTTP/1.1 200 ")


def take_waiting(listener: socket.socket) -> int:
    """What was left for who comes next; it is answered."""
    found = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return found
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        found += 1


@pytest.mark.parametrize("turns", range(8))
async def test_told_to_end_any_number_of_turns_after_they_came(listener: socket.socket, turns: int) -> None:
    with ExitStack() as stack:
        async with serving(listener):
            clients = [knock(listener, stack) for _ in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
        left = take_waiting(listener)
        assert left == (20 if turns < 2 else 0)  # the first turn sees them, the second takes them
        assert [answered(client) for client in clients] == [True] * 20


async def test_a_process_that_stood_still_when_it_was_told(tmp_path: Path, listener: socket.socket) -> None:
    """On a busy machine it sees at once that there are connections and that it is to end."""
    process = await Process(tmp_path, listener, KEEP_ALIVE_S="5").start()
    try:
        with ExitStack() as stack:
            process.popen.send_signal(signal.SIGSTOP)
            clients = [knock(listener, stack) for _ in range(20)]
            process.popen.send_signal(signal.SIGTERM)
            process.popen.send_signal(signal.SIGCONT)
            assert await process.said() == "draining"
            assert await process.said() == "drained"
            take_waiting(listener)
            assert [answered(client) for client in clients] == [True] * 20
    finally:
        process.close()


async def test_a_request_that_is_on_its_way_when_the_server_is_told_to_end(listener: socket.socket) -> None:
    """Whoever was silent so far, or has sent half a request, is waited for."""
    with ExitStack() as stack:
        async with serving(listener) as server:
            silent, half = (connect(listener, stack) for _ in range(2))
            half.sendall(ASK[:10])
            await until(lambda: len(server.server_state.connections) == 2)

            async def go_on() -> None:
                await until(lambda: server.server_state.default_headers)  # by now it says `close`
                silent.sendall(ASK)
                half.sendall(ASK[10:])

            going_on = asyncio.create_task(go_on())
        await going_on
        assert (answered(silent), answered(half)) == (True, True)


async def test_what_has_come_is_not_closed_unread(listener: socket.socket) -> None:
    """The time for which an idle connection is kept is over just as a request comes, or a part of one."""
    with ExitStack() as stack:
        async with serving(listener, keep_alive_s=0.0) as server:
            whole, part, silent = (connect(listener, stack) for _ in range(3))
            await until(lambda: len(server.server_state.connections) == 3)
            whole.sendall(ASK)
            part.sendall(ASK[:10])

            async def go_on() -> None:
                await until(lambda: len(server.server_state.connections) == 1)
                part.sendall(ASK[10:])

            going_on = asyncio.create_task(go_on())
        await going_on
        assert (answered(whole), answered(part), silent.recv(1)) == (True, True, b"")


async def test_who_is_about_to_speak_tls_is_waited_for(listener: socket.socket) -> None:
    files: dict[str, Any] = {"ssl_certfile": str(TLS / "cert.pem"), "ssl_keyfile": str(TLS / "key.pem")}
    with ExitStack() as stack:
        async with serving(listener, **files) as server:
            early, stranger, silent = (connect(listener, stack) for _ in range(3))
            (taking,) = server._intakes
            await until(lambda: len(taking.coming) == 3)

            async def go_on() -> bool:
                await until(lambda: server.server_state.default_headers)
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                context = ssl.create_default_context(cafile=TLS / "cert.pem")
                early.setblocking(False)
                streams = await asyncio.open_connection(sock=early, ssl=context, server_hostname="localhost")
                async with Client(*streams) as client:
                    status = (await client.ask("GET", "/")).status
                await until(lambda: len(taking.coming) == 1)
                server.tell(now=True)
                return status == 200

            going_on = asyncio.create_task(go_on())
        assert await going_on
        assert silent.recv(1) == b""


async def test_without_files_to_open_it_takes_them_later(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake, "PAUSE_S", 0.01)
    with ExitStack() as stack:
        async with serving(listener):
            client = knock(listener, stack)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                await until(
                    lambda: caplog.messages.count("no connection can be taken: Too many open files") > 1
                )
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert await asyncio.to_thread(answered, client)


async def test_nor_is_it_tried_again_when_it_has_ended(
    listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        async with serving(listener) as server:
            client = knock(listener, stack)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
            try:
                await until(lambda: caplog.messages)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            (taking,) = server._intakes
        assert taking._pause is not None
        assert taking._pause.cancelled()
        assert take_waiting(listener) == 1
        assert answered(client)
