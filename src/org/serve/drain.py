"""A server that can hand over without losing a request.

What loses requests at a hand-over is closing connections that were accepted and have not been read
yet. So on SIGTERM this one stops accepting, and goes on answering what comes over the connections it
has, each answer saying `Connection: close`; those over which nothing comes are closed only after the
time for which a connection is kept alive anyway. What still streams runs to its end, or the deadline.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S = 5
"""Seconds for which a connection is kept open without a request."""
REQUEST_S = 30.0
"""Seconds within which a new connection must have sent the head of its first request."""
MAX_CONNECTIONS = 5000
"""Connections at once; one more is told to come back later."""
DRAIN_S = 30.0
"""Seconds after which a drain ends whatever still runs."""
TICK_S = 0.05
CLOSE = (b"connection", b"close")


class Connection(H11Protocol):
    """A connection that does not wait for ever for its first request, and refuses what is no HTTP in
    the form that errors have here."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, b"Service Unavailable", b"too many connections")
            return
        self._patience = self.loop.call_later(REQUEST_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():  # it was refused
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(400, b"Bad Request", b"this is no HTTP request")
        else:
            self.transport.close()  # in the middle of an answer there is no place for another

    def _refuse(self, status: int, reason: bytes, message: bytes) -> None:
        body = b'{"error":{"message":"%b","hint":""}}' % message
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), CLOSE]
        for event in (
            h11.Response(status_code=status, headers=head, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def close_if_idle(self) -> None:
        """Close it unless a request is being answered."""
        if self.cycle is None or self.cycle.response_complete:
            self.shutdown()

    def say_close(self) -> None:
        """Have the answer that is being made say that the connection ends with it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE]

    def _give_up(self) -> None:
        self.close_if_idle()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class Server(uvicorn.Server):
    """`accepting` is called when the doors are open, `draining` when they close. `finish(seconds)` lets
    what runs in the background come to its end within so many seconds."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        accepting: Callable[[], None],
        draining: Callable[[], None],
        finish: Callable[[float], Awaitable[None]],
        keep_alive_s: float = KEEP_ALIVE_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        super().__init__(config)
        self.told = asyncio.Event()
        """Set once the server was told to end."""
        self._accepting = accepting
        self._draining = draining
        self._finish = finish
        self._keep_alive_s = keep_alive_s
        self._drain_s = drain_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._accepting()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        state = self.server_state
        state.default_headers = [*state.default_headers, CLOSE]
        for connection in self._connections():
            connection.say_close()
        self._draining()
        deadline = asyncio.get_running_loop().time() + self._drain_s
        await self._wait_for(lambda: not state.connections, self._keep_alive_s)
        for connection in self._connections():
            connection.close_if_idle()
        await self._finish(self._left(deadline))
        await self._wait_for(lambda: not (state.connections or state.tasks), self._left(deadline))
        for task in list(state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)

    def _connections(self) -> list[Connection]:
        return [c for c in self.server_state.connections if isinstance(c, Connection)]

    def _left(self, deadline: float) -> float:
        return 0.0 if self.force_exit else max(0.0, deadline - asyncio.get_running_loop().time())

    async def _wait_for(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until it is done, or for so long; not at all once we are told to end now."""
        end = asyncio.get_running_loop().time() + seconds
        # The sets of connections and tasks are uvicorn's, and tell nobody when they change.
        while not (done() or self.force_exit) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(TICK_S)

    def tell(self, now: bool) -> None:
        """End, as after SIGTERM; at once with `now`, or when told twice."""
        self.force_exit = self.force_exit or self.should_exit or now
        self.should_exit = True
        self.told.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to whoever runs the server: uvicorn would raise them again at its end."""
        yield


def config(app: Any, **options: Any) -> uvicorn.Config:
    """How uvicorn serves an application of ours."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        **options,
    )
