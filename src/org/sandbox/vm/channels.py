"""The guest's side of a channel, and what may stand behind one. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from org.sandbox.vm import frames, loop
else:  # beside this file in the guest
    import frames


class Refused(Exception):
    """The request cannot be done; `kind` is `usage`, `busy` or `environment`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Work(Protocol):
    """What a channel is about, once it is open."""

    def take(self, frame: frames.Frame) -> None:
        """A frame of the channel: `DATA` and the like, `EOF` or `NOTE`."""

    def go_on(self) -> None:
        """There may be room again, in the window or in the port."""

    def abandon(self) -> None:
        """The host lost interest, or is gone: end what runs, then close."""


class Channel:
    """A channel in the table of those that are open; with its host gone it is in there no longer."""

    def __init__(self, number: int, port: loop.Port, table: dict[int, Channel]) -> None:
        self.number = number
        self.incoming, self.outgoing = frames.Incoming(), frames.Outgoing()
        self.work: Work | None = None
        self._port = port
        self._table = table
        table[number] = self

    @property
    def lost(self) -> bool:
        """Whether its host is gone, or has the answer: what is sent goes nowhere."""
        return self._table.get(self.number) is not self

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return 0 if self._port.full or self.lost else min(self.outgoing.room, frames.MOST_DATA)

    def send(self, kind: int, data: bytes) -> None:
        """At most `room` bytes, and some."""
        self.outgoing.spend(len(data))
        self._port.send(frames.frame(kind, self.number, data))

    def used(self, count: int) -> None:
        """Bytes that came were passed on, or dropped."""
        granted = self.incoming.use(count)
        if granted and not self.lost:
            self._port.send(frames.credit(self.number, granted))

    def finish(self) -> None:
        """No more bytes from here."""
        if not self.lost:
            self._port.send(frames.frame(frames.EOF, self.number))

    def close(self, **answer: Any) -> None:
        """The last word; said once."""
        if not self.lost:
            del self._table[self.number]
            self._port.send(frames.told(frames.CLOSE, self.number, answer))

    def refuse(self, error: Refused) -> None:
        self.close(error=error.kind, message=str(error)[:2000])
