"""Commands as another user, for whoever serves rooms in the guest itself. Standard library only.

The user `org` keeps the journals and may not become anybody else. At a socket that only `org` may
connect to, a process of the agent's speaks the protocol of the agent and does less: it runs commands
as `job` in the workspaces of rooms, and reads and writes files there as `job`; nothing else. It is
forked when first somebody comes, so that whatever is sent there cannot end the agent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from org.sandbox.vm import channels, child, family, groups, hosts, loop, orders, passing, running
else:  # beside this file in the guest
    import channels
    import child
    import family
    import groups
    import hosts
    import loop
    import orders
    import passing
    import running

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_MOST_CLIENTS = 128  # more than may run something, so that it is said why nothing runs
_MOST_AT_ONCE = 64
_MOST_PIDS = 1024
_AGAIN_S = 1.0
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_MOST_FDS = 1 << 20


class Terms(NamedTuple):
    """Who may have what run: `server` at the socket `jobs` (nobody when it is empty), as `worker`, in the
    folders of `workspaces`."""

    jobs: str
    server: str = "org"
    worker: str = "job"
    workspaces: str = "/srv/org"


class Door:
    """The agent's side: the socket, and the process behind it while there is one."""

    def __init__(self, events: loop.Loop, makers: groups.Groups, terms: Terms) -> None:
        self._loop = events
        self._groups = makers
        self._terms = terms
        self._listener = _listening(terms)
        self._pid = 0
        self._open()

    @property
    def serving(self) -> bool:
        return self._pid != 0

    def close(self) -> None:
        """End the process, with all that it runs; another follows for who comes after."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)

    def _open(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), loop.READ, self._fork)

    def _fork(self, _events: int) -> None:
        assert self._listener is not None
        self._loop.forget(self._listener.fileno())
        self._pid = os.fork()
        if self._pid == 0:
            _serve(self._listener, self._terms)
        pidfd = os.pidfd_open(self._pid)

        def ended(_events: int) -> None:
            self._loop.close(pidfd)
            os.waitpid(self._pid, 0)
            self._groups.end(self._pid)
            self._pid = 0
            self._loop.later(_AGAIN_S, self._open)

        self._loop.watch(pidfd, loop.READ, ended)


def _listening(terms: Terms) -> socket.socket | None:
    """The socket, None in a guest that has no such user."""
    if not terms.jobs:
        return None
    try:
        server = child.identity(terms.server)
        child.identity(terms.worker)
    except KeyError:
        return None
    before = os.umask(0o177)
    listener = loop.source(terms.jobs)
    os.umask(before)
    assert not isinstance(listener, str)
    if server.uid != os.geteuid():
        os.chown(terms.jobs, 0, server.gid)
        os.chmod(terms.jobs, 0o660)
    return listener


def _serve(listener: socket.socket, terms: Terms) -> NoReturn:
    """In the forked process: serve to its end. Never returns."""
    code = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        os.setsid()
        # What the agent has open is not this process's to keep: an end of a pipe among it would keep a
        # command from seeing the end of its input.
        os.closerange(3, listener.fileno())
        os.closerange(listener.fileno() + 1, _MOST_FDS)
        Server(listener, terms).run()
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


class Server:
    """Serves all who come to the socket, with one interpreter to fork from for all of them."""

    def __init__(self, listener: socket.socket, terms: Terms) -> None:
        self._terms = terms
        self._listener = listener
        self._loop = loop.Loop()
        self._groups = groups.Groups()
        self._warm = family.Warm(self._loop, sys.executable or "/usr/bin/python3")
        self._user = child.identity(terms.server).uid
        self._session = os.urandom(8).hex()
        self._hosts: set[hosts.Host] = set()
        listener.setblocking(False)
        self._watch()

    def run(self) -> None:
        """Until `SIGTERM`; what runs then is ended."""
        self._loop.run()
        for host in self._hosts:
            host.lost()
        while self._groups.live:
            self._loop.turn()
        self._groups.close()

    def _watch(self) -> None:
        ready = len(self._hosts) < _MOST_CLIENTS
        self._loop.watch(self._listener.fileno(), loop.READ if ready else 0, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(told)
        if user not in (self._user, 0):
            connection.close()
            return

        def ended() -> None:
            self._hosts.discard(host)
            self._watch()

        host = hosts.Host(self._loop, connection, self._begin, self._about, ended)
        self._hosts.add(host)
        self._watch()

    def _about(self) -> dict[str, Any]:
        return {"session": self._session, "missing": list(self._groups.missing)}

    def _begin(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        self._check(request)
        match request["op"]:
            case "exec":
                wanted = orders.Wanted.of(request)
                return running.Job(self._loop, self._groups, self._warm, channel, wanted)
            case "read":
                return passing.reading(self._loop, channel, request)
            case "write":
                return passing.writing(channel, request)
        raise channels.Refused("usage", f"this is not done here: `{request['op']}`")

    def _check(self, request: dict[str, Any]) -> None:
        """Raises `Refused` for what is not to be had here."""
        terms = self._terms
        folder, _, name = str(request["workspace"]).rpartition("/")
        if folder != terms.workspaces or not name or name.startswith("."):
            raise channels.Refused("usage", f"a workspace is a folder in {terms.workspaces}")
        if request["user"] != terms.worker:
            raise channels.Refused("usage", f"commands run as `{terms.worker}` here")
        if request.get("pids", 0) > _MOST_PIDS:
            raise channels.Refused("usage", f"a command has {_MOST_PIDS} processes at most")
        if self._groups.live >= _MOST_AT_ONCE:
            raise channels.Refused("busy", f"{self._groups.live} commands run already")
