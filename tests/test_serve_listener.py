"""Sockets to listen on."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from org.errors import Busy, EnvironmentProblem
from org.serve.listener import adopted, bind, holder_of, is_loopback


def test_a_busy_port_names_its_holder() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Busy, match=f"port {port} is taken: pid {os.getpid()} ") as caught:
            bind("127.0.0.1", port)
        assert Path(sys.executable).name in caught.value.message or "pytest" in caught.value.message
        assert f"--port {port + 1}" in caught.value.hint
    assert holder_of(port) == ""


def test_what_cannot_be_listened_on() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot listen on"):
        bind("192.0.2.1", 0)


def test_accepted_connections_send_at_once() -> None:
    """asyncio sets TCP_NODELAY on what a listener accepts when that names its protocol."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        with adopted(os.dup(listener.fileno())) as other:
            assert other.proto == socket.IPPROTO_TCP


def test_only_a_listening_socket_is_adopted() -> None:
    with socket.socket() as idle, pytest.raises(EnvironmentProblem, match="does not listen"):
        adopted(os.dup(idle.fileno()))
    with open(os.devnull) as file, pytest.raises(EnvironmentProblem, match="no socket"):
        adopted(file.fileno())


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("x", False),
    ],
)
def test_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it
