"""The processes of one command in the guest: started, ended and measured together.
Standard library only."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from org.sandbox.vm import child, groups, loop
else:  # beside this file in the guest
    import child
    import groups
    import loop

_KILLED_AGAIN_S = 0.005  # where the kernel does not tell when a group is empty
_STUCK_S = 5.0  # a process that is killed may hang in the kernel; nobody waits longer for it
_MOST_REQUEST = 32_768
_HERE = os.path.dirname(os.path.abspath(__file__))
_WARM = ("python3", "-S", "-c")


class Ended(NamedTuple):
    """How a family ended: the exit code of its first process (negative for a signal), the most bytes
    of memory it had, and whether somebody in it was killed for want of memory."""

    code: int
    peak: int
    out_of_memory: bool


class Family:
    """A command's first process and all that came from it. `on_end` is called once, when all are gone."""

    def __init__(
        self, events: loop.Loop, makers: groups.Groups, group: groups.Group, on_end: Callable[[Ended], None]
    ) -> None:
        self._loop = events
        self._groups = makers
        self._group = group
        self._on_end = on_end
        self._pid = 0
        self._pidfd = -1
        self._doomed = False
        self.over = False
        """Whether the first process has ended."""
        self._code = 0
        self._peak = 0
        self._waiting: loop.Timer | None = None
        self._deadline: loop.Timer | None = None

    @property
    def pid(self) -> int:
        """The first process; 0 before it is known and after it has ended."""
        return self._pid

    def fork(self, plan: child.Plan) -> None:
        """Start it as a process of our own. Raises `OSError`."""
        pid = os.fork()
        if pid == 0:
            child.execute(plan)
        self.started(pid, os.pidfd_open(pid))
        self._loop.watch(self._pidfd, loop.READ, self._reap)

    def started(self, pid: int, pidfd: int) -> None:
        """Its first process, whoever made it."""
        self._pid, self._pidfd = pid, pidfd
        if self._doomed:
            self.kill()

    def _reap(self, _events: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # before its number can be somebody else's
        _, status, usage = os.wait4(self._pid, 0)
        self.exited(status, usage.ru_maxrss * 1024)

    def exited(self, status: int, peak: int) -> None:
        """The first process has ended and is reaped: the others follow it."""
        if self._pidfd >= 0:
            self._loop.close(self._pidfd)
        self._pid, self._pidfd, self.over = 0, -1, True
        self._code, self._peak = os.waitstatus_to_exitcode(status), peak
        self._deadline = self._loop.later(_STUCK_S, self._finish)
        self._end_all()

    def _end_all(self, _events: int = 0) -> None:
        if self._group.empty():
            self._finish()
            return
        self._group.kill()
        if self._group.events >= 0:
            self._loop.watch(self._group.events, loop.URGENT, self._look)
        else:
            self._waiting = self._loop.later(_KILLED_AGAIN_S, self._end_all)

    def _look(self, _events: int) -> None:
        if self._group.empty():
            self._finish()

    def _finish(self) -> None:
        for timer in (self._waiting, self._deadline):
            if timer is not None:
                timer.cancel()
        if self._group.events >= 0:
            self._loop.forget(self._group.events)
        peak = self._group.peak()
        ended = Ended(self._code, self._peak if peak is None else peak, self._group.out_of_memory())
        self._groups.drop(self._group)
        self._on_end(ended)

    def kill(self) -> None:
        """End it; `on_end` follows. Called again, it does no harm."""
        self._doomed = True
        if self._pidfd >= 0:
            # By itself too: it may not be in its group yet.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._group.kill()

    def signal(self, number: int) -> None:
        """Send a signal to the first process."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


class Warm:
    """The interpreter that is forked instead of started, see `warm.py`. When it died, it is started again
    with the next request."""

    def __init__(self, events: loop.Loop, python: str) -> None:
        self._loop = events
        self._python = python
        self._socket: socket.socket | None = None
        self._pid = 0
        self._count = 0
        self._running: dict[int, Family] = {}

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Its standard streams are pipes, so that those of the forked processes are taken for pipes too.
        reading, writing = os.pipe()
        try:
            self._pid = os.posix_spawn(
                self._python,
                [
                    self._python,
                    "-S",
                    os.path.join(os.path.dirname(os.path.abspath(__file__)), "warm.py"),
                    "3",
                ],
                {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                    (os.POSIX_SPAWN_DUP2, reading, 0),
                    (os.POSIX_SPAWN_DUP2, writing, 1),
                ],
            )
        finally:
            theirs.close()
            os.close(reading)
            os.close(writing)
        ours.setblocking(False)
        self._socket = ours
        self._loop.watch(ours.fileno(), loop.READ, self._hear)

    def takes(self, plan: child.Plan) -> bool:
        return len(plan.argv) == 4 and tuple(plan.argv[:3]) == _WARM and not plan.terminal

    def fork(self, plan: child.Plan, family: Family) -> bool:
        """Start `plan`, which it `takes`; whether it could."""
        if self._socket is None:
            self.start()
        self._count += 1
        request = {"id": self._count, "env": dict(plan.env), "cwd": plan.cwd, **plan.identity._asdict()}
        message = json.dumps(request).encode()
        if self._socket is None or len(message) > _MOST_REQUEST:
            return False
        code = os.memfd_create("code", os.MFD_CLOEXEC)
        try:
            with open(code, "wb", closefd=False) as file:
                file.write(os.fsencode(plan.argv[3]))
            os.lseek(code, 0, os.SEEK_SET)
            socket.send_fds(self._socket, [message], [code, *plan.stdio, *plan.entrances])
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        finally:
            os.close(code)
        self._running[self._count] = family
        return True

    def _hear(self, _events: int) -> None:
        assert self._socket is not None
        try:
            message, fds, _, _ = socket.recv_fds(self._socket, 4096, 1)
        except ConnectionResetError:
            message, fds = b"", []
        if not message:
            self._retire()
            return
        told: dict[str, Any] = json.loads(message)
        if "pid" in told:
            self._running[told["id"]].started(told["pid"], *fds)
        else:
            self._running.pop(told["id"]).exited(told["status"], told["peak"])

    def _retire(self) -> None:
        if self._socket is None:
            return
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._socket = None
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        running, self._running = self._running, {}
        for family in running.values():  # nobody is left to tell how they end
            family.kill()
            family.exited(signal.SIGKILL, 0)
