"""One connection, which waits for nobody for ever: not for a request, and not for a reader."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S = 5
"""Seconds for which a connection is kept open without a request."""
REQUEST_S = 30.0
"""Seconds within which the head of a request must have come: the first, and any later one."""
STALLED_S = 20.0
"""Seconds after which a reader that has taken nothing of what waits for it is given up."""
DRAIN_STALLED_S = 5.0
"""The same while the server drains."""
MAX_CONNECTIONS = 5000
"""Connections at once; one more is told to come back later."""
MAX_STRANGERS = 3000
"""How many of them may be over which nobody has shown the token."""
STRANGER_S = 2.0
"""Seconds after which one of those makes way for a new one, when there are so many."""
CLOSE = (b"connection", b"close")
_KNOWN = "org.known"


def know(scope: Scope) -> None:
    """Note that a request has shown the token; its connection may stay."""
    scope[_KNOWN] = True


class Connection(H11Protocol):
    """A connection with an end to its patience, that refuses what is no HTTP in the form that errors
    have here."""

    _patience: asyncio.TimerHandle | None = None
    _watching: asyncio.TimerHandle | None = None
    _stalled_s = STALLED_S
    _made = 0.0
    _known = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._made = self.loop.time()
        self._stalled_s = STALLED_S
        if len(self.connections) > MAX_CONNECTIONS or not self._has_place():
            self._refuse(503, b"Service Unavailable", b"too many connections")
            return
        self._patience = self.loop.call_later(REQUEST_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():  # it was refused
            super().data_received(data)

    def handle_events(self) -> None:
        self._known = self.known  # before another request takes the place of this one
        super().handle_events()
        if not self._idle:
            self._stop_waiting()
        elif self._patience is None:
            self._patience = self.loop.call_later(REQUEST_S, self._give_up)

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

    # -- waiting for requests

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def close_if_idle(self) -> None:
        """Close it unless a request is being answered."""
        if self._idle and not self.transport.is_closing():
            self.shutdown()

    def close_if_silent(self) -> None:
        """Close it unless a request is being answered or has begun to come, be it unread."""
        if not (self.conn.trailing_data[0] or self._asks(termios.FIONREAD)):
            self.close_if_idle()

    def say_close(self) -> None:
        """Have the answer that is being made say that the connection ends with it."""
        if not self._idle:
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE]

    def _give_up(self) -> None:
        self._patience = None
        self.close_if_idle()
        self._watch()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # -- waiting for who reads

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def hurry(self) -> None:
        """From now on wait only a little for whoever does not read."""
        self._stalled_s = DRAIN_STALLED_S
        self._watch()

    def _watch(self) -> None:
        """Look after a while whether anything was taken of what waits."""
        self._stop_watching()
        if self.transport.get_write_buffer_size():
            self._watching = self.loop.call_later(self._stalled_s, self._look, self._waiting())

    def _look(self, before: int) -> None:
        if self._waiting() < before:
            self._watch()
        else:
            self.transport.abort()

    def _waiting(self) -> int:
        """Bytes that the other side has not taken, here or with the kernel: that has much room, and asks
        for more only when a good part of it is free."""
        return self._asks(termios.TIOCOUTQ) + self.transport.get_write_buffer_size()

    def _asks(self, what: int) -> int:
        """How many bytes the kernel has of it, on their way in or out."""
        found = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), what, b"\0" * 4)
        return int(struct.unpack("i", found)[0])

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    # -- strangers

    @property
    def known(self) -> bool:
        """Whether the token was shown over it."""
        return self._known or (self.scope is not None and _KNOWN in self.scope)

    def _has_place(self) -> bool:
        """Whether a new connection may stay, as it comes or since an old one makes way. New ones are
        never asked to: many clients that come back at once have not said who they are yet."""
        if len(self.connections) <= MAX_STRANGERS:
            return True
        others = [other for other in self.connections if isinstance(other, Connection)]
        strangers = [other for other in others if other is not self and not other.known]
        if len(strangers) < MAX_STRANGERS:
            return True
        oldest = min(strangers, key=lambda other: other._made)
        if self._made - oldest._made < STRANGER_S:
            return False
        oldest.transport.abort()
        oldest.connections.discard(oldest)  # it hears of its end a moment later
        return True
