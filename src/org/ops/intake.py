"""Connections taken from a listening socket, each known from the moment when it was taken.

A server of the event loop knows of them only some turns later, and forgets those when it is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from org.ops.listener import BACKLOG

_PAUSE_S = 1.0


class Intake:
    """`handle` is what becomes of a connection, which it has to close; `handled` are those that it has not
    done with."""

    def __init__(
        self, listener: socket.socket, handle: Callable[[socket.socket], Coroutine[Any, Any, None]]
    ) -> None:
        self.handled: set[asyncio.Task[None]] = set()
        self._listener = listener
        self._handle = handle
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
            except OSError as error:  # no more files can be open, say
                self._loop.call_exception_handler(
                    {"message": "no connection can be taken", "exception": error}
                )
                self.end()
                self._pause = self._loop.call_later(_PAUSE_S, self.begin)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._handle(connection))
            self.handled.add(task)
            task.add_done_callback(self.handled.discard)
