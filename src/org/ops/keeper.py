"""The process between a supervisor and one generation: its parent for as long as it lives.

    python -m org.ops.keeper LISTENER < CHANNEL

It reads a `Plan` from the channel, starts the generation as the contract says, writes its log, holds its
listening socket, and ends whatever descends from it. It outlives the supervisor: the next one connects to
its socket and gets a first line that says how things stand, with the listener along with it.

Lines of JSON, from a supervisor: `{"do": "go" | "drain" | "kill"}`; to it: the state, then
`{"said": word}` for each word of the contract, `{"lost": n, "why": text}` when lines of the log could not be
written, and `{"ended": code, "tail": text, "left": n, "starved": text}` at the end.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from org.ops import cgroups, family, logfile
from org.ops.plan import CONTRACT, Plan
from org.ops.wire import MOST_LINE, is_ours

WORDS = ("ready", "accepting", "draining", "drained")
NOT_STARTED = 127
_BLOCK = 65_536
_TAIL = 4096
_ENDED_S = 0.5  # for what a generation that has ended said last
_LONGEST_WAIT_S = 3600.0  # what is waited for at once; a selector knows no time without an end


def main() -> int:
    channel = socket.socket(fileno=0)
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    plan = Plan.from_json(_first_line(channel))
    family.adopt_orphans()
    home = _home(plan.nonce)
    home.mkdir(mode=0o700)
    try:
        return Keeper(plan, listener, home).run(channel)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _first_line(channel: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = channel.recv(_BLOCK)
        if not part:
            sys.exit(0)  # the supervisor is gone before it said what to start
        data += part
    return data


class Keeper:
    """`home` is a folder for the generation's private socket alone: its path has to be short."""

    def __init__(self, plan: Plan, listener: socket.socket, home: Path) -> None:
        self._plan = plan
        self._listener = listener
        self._log_file = logfile.Log(Path(plan.log))
        self._health = home / "health"
        self._selector = selectors.DefaultSelector()
        self._channel: socket.socket | None = None
        self._heard = b""
        self._go = self._ack = self._output = -1
        self._pid = 0
        self._code: int | None = None
        self._said: list[str] = []
        self._acks = b""
        self._tail = b""
        self._began = time.time()
        self._told_to_go = False
        self._drain_began = 0.0
        self._deadline: float | None = None
        if plan.uid >= 0:
            os.chown(home, plan.uid, plan.gid)

    def run(self, channel: socket.socket) -> int:
        """Until the generation has ended, and all that descends from it."""
        woken, waking = socket.socketpair()
        waking.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._drain())
        self._watch(woken, lambda: self._reap(woken))
        door = self._open_door()
        try:
            self._start()
            self._take(channel)
            while self._code is None:
                self._step()
            return self._end()
        finally:
            family.sweep(os.getpid())  # for who did not get as far as the end
            door.unlink(missing_ok=True)

    def _step(self) -> None:
        left = _LONGEST_WAIT_S if self._deadline is None else self._deadline - time.monotonic()
        wait = min(max(0.0, left), _LONGEST_WAIT_S)
        for key, _ in self._selector.select(wait):
            if key in self._selector.get_map().values():  # what came before may have ended it
                act: Callable[[], None] = key.data
                act()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill()

    # -- the generation

    def _start(self) -> None:
        plan = self._plan
        go, self._go = os.pipe()
        self._ack, ack = os.pipe()
        self._output, output = os.pipe()
        self._log_file.note(f"{plan.short} starts")
        contract = {
            "ORG_CONTRACT": str(CONTRACT),
            "ORG_LISTEN_FD": str(self._listener.fileno()),
            "ORG_GO_FD": str(go),
            "ORG_ACK_FD": str(ack),
            "ORG_HEALTH_SOCK": str(self._health),
            "ORG_COMMIT": plan.commit,
            "ORG_NONCE": plan.nonce,
        }
        as_whom: dict[str, Any] = {}
        if plan.uid >= 0:
            as_whom = {"user": plan.uid, "group": plan.gid, "extra_groups": []}
        try:
            with cgroups.bounded(plan.nonce, _share(plan), first=plan.colour == "candidate"):
                started = subprocess.Popen(
                    plan.argv,
                    cwd=plan.folder,
                    env={**plan.env, **plan.more, **contract},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(self._listener.fileno(), go, ack),
                    start_new_session=True,
                    preexec_fn=lambda: _restrict(plan),
                    **as_whom,
                )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._tail = f"cannot start `{plan.argv[0]}`: {error}\n".encode()
            self._log_file.append(self._tail)
            self._code = NOT_STARTED
        else:
            self._pid = started.pid
            started.returncode = 0  # it is waited for here, with all the others
        for fd in (go, ack, output):
            os.close(fd)
        for fd, act in ((self._ack, self._hear), (self._output, self._log)):
            os.set_blocking(fd, False)
            self._watch(fd, act)

    def _reap(self, woken: socket.socket) -> None:
        with suppress(BlockingIOError):
            woken.recv(_BLOCK)
        self._code = family.reap().get(self._pid, self._code)

    def _hear(self) -> None:
        """What it says of how far it is; each word of the contract counts once."""
        data = self._read(self._ack)
        if not data:
            self._selector.unregister(self._ack)
            return
        *lines, self._acks = (self._acks + data).split(b"\n")
        self._acks = self._acks[-_TAIL:]
        for line in lines:
            word = line.decode(errors="replace")
            if word in WORDS and word not in self._said:
                self._said.append(word)
                self._tell({"said": word})

    def _log(self) -> None:
        data = self._read(self._output)
        if data:
            self._tail = (self._tail + data)[-_TAIL:]
            lost = self._log_file.lost
            self._log_file.append(data)
            if self._log_file.lost > lost:
                self._tell(self._lost())
        elif data is not None:
            self._selector.unregister(self._output)

    def _lost(self) -> dict[str, Any]:
        return {"lost": self._log_file.lost, "why": self._log_file.why}

    @staticmethod
    def _read(fd: int) -> bytes | None:
        try:
            return os.read(fd, _BLOCK)
        except BlockingIOError:
            return None

    # -- whoever supervises

    def _open_door(self) -> Path:
        """The socket for the next supervisor. Its folder is entered: its path may be too long for one."""
        os.chdir(self._plan.run)
        name = f"{self._plan.nonce}.keeper"
        before = os.umask(0o177)
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        os.umask(before)
        server.listen()
        server.setblocking(False)
        self._watch(server, lambda: self._come_in(server))
        return Path(self._plan.run, name)

    def _come_in(self, server: socket.socket) -> None:
        try:
            visitor, _ = server.accept()
        except OSError:  # it has left again
            return
        if is_ours(visitor):
            self._take(visitor)
        else:
            visitor.close()

    def _take(self, channel: socket.socket) -> None:
        """Listen to this supervisor from now on, and to no other."""
        self._leave()
        channel.setblocking(True)
        self._channel = channel
        self._heard = b""
        self._watch(channel, self._listen)
        state = {
            "plan": json.loads(self._plan.as_json()),
            "keeper": os.getpid(),
            "pid": self._pid,
            "began": self._began,
            "health": str(self._health),
            "told_to_go": self._told_to_go,
            "said": self._said,
            "drain_began": self._drain_began,
            "log": self._lost(),
        }
        with suppress(OSError):  # it is gone again
            socket.send_fds(channel, [json.dumps(state).encode() + b"\n"], [self._listener.fileno()])

    def _listen(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(_BLOCK)
        except ConnectionError:
            data = b""
        if not data or len(self._heard) > MOST_LINE:
            self._leave()
            if not (self._told_to_go and self._plan.lasts):  # nobody is left to say so, or to want it
                self._kill()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        orders = {"go": self._say_go, "drain": self._drain, "kill": self._kill}
        for line in lines:
            orders[json.loads(line)["do"]]()

    def _leave(self) -> None:
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None

    def _say_go(self) -> None:
        self._told_to_go = True
        with suppress(BrokenPipeError):  # it has ended, which is told in a moment
            os.write(self._go, b"go\n")

    def _drain(self) -> None:
        """Have it finish what it does, within its time."""
        if not self._drain_began and self._code is None:
            self._drain_began = time.time()
            self._deadline = time.monotonic() + self._plan.drain_s
            os.kill(self._pid, signal.SIGTERM)

    def _kill(self) -> None:
        if self._code is None:
            self._deadline = None
            os.kill(self._pid, signal.SIGKILL)

    def _tell(self, what: dict[str, Any]) -> None:
        if self._channel is not None:
            with suppress(OSError):  # it is gone, which is heard in a moment
                self._channel.sendall(json.dumps(what).encode() + b"\n")

    # -- the end

    def _end(self) -> int:
        left = family.sweep(os.getpid())
        until = time.monotonic() + _ENDED_S
        while self._output in self._selector.get_map() and time.monotonic() < until:
            self._log_rest()
        self._hear_rest()
        starved = cgroups.close(self._plan.nonce)
        self._log_file.note(f"{self._plan.short} ended: {how(self._code or 0, starved)}")
        tail = self._tail.decode(errors="replace")
        self._listener.close()  # whoever hears of the end may take the port anew at once
        self._tell({"ended": self._code, "tail": tail, "left": left, "starved": starved})
        return 0

    def _log_rest(self) -> None:
        with selectors.DefaultSelector() as rest:
            rest.register(self._output, selectors.EVENT_READ)
            if not rest.select(_ENDED_S):
                self._selector.unregister(self._output)
                return
        self._log()

    def _hear_rest(self) -> None:
        while self._ack in self._selector.get_map() and self._peek():
            self._hear()

    def _peek(self) -> bool:
        with selectors.DefaultSelector() as rest:
            rest.register(self._ack, selectors.EVENT_READ)
            return bool(rest.select(0))

    def _watch(self, source: int | socket.socket, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)


def _home(nonce: str) -> Path:
    return Path(tempfile.gettempdir(), f"org-{nonce}")


def forget(door: Path) -> None:
    """Remove what a keeper has left that was killed, by its socket."""
    shutil.rmtree(_home(door.stem), ignore_errors=True)
    door.unlink(missing_ok=True)


def _share(plan: Plan) -> float:
    """Of the memory in a machine. Two that are compared have theirs from the verb, and both as much."""
    if plan.colour == "current":
        return 0.5
    return 0.25 if plan.lasts else 0.375


def _restrict(plan: Plan) -> None:
    family.set_limits(plan.limits)
    if plan.uid >= 0:
        family.stay_who_we_are()


def how(code: int, starved: str = "") -> str:
    """How a process has ended, in words; `code` is negative for a signal, `starved` what was too little."""
    if starved:
        return f"it wanted more than {starved}"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # one of those that have no name
        return f"signal {-code}"


if __name__ == "__main__":
    sys.exit(main())
