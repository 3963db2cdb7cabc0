"""What `bench_serve` measures, each in a process of its own: `python -m bench.serve_site KIND FOLDER`.

`room` is our server with one room in which nobody answers; `bare` an ASGI application on the same server
that writes the same bytes to its readers; `echo` a plain starlette application. Each takes POST
`/rooms/main/messages`, streams `/rooms/main/events`, prints its port, and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from org.chat.room import Room
from org.compose.opening import Opening
from org.compose.rooms import rooms_of
from org.compose.servers import Servers
from org.compose.session import Session
from org.config import Settings, load
from org.events import Event, Posted, Stopped
from org.journal import RoomJournal, room_folder
from org.messages import EVERYONE, Message
from org.serve import drain
from org.serve.doors import Pace
from org.serve.hub import Hub
from org.serve.listener import bind
from org.serve.run import Serving, serve
from org.serve.stream import frame

TOKEN = "t" * 43
EVENTS, MESSAGES = "/rooms/main/events", "/rooms/main/messages"


@asynccontextmanager
async def _empty_room(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
    folder = room_folder(rooms_of(settings), opening.room)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(RoomJournal.open(folder))
        servers = Servers(settings, stack, opening.progress)
        session = Session(settings, opening, opening.room, folder, None, "nowhere", servers)
        session.room = await stack.enter_async_context(Room(journal=journal))
        yield session


async def _serve_room(folder: Path, listener: socket.socket) -> None:
    env = {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "ORG_BASE": "http://127.0.0.1:9/v1"}
    settings = load(cwd=folder, flags={}, env=env)
    serving = Serving(settings, _empty_room, Opening(), TOKEN, pace=Pace(1e9, 1e9))
    opening: list[asyncio.Task[object]] = []

    def accepting(hub: Hub) -> None:
        opening.append(asyncio.create_task(hub.create("main")))

    await serve(serving, listener, accepting)


class Bare:
    """The least that can be done: what is posted is written to every reader as it stands."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._log: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == EVENTS:
            head = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": b"retry: 500\n\n", "more_body": True})
            place = len(self._log)
            while True:
                while place < len(self._log):
                    body = self._log[place]
                    place += 1
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await self._news.wait()
        text = json.loads((await receive())["body"])["text"]
        said = Posted(Message(len(self._log), "me", "person", EVERYONE, text, 1.5))
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        events: tuple[Event, ...] = (said, Stopped("quiet"))
        for event in events:
            self._log.append(frame(event, len(self._log) + 1))
            self._news.set()
            self._news.clear()
            await asyncio.sleep(0.01)


def _echo() -> Starlette:
    """As one would write it: a queue for each reader, and a streaming response."""
    queues: list[asyncio.Queue[str]] = []

    async def events(request: Request) -> Response:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.append(queue)

        async def body() -> AsyncIterator[str]:
            yield "retry: 500\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    async def post(request: Request) -> Response:
        said = await request.json()
        for queue in queues:
            queue.put_nowait(json.dumps(said))
        return JSONResponse({}, 202)

    return Starlette(routes=[Route(EVENTS, events), Route(MESSAGES, post, methods=["POST"])])


async def _serve_app(app: ASGIApp, listener: socket.socket) -> None:
    async def finish(seconds: float) -> None:
        pass

    server = drain.Server(drain.config(app), accepting=lambda: None, draining=lambda: None, finish=finish)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, server.tell, True)
    await server.serve(sockets=[listener])


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def main(kind: str, folder: Path) -> None:
    listener = bind("127.0.0.1", 0)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_input, daemon=True).start()
    if kind == "room":
        asyncio.run(_serve_room(folder, listener))
    else:
        asyncio.run(_serve_app(Bare() if kind == "bare" else _echo(), listener))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
