"""The sockets that outlive the generations which serve on them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from org.errors import Busy, EnvironmentProblem

BACKLOG = 2048
HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """A listening socket of this machine alone. Raises `Busy` with who has the port, or
    `EnvironmentProblem`."""
    # With the protocol named, asyncio switches off Nagle's algorithm on what is accepted.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Busy(
                f"port {port} is taken{_by(port)}", "end that, or set `ports` in `[generation]` of org.toml"
            ) from error
        raise EnvironmentProblem(f"cannot listen on {HOST}, port {port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _by(port: int) -> str:
    """Who listens on a port, as far as it can be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f": pid {process.name} ({command.strip()[:120]})"
    return ""


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port, as the kernel's tables have them."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
