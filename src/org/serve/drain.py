"""A server that can hand over without losing a request.

What loses requests at a hand-over is closing connections that were accepted and have not been read
yet. So on SIGTERM this one stops accepting, and goes on answering what comes over the connections it
has, those included that it took a moment ago, each answer saying `Connection: close`; those over which
nothing comes are closed only after the time for which a connection is kept alive anyway. What still
streams runs to its end, or the deadline.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from org.serve.connection import CLOSE, KEEP_ALIVE_S, Connection
from org.serve.intake import Intake

DRAIN_S = 30.0
"""Seconds after which a drain ends whatever still runs."""
GRACE_S = 1.0
"""Seconds for which what was ended may still put things away."""
TICK_S = 0.05


class Ending:
    """The outermost application: what is cancelled because the server ends is no error of it."""

    def __init__(self, app: Any) -> None:
        self.now = False
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.now:
                raise


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
        config.app = self._ending = Ending(config.app)
        super().__init__(config)
        self.told = asyncio.Event()
        """Set once the server was told to end."""
        self._accepting = accepting
        self._draining = draining
        self._finish = finish
        self._keep_alive_s = keep_alive_s
        self._drain_s = drain_s
        self._intakes: list[Intake] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # a server of the event loop forgets what it took a moment before its end
        self._intakes = [Intake(listener, self._make, self.config.ssl) for listener in sockets or ()]
        for intake in self._intakes:
            intake.begin()
        self._accepting()

    def _make(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for intake in self._intakes:
            intake.end()
        for listener in sockets or ():
            listener.close()
        state = self.server_state
        state.default_headers = [*state.default_headers, CLOSE]
        for connection in self._connections():
            connection.say_close()
            connection.hurry()
        self._draining()
        deadline = asyncio.get_running_loop().time() + self._drain_s
        await self._wait_for(lambda: not self._anybody, self._keep_alive_s)
        for connection in self._connections():
            connection.close_if_silent()
            connection.hurry()  # what it closed may have something to send still
        await self._finish(self._left(deadline))
        await self._wait_for(lambda: not (self._anybody or state.tasks), self._left(deadline))
        await self._end()

    async def _end(self) -> None:
        """End what still runs: by itself, or since nobody listens any more, or else cancelled."""
        tasks = self.server_state.tasks
        coming = self._coming()
        for taken in coming:
            taken.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)
        for connection in self._connections():
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)
        self._ending.now = True
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def _anybody(self) -> bool:
        """Whether there are connections, those that were just taken included."""
        return bool(self.server_state.connections or self._coming())

    def _coming(self) -> list[asyncio.Task[None]]:
        return [task for intake in self._intakes for task in intake.coming]

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
        headers=[("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")],
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        **options,
    )
