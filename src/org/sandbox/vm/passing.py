"""Bytes between a channel and what keeps them in the guest: a file, or what a command said.
Standard library only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from org.sandbox.vm import channels, daemons, frames, loop, orders, places
else:  # beside this file in the guest
    import channels
    import daemons
    import frames
    import orders
    import places

_MOST_UNHEARD = 262_144  # bytes of a log that wait for a host; of more, the first are left out


def reading(events: loop.Loop, channel: channels.Channel, request: dict[str, Any]) -> Reading:
    """The file that was asked for. Raises `PathRefused`, `Refused`."""
    return Reading(events, channel, _opened(request, os.O_RDONLY), int(request["limit"]))


def writing(channel: channels.Channel, request: dict[str, Any]) -> Writing:
    """The file that is to be written. Raises `PathRefused`, `Refused`."""
    append = os.O_APPEND if request["append"] else 0
    fd = _opened(request, os.O_WRONLY | os.O_CREAT | append)
    if not append:
        os.ftruncate(fd, 0)
    return Writing(channel, fd)


def _opened(request: dict[str, Any], flags: int) -> int:
    who = orders.identity(request["user"])
    workspace = places.prepared(request["workspace"], who)
    return places.opened(workspace, who, request["path"], flags)


class Reading:
    """A file on its way to the host."""

    def __init__(self, events: loop.Loop, channel: channels.Channel, fd: int, limit: int) -> None:
        self._channel = channel
        self._fd = fd
        self._left = limit
        events.later(0, self.go_on)

    def go_on(self) -> None:
        while self._fd >= 0 and (room := self._channel.room):
            try:
                data = os.read(self._fd, min(room, self._left))
            except OSError as error:
                self._end()
                self._channel.refuse(channels.Refused("environment", f"it cannot be read: {error.strerror}"))
                return
            self._left -= len(data)
            if not data:
                self._end()
                self._channel.close()
                return
            self._channel.send(frames.DATA, data)

    def take(self, frame: frames.Frame) -> None:
        raise frames.ProtocolError("a file that is read takes nothing")

    def abandon(self) -> None:
        self._end()
        self._channel.close()

    def _end(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Writing:
    """A file on its way from the host."""

    def __init__(self, channel: channels.Channel, fd: int) -> None:
        self._channel = channel
        self._fd = fd

    def take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.EOF:
            self.abandon()
            return
        rest = memoryview(frame.payload)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.close(self._fd)
            self._channel.refuse(channels.Refused("environment", f"it cannot be written: {error.strerror}"))
            return
        self._channel.used(len(frame.payload))

    def go_on(self) -> None:
        """Nothing waits here."""

    def abandon(self) -> None:
        os.close(self._fd)
        self._channel.close()


class Telling:
    """Bytes that are there already, on their way to the host."""

    def __init__(self, channel: channels.Channel, data: bytes) -> None:
        self._channel = channel
        self._rest = data
        self.go_on()

    def go_on(self) -> None:
        while self._rest and (room := self._channel.room):
            self._channel.send(frames.DATA, self._rest[:room])
            self._rest = self._rest[room:]
        if not self._rest:
            self._channel.close()

    def take(self, frame: frames.Frame) -> None:
        raise frames.ProtocolError("a log takes nothing")

    def abandon(self) -> None:
        self._channel.close()


class Following:
    """What a command that stays says, its last `size` bytes first, until it has ended."""

    def __init__(self, channel: channels.Channel, daemon: daemons.Daemon, size: int) -> None:
        self._channel = channel
        self._daemon = daemon
        self._rest = bytearray(daemon.log(size))
        daemon.follow(self.hear)
        self.go_on()

    def hear(self, data: bytes) -> None:
        """More of it, or nothing at its end."""
        self._rest += data
        del self._rest[: max(0, len(self._rest) - _MOST_UNHEARD)]
        self.go_on()

    def go_on(self) -> None:
        while self._rest and (room := self._channel.room):
            self._channel.send(frames.DATA, bytes(self._rest[:room]))
            del self._rest[:room]
        if not self._rest and self._daemon.code is not None:
            self._channel.close(code=self._daemon.code)

    def take(self, frame: frames.Frame) -> None:
        raise frames.ProtocolError("a log takes nothing")

    def abandon(self) -> None:
        self._daemon.unfollow(self.hear)
        self._channel.close()
