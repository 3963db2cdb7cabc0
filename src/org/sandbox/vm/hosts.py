"""A host of the guest, and the channels that it has open. Standard library only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from org.sandbox.vm import channels, frames, loop, places
else:  # beside this file in the guest
    import channels
    import frames
    import loop
    import places

Begin: TypeAlias = "Callable[[channels.Channel, dict[str, Any]], channels.Work | None]"


class Host:
    """Serves who is at a port. `begin` does what a channel's request asks for, or says what the channel
    is about from then on; `about` is what each new host is told. `on_end` is that of the port."""

    def __init__(
        self,
        events: loop.Loop,
        source: str | socket.socket,
        begin: Begin,
        about: Callable[[], Mapping[str, Any]],
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._begin = begin
        self._about = about
        self._channels: dict[int, channels.Channel] = {}
        self.port = loop.Port(
            events,
            source,
            on_open=self._greet,
            on_frame=self._take,
            on_lost=self.lost,
            on_room=self._go_on,
            on_end=on_end,
        )

    def _greet(self) -> None:
        self.port.send(frames.told(frames.NOTE, 0, {"version": frames.VERSION, **self._about()}))

    def lost(self) -> None:
        """The host is gone: what belongs to its channels is ended."""
        lost = list(self._channels.values())
        self._channels.clear()
        for channel in lost:
            if channel.work is not None:
                channel.work.abandon()

    def _go_on(self) -> None:
        for channel in list(self._channels.values()):
            if channel.work is not None:
                channel.work.go_on()

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.OPEN:
            self._open(frame)
            return
        channel = self._channels.get(frame.channel)
        if channel is None:  # it ended while the frame was on its way
            return
        if frame.bulk:
            channel.incoming.receive(len(frame.payload))
        if frame.kind == frames.CREDIT:
            channel.outgoing.grant(frame.payload)
            if channel.work is not None:
                channel.work.go_on()
        elif frame.kind == frames.CLOSE:
            if channel.work is None:
                channel.close()
            else:
                channel.work.abandon()
        elif channel.work is not None:
            channel.work.take(frame)

    def _open(self, frame: frames.Frame) -> None:
        if frame.channel in self._channels:
            raise frames.ProtocolError("a channel was opened twice")
        channel = channels.Channel(frame.channel, self.port, self._channels)
        try:
            channel.work = self._begin(channel, frames.content(frame.payload))
        except channels.Refused as error:
            channel.refuse(error)
        except places.PathRefused as error:
            channel.refuse(channels.Refused("usage", str(error)))
        except OSError as error:
            channel.refuse(channels.Refused("environment", f"the guest cannot: {error.strerror or error}"))
        except (KeyError, TypeError, ValueError) as error:
            channel.refuse(channels.Refused("usage", f"the guest does not understand the request: {error!r}"))
