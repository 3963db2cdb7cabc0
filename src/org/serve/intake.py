"""Taking connections from a listening socket, so that none is ever lost between two hands.

The event loop's own server makes something of a connection only some turns after it took it, and when
that server is closed in between nobody knows of the connection any more. Here each one is known from the
moment it was taken.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from org.serve.listener import BACKLOG

PAUSE_S = 1.0
"""Seconds after which it is tried again when no more files can be open."""

_log = logging.getLogger("org.serve")


class Intake:
    """`make` makes what talks over a connection. `coming` are connections that were taken and over which
    nobody talks yet: for a moment, or, with TLS, until both sides have agreed."""

    def __init__(
        self, listener: socket.socket, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> None:
        self.coming: set[asyncio.Task[None]] = set()
        self._listener = listener
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._take)

    def end(self) -> None:
        """Take no more. What waits at the socket stays there for whoever else has it."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _take(self) -> None:
        for _ in range(BACKLOG):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("no connection can be taken: %s", error.strerror)
                self.end()
                self._pause = self._loop.call_later(PAUSE_S, self.begin)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self.coming.add(task)
            task.add_done_callback(self.coming.discard)

    async def _open(self, connection: socket.socket) -> None:
        with suppress(OSError):  # whoever came has left, or does not speak TLS
            await self._loop.connect_accepted_socket(self._make, connection, ssl=self._tls)
