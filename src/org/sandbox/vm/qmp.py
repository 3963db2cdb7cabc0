"""QEMU's control socket: commands with their answers, events, and snapshots by descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from org.errors import EnvironmentProblem, SandboxGone

OnEvent: TypeAlias = Callable[[str, Mapping[str, Any]], None]

CONNECT_S = 10.0
_STILL_S = 60.0
_RETRY_S = 0.01
_CHUNK = 1 << 16
_LINE_LIMIT = 1 << 20  # bytes of one answer; QEMU's own are a few thousand
_NO_LIMIT = 1 << 50  # bytes a second: by default QEMU writes as slowly as to another machine
_STATE = "org-state"  # what QEMU calls the descriptor of a snapshot
# Memory that is a file of its own is not written into the snapshot again.
_SNAPSHOT = [{"capability": "x-ignore-shared", "state": True}, {"capability": "events", "state": True}]


def _ignored(name: str, data: Mapping[str, Any]) -> None:
    """Nobody listens."""


@asynccontextmanager
async def connect(
    path: Path,
    on_event: OnEvent = _ignored,
    timeout_s: float = CONNECT_S,
    alive: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Qmp]:
    """A connection to the socket at `path`, which need not be there yet.

    `on_event` gets the name and the data of each event; it must not block. Raises `SandboxGone` when
    nothing answers within `timeout_s`, or QEMU is no longer `alive()` before.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.setblocking(False)
        deadline = asyncio.get_running_loop().time() + timeout_s
        silent = f"QEMU did not answer within {timeout_s:g} s: {path}"
        try:
            async with asyncio.timeout_at(deadline):
                await _reach(connection, path, alive)
        except TimeoutError as error:
            raise SandboxGone(silent) from error
        qmp = Qmp(connection, on_event)
        reading = asyncio.create_task(qmp.read())
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await qmp.greeted()
            except TimeoutError as error:
                raise SandboxGone(silent) from error
            yield qmp
        finally:
            await _ended(reading)


async def _reach(connection: socket.socket, path: Path, alive: Callable[[], bool]) -> None:
    while True:
        if not alive():
            raise SandboxGone("QEMU ended before it answered")
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(path))
            return
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(_RETRY_S)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _while_it_grows(path: Path, writing: Coroutine[Any, Any, None], still_s: float) -> None:
    """QEMU itself may not answer while it writes to a slow disk: the file tells whether it goes on."""
    task = asyncio.create_task(writing)
    size = -1
    try:
        while (now := path.stat().st_size) != size:
            size = now
            await asyncio.wait({task}, timeout=still_s)
            if task.done():
                await task
                return
        raise EnvironmentProblem(f"nothing more was written for {still_s:g} s: {path}")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Qmp:
    """See `connect`. Each command may be waited for by itself; QEMU answers them in order."""

    def __init__(self, connection: socket.socket, on_event: OnEvent) -> None:
        self._connection = connection
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._greeting = asyncio.Event()
        self._migration = asyncio.Event()
        self._sending = asyncio.Lock()
        self._gone = ""

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, fd: int | None = None
    ) -> Any:
        """What QEMU returns for a command, a JSON value; `fd` goes along with it.

        Raises `EnvironmentProblem` with QEMU's words when it refuses, `SandboxGone` when it ends first.
        """
        if self._gone:
            raise SandboxGone(self._gone)
        number = next(self._numbers)
        request = {"execute": command, "arguments": dict(arguments or {}), "id": number}
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._send(json.dumps(request).encode() + b"\n", fd)
            return await answer
        except OSError as error:
            raise SandboxGone(f"QEMU ended before `{command}`") from error
        finally:
            self._waiting.pop(number, None)

    async def stop(self) -> None:
        """Halt the guest; its memory stays as it is."""
        await self.execute("stop")

    async def cont(self) -> None:
        """Let the guest go on."""
        await self.execute("cont")

    async def quit(self) -> None:
        """End QEMU at once, as pulling the plug would."""
        with contextlib.suppress(SandboxGone):  # it may be gone before it has answered
            await self.execute("quit")

    async def save(self, path: Path, still_s: float = _STILL_S) -> None:
        """Write the state of the halted machine to a new file, but for memory that is a file of its own.
        A slow disk may take its time; one that took nothing for `still_s` is given up.

        Raises `EnvironmentProblem` with QEMU's words, `SandboxGone`, `FileExistsError`.
        """
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        await _while_it_grows(path, self._migrate("migrate", fd), still_s)

    async def load(self, path: Path) -> None:
        """Take the state of a machine that was started to wait for it. The guest then goes on, or stays
        halted, as it was. Raises `EnvironmentProblem` with QEMU's words, `SandboxGone`, `OSError`."""
        await self._migrate("migrate-incoming", os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    async def _migrate(self, command: str, fd: int) -> None:
        try:
            await self.execute("migrate-set-capabilities", {"capabilities": _SNAPSHOT})
            await self.execute("migrate-set-parameters", {"max-bandwidth": _NO_LIMIT})
            await self.execute("getfd", {"fdname": _STATE}, fd=fd)
        finally:
            os.close(fd)
        self._migration.clear()
        await self.execute(command, {"uri": f"fd:{_STATE}"})
        while True:
            state = await self.execute("query-migrate")
            if state.get("status") == "completed":
                return
            if state.get("status") in ("failed", "cancelled"):
                raise EnvironmentProblem(f"a snapshot failed: {state.get('error-desc') or state['status']}")
            await self._migration.wait()
            self._migration.clear()

    async def greeted(self) -> None:
        """Wait for QEMU's greeting, and leave the state in which it takes no commands."""
        await self._greeting.wait()
        await self.execute("qmp_capabilities")

    async def _send(self, line: bytes, fd: int | None) -> None:
        async with self._sending:
            if fd is not None:
                # The descriptor goes with the first bytes; a request is far smaller than the buffer.
                sent = socket.send_fds(self._connection, [line], [fd])
                line = line[sent:]
            await asyncio.get_running_loop().sock_sendall(self._connection, line)

    async def read(self) -> None:
        """Take in answers and events until QEMU ends; whoever waits then is told."""
        loop, rest = asyncio.get_running_loop(), b""
        gone = "QEMU ended"
        try:
            while chunk := await loop.sock_recv(self._connection, _CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LINE_LIMIT:
                    gone = "QEMU's control socket sends something else"
                    return
                for line in lines:
                    if line.strip():
                        self._take(json.loads(line))
        except ConnectionResetError:
            return  # it ended with something unread
        except (OSError, ValueError) as error:
            gone = f"QEMU's control socket broke: {error}"
        finally:
            self._gone = gone
            self._greeting.set()  # who waits for it shall hear that it does not come
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(SandboxGone(gone))

    def _take(self, message: Mapping[str, Any]) -> None:
        if "QMP" in message:
            self._greeting.set()
        elif "event" in message:
            if message["event"] == "MIGRATION":
                self._migration.set()
            self._on_event(message["event"], message.get("data", {}))
        else:
            answer = self._waiting.get(message.get("id", 0))
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(EnvironmentProblem(f"QEMU refuses: {message['error'].get('desc', '')}"))
            else:
                answer.set_result(message.get("return"))
