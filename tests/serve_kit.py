"""A server with rooms of in-process participants, on real sockets; and a client that sends what it is told.

`python serve_kit.py FOLDER` serves in a process of its own, with whatever contract its environment has,
and prints its port.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from org.chat.room import Room
from org.compose.opening import Opening
from org.compose.rooms import rooms_of
from org.compose.servers import Servers
from org.compose.session import Session
from org.config import Settings, load
from org.errors import UsageError
from org.events import Joined
from org.journal import RoomJournal, room_folder
from org.ports import Participant, Turn
from org.serve.contract import Contract
from org.serve.doors import Pace
from org.serve.hub import Hub, OpenRoom
from org.serve.listener import adopted, bind
from org.serve.run import Serving, serve

TOKEN = "t" * 43
DEADLINE_S = 30.0


@dataclass
class Parrot:
    """Says what it hears; `wait` is what it waits for first."""

    name: str = "parrot"
    wait: Callable[[], Any] | None = None

    @property
    def introduction(self) -> Joined:
        return Joined(self.name, "model", "simple", "feathers")

    async def respond(self, turn: Turn) -> str:
        if self.wait is not None:
            await self.wait()
        return "heard: " + turn.causes[-1].content


def settings_in(folder: Path) -> Settings:
    env = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "ORG_BASE": "http://127.0.0.1:9/v1"}
    return load(cwd=folder, flags={}, env=env)


def rooms_with(participants: Callable[[], Sequence[Participant]], **options: Any) -> OpenRoom:
    """What opens rooms with these participants in them; `options` are those of `Room`."""

    @asynccontextmanager
    async def open_room(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
        room_id = opening.room or "room-1"
        folder = room_folder(rooms_of(settings), room_id)
        if opening.resume != folder.is_dir():
            raise UsageError(f"no room is made or gone on in: {room_id}")
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(RoomJournal.open(folder, url=opening.url))
            servers = Servers(settings, stack, opening.progress)
            session = Session(settings, opening, room_id, folder, None, "nowhere", servers)
            history = [entry.event for entry in journal.read()]
            room = Room(participants=participants(), journal=journal, history=history, **options)
            session.room = await stack.enter_async_context(room)
            yield session

    return open_room


def rooms_for(make: Callable[[Opening], Sequence[Participant]]) -> OpenRoom:
    """What opens rooms whose participants need to know how: whom to ask, say."""

    def open_room(settings: Settings, opening: Opening) -> AbstractAsyncContextManager[Session]:
        return rooms_with(lambda: make(opening))(settings, opening)

    return open_room


def parrots() -> Sequence[Participant]:
    return [Parrot()]


@dataclass
class Site:
    """A server that runs in this process."""

    hub: Hub
    port: int
    task: asyncio.Task[None] = field(repr=False)

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = TOKEN, **headers: str
    ) -> Answer:
        return await ask(self.port, method, path, body, token=token, **headers)

    def end(self) -> None:
        """As SIGTERM does."""
        os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def site(
    folder: Path,
    participants: Callable[[], Sequence[Participant]] = parrots,
    *,
    room: Mapping[str, Any] | None = None,
    open_room: OpenRoom | None = None,
    **options: Any,
) -> AsyncIterator[Site]:
    """A server on a free port, until the block ends. `room` are options of its rooms; `open_room` opens
    others."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    options = {"pace": Pace(1e9, 1e9), "keep_alive_s": 0.2, **options}
    open_room = open_room or rooms_with(participants, **room or {})
    serving = Serving(settings_in(folder), open_room, Opening(), TOKEN, **options)
    opened: asyncio.Future[Hub] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(serving, listener, opened.set_result))
    hub = await opened
    running = Site(hub, port, task)
    try:
        yield running
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGINT)
        await task


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["message"])


class Client:
    """One connection. `send` takes bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.last_id = 0
        self._rest = b""
        self._events: deque[tuple[int, dict[str, Any]]] = deque()

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):  # the other side may be faster
            await self._writer.wait_closed()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def end(self) -> None:
        """Say that nothing more is sent."""
        self._writer.write_eof()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(DEADLINE_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def answer(self) -> Answer:
        status, headers = await self.head()
        async with asyncio.timeout(DEADLINE_S):
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while part := await self.part():
                    body += part
            else:
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = TOKEN, **headers: str
    ) -> Answer:
        self.send(request(method, path, body, token=token, **headers))
        return await self.answer()

    async def part(self) -> bytes:
        """The next chunk of a body; empty at its end."""
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def event(self) -> tuple[int, dict[str, Any]] | None:
        """The next (id, event) of an event stream, the id being 0 where there is none; None at its end.
        A comment is an empty event."""
        while not self._events:
            part = await self.part()
            if not part:
                return None
            *frames, self._rest = (self._rest + part).split(b"\n\n")
            self._events.extend(read for frame in frames if (read := read_frame(frame)))
        read = self._events.popleft()
        self.last_id = read[0] or self.last_id
        return read

    async def closed(self) -> bool:
        """Whether the server closes the connection without a word."""
        async with asyncio.timeout(DEADLINE_S):
            return not await self._reader.read()


def read_frame(frame: bytes) -> tuple[int, dict[str, Any]] | None:
    seq, event = 0, None
    for line in frame.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"id":
            seq = int(value)
        elif name == b"data":
            event = json.loads(value)
        elif name == b"":
            event = {}
    return None if event is None else (seq, event)


def request(method: str, path: str, body: object = None, *, token: str = TOKEN, **headers: str) -> bytes:
    """A request; header names are written with `_` for `-`, and an empty value leaves one out."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "127.0.0.1", "authorization": f"Bearer {token}" if token else ""}
    fields["content-length"] = str(len(data)) if data or method in ("POST", "PUT") else ""
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data


async def ask(
    port: int, method: str, path: str, body: object = None, *, token: str = TOKEN, **headers: str
) -> Answer:
    """One request on a connection of its own."""
    async with await Client.connect(port) as client:
        return await client.ask(method, path, body, token=token, **headers)


async def read_until(client: Client, kind: str, count: int = 1) -> list[tuple[int, dict[str, Any]]]:
    """Events of a stream up to and with the `count`th of that type."""
    found = []
    async with asyncio.timeout(DEADLINE_S):
        while entry := await client.event():
            found.append(entry)
            count -= entry[1].get("type") == kind
            if not count:
                return found
    raise AssertionError(f"the stream ended without {kind}: {found}")


# -- a server in a process of its own


class Process:
    """`python serve_kit.py FOLDER`, with the contract that generations have."""

    def __init__(self, folder: Path, listener: socket.socket, **env: str) -> None:
        self.socket = folder / f"health-{os.urandom(4).hex()}.sock"
        go, self._go = os.pipe()
        self._ack, ack = os.pipe()
        contract = {
            "ORG_CONTRACT": "1",
            "ORG_LISTEN_FD": str(listener.fileno()),
            "ORG_GO_FD": str(go),
            "ORG_ACK_FD": str(ack),
            "ORG_HEALTH_SOCK": str(self.socket),
            "ORG_COMMIT": "c0ffee",
            "ORG_NONCE": "n-1",
        }
        self.popen = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=os.environ | contract | env,
            pass_fds=(listener.fileno(), go, ack),
        )
        os.close(go)
        os.close(ack)
        self._words = b""

    async def said(self) -> str:
        """The next word on the ack pipe; empty at its end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE_S):
            while b"\n" not in self._words:
                data = await loop.run_in_executor(None, os.read, self._ack, 1024)
                if not data:
                    return ""
                self._words += data
        word, _, self._words = self._words.partition(b"\n")
        return word.decode()

    def go(self) -> None:
        os.write(self._go, b"go\n")

    def hang_up(self) -> None:
        """As when whoever started it dies."""
        os.close(self._go)
        self._go = -1

    async def start(self) -> Process:
        assert await self.said() == "ready"
        self.go()
        assert await self.said() == "accepting"
        return self

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.popen.wait, DEADLINE_S)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for fd in (self._go, self._ack):
            if fd >= 0:
                os.close(fd)


def listening() -> Iterator[socket.socket]:
    """A listening socket of the test's own, as a supervisor holds it."""
    listener = bind("127.0.0.1", 0)
    try:
        yield listener
    finally:
        listener.close()


def main() -> None:
    folder = Path(sys.argv[1])
    contract = Contract.of(os.environ)
    gate = folder / "gate"

    async def wait() -> None:
        if gate.exists():  # a named pipe: reading it waits for whoever writes to it
            await asyncio.to_thread(gate.read_bytes)

    serving = Serving(
        settings_in(folder),
        rooms_with(lambda: [Parrot(wait=wait)]),
        Opening(),
        TOKEN,
        contract,
        pace=Pace(1e9, 1e9),
        keep_alive_s=float(os.environ.get("KEEP_ALIVE_S", "5")),
        drain_s=float(os.environ.get("DRAIN_S", "30")),
    )
    asyncio.run(serve(serving, adopted(contract.listen_fd)))


if __name__ == "__main__":
    main()
