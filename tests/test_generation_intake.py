"""What is taken from a listening socket is known at once; what is not waits there for who comes next."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from generation_kit import DEADLINE_S
from org.ops import intake
from org.ops.intake import Intake
from org.ops.listener import bind
from waiting import until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with bind(0) as made:
        yield made


async def greet(client: socket.socket) -> None:
    with client:
        await asyncio.get_running_loop().sock_sendall(client, b"hello")


def connect(listener: socket.socket, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(listener.getsockname(), timeout=DEADLINE_S))


def take_waiting(listener: socket.socket) -> int:
    found = 0
    while True:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return found
        with client:
            client.sendall(b"hello")
        found += 1


@pytest.mark.parametrize("turns", range(6))
async def test_ended_any_number_of_turns_after_they_came(listener: socket.socket, turns: int) -> None:
    with ExitStack() as stack:
        taking = Intake(listener, greet)
        taking.begin()
        clients = [connect(listener, stack) for _ in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        taking.end()
        handled = set(taking.handled)
        if turns == 2:  # the first turn sees them, the second takes them, nothing is done with them yet
            assert len(handled) == 20
        await asyncio.gather(*handled)
        assert take_waiting(listener) == (20 if turns < 2 else 0)
        assert [client.recv(10) for client in clients] == [b"hello"] * 20


async def test_without_files_to_open_they_are_taken_later(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_PAUSE_S", 0.01)
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    with ExitStack() as stack:
        taking = Intake(listener, greet)
        taking.begin()
        client = connect(listener, stack)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            await until(lambda: len(told) > 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert await asyncio.to_thread(client.recv, 10) == b"hello"
        taking.end()
    assert set(told) == {"no connection can be taken"}
