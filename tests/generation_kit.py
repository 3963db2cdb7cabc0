"""A small program that speaks the contract, one that does not, and a supervisor to serve them.

`python generation_kit.py MODE` is either program; `Site` has folders of commits and a supervisor of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from org.ops import control
from org.ops.intake import Intake
from org.ops.layout import Layout

DEADLINE_S = 60.0
IDLE_S = 2.0


# -- the program


def program(mode: str) -> None:
    """What a mode does is said where it is looked at below."""
    if mode == "plain":
        asyncio.run(serve(socket.create_server(("127.0.0.1", int(os.environ["PORT"])))))
        return
    if mode == "mute":
        time.sleep(600)
    if mode == "fail":
        sys.stderr.write("no such table: prices\n")
        sys.exit(3)
    listener = socket.socket(fileno=int(os.environ["ORG_LISTEN_FD"]))
    asyncio.run(serve(listener, mode, float(os.environ.get("STREAM_S", "1"))))


async def serve(listener: socket.socket, mode: str = "well", seconds: float = 1.0) -> None:
    """One that loses no request: when told to end it takes no more connections, and ends those it has with
    their next answer, or when they were idle for a while."""
    loop = asyncio.get_running_loop()
    draining = asyncio.Event()
    open_ones: set[asyncio.Task[Any]] = set()
    contract = "ORG_ACK_FD" in os.environ
    commit = "another" if mode == "wrong" else os.environ.get("ORG_COMMIT", "")
    accepting = asyncio.Event()

    def say(word: str) -> None:
        if contract:
            with suppress(BrokenPipeError):
                os.write(int(os.environ["ORG_ACK_FD"]), f"{word}\n".encode())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            while await one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            open_ones.discard(task)
            writer.close()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(None) as patience:

            async def lose_patience() -> None:
                await draining.wait()
                patience.reschedule(loop.time() + IDLE_S)

            waiting = asyncio.create_task(lose_patience())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            finally:
                waiting.cancel()
        if b"/missing" in head:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif b"/stream" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(10):
                writer.write(b"2\r\nok\r\n")
                await writer.drain()
                await asyncio.sleep(seconds / 10)
            writer.write(b"0\r\n\r\n")
        elif mode == "deep" and accepting.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000)
        elif mode == "hang" and accepting.is_set():
            await asyncio.sleep(600)
        else:
            status = "draining" if draining.is_set() else "serving"
            nonce = os.environ.get("ORG_NONCE", "")
            said = {"status": status, "commit": commit, "nonce": nonce, "pid": os.getpid()}
            said |= {"env": sorted(os.environ), "uid": os.getuid()}
            body = json.dumps(said).encode()
            close = b"Connection: close\r\n" if draining.is_set() else b""
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (close, len(body), body))
        await writer.drain()
        return not draining.is_set() and b"/bye" not in head

    if contract:
        await asyncio.start_unix_server(answer, os.environ["ORG_HEALTH_SOCK"])
        say("ready")
        await asyncio.to_thread(os.read, int(os.environ["ORG_GO_FD"]), 64)
        if mode == "shy":  # it is told to go, and does not
            await asyncio.sleep(600)
    if mode == "deaf":
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
    elif contract:
        loop.add_signal_handler(signal.SIGTERM, draining.set)

    async def meet(client: socket.socket) -> None:
        await answer(*await asyncio.open_connection(sock=client))

    listener.setblocking(False)
    intake = Intake(listener, meet)
    intake.begin()
    say("accepting")
    accepting.set()
    misbehave(mode)
    await draining.wait()
    intake.end()
    say("draining")
    while intake.handled or open_ones:
        await asyncio.wait(intake.handled | open_ones)
    say("drained")


def misbehave(mode: str) -> None:
    if mode == "crash":
        sys.exit(5)
    if mode == "flood":
        for number in range(200_000):
            sys.stdout.write(f"{number:8} {'x' * 90}\n")
        sys.stdout.write("the flood is over\n")
        sys.stdout.flush()
    if mode == "daemon":  # leaves its session and its environment behind
        script = "import os, sys, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
        script += "open('daemon.pid', 'w').write(str(os.getpid())); time.sleep(600)"
        subprocess.run([sys.executable, "-c", script], env={}, check=True)
    if mode == "bomb":
        script = "import os\nwhile True:\n try: os.fork()\n except OSError: open('full', 'w').close()"
        subprocess.Popen([sys.executable, "-c", script])


# -- where it is served


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """A program of which each commit is a mode, and its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(folder / "program")
        self.port = free_port()
        self.layout.root.mkdir()

    def commit(self, number: int, mode: str, **more: object) -> tuple[str, Path]:
        """A commit with this number, and its files."""
        commit = f"{number:040x}"
        folder = self.layout.worktree(commit)
        folder.mkdir(parents=True, exist_ok=True)
        table = {
            "start": ["{python}", __file__, mode],
            "contract": int(mode != "plain"),
            "drain_timeout": 20,
            **more,
        }
        lines = (f"{name} = {json.dumps(value)}" for name, value in table.items())
        (folder / "org.toml").write_text("\n".join(("[generation]", *lines, "")))
        return commit, folder

    def serve(
        self, number: int, mode: str = "well", colour: Any = "current", **more: object
    ) -> dict[str, Any]:
        port = self.port if colour == "current" else 0
        return control.serve(self.layout, colour, *self.commit(number, mode, **more), port)

    def status(self) -> dict[str, Any]:
        return control.status(self.layout)

    def log(self, colour: Any = "current") -> str:
        return self.layout.log(colour).read_text()

    def until(self, holds: Callable[[], object]) -> None:
        wait_for(holds, self.notes)

    def notes(self) -> str:
        return self.layout.supervisor_log.read_text()

    def close(self) -> None:
        """End all of it."""
        if supervisor := self.status().get("supervisor"):
            end(supervisor["pid"])


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    made = Site(folder)
    try:
        yield made
    finally:
        made.close()


def end(supervisor: int) -> None:
    """End it now, with all that it serves: told twice, it does not wait for drains."""

    def has_ended() -> bool:
        with suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGTERM)
        return not alive(supervisor)

    wait_for(has_ended)


def wait_for(holds: Callable[[], object], notes: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, notes()
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def get(port: int, target: str = "/health") -> dict[str, Any]:
    """What the program says over TCP."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            size = 0
            while (line := answer.readline()) not in (b"\r\n", b""):
                name, _, value = line.lower().partition(b":")
                size = int(value) if name == b"content-length" else size
            said: dict[str, Any] = json.loads(answer.read(size))
            return said


if __name__ == "__main__":
    program(sys.argv[1])
