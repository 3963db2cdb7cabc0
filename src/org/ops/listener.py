"""The sockets that outlive the generations which serve on them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from org.errors import EnvironmentProblem
from org.ops import place, plain

BACKLOG = 2048
HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """A listening socket of this machine alone. Raises `EnvironmentProblem`, with who has the port."""
    # With the protocol named, asyncio switches off Nagle's algorithm on what is accepted.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(port) from error
        raise EnvironmentProblem(f"cannot listen on {HOST}, port {port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _taken(port: int) -> EnvironmentProblem:
    """Who listens on a port, as far as it can be seen."""
    other = "" if place.in_guest() else ", or set `ports` in `[generation]` of org.toml"
    holders = list(_holders(port))
    for process in holders:
        if program := _program(process):
            where = plain.line(str(program))
            return EnvironmentProblem(
                f"port {port} is taken: {where} is served there",
                f"`org stop current`, or `org stop candidate`, in that folder ends it{other}",
            )
    for process in holders:
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            by = f": pid {process.name} ({command.strip()[:120]})"
            return EnvironmentProblem(f"port {port} is taken{by}", f"end that{other}")
    return EnvironmentProblem(f"port {port} is taken", f"end that{other}")


def _holders(port: int) -> Iterator[Path]:
    """The processes that have a port open."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                yield process


def _program(process: Path) -> Path | None:
    """The folder of the program for which a process of ours, which is in its `run`, holds a port."""
    with suppress(OSError):
        kept = Path(os.readlink(process / "cwd"))
        source = Path(os.fsdecode((kept.parent / "source").read_bytes()))
        if kept.name == "run":
            return place.known_as(source)
    return None


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port, as the kernel's tables have them."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
