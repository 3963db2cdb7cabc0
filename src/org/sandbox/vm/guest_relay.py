"""The guest's half of the relay, on the port `org.net`: there is no network card, so this is the network.

    python3 -S guest_relay.py DEVICE [model=PORT] [inbound=PORT,PORT]

Whoever connects to 127.0.0.1:11434 reaches the model server through the host. The host may connect
to the ports of `inbound`, and is told which of them somebody serves. Standard library only.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.vm import frames, loop
else:  # beside this file in the guest
    import frames
    import loop

MODEL = 11434
INBOUND = (7001, 7002)
_MOST_CONNECTIONS = 512
_LOOK_S = 0.5
_LISTENING = "0A"
_NOBODY = 65534


class Connection:
    """A connection in the guest that is a channel to the host."""

    def __init__(self, relay: Relay, number: int, connected: socket.socket, *, dialing: bool) -> None:
        self.number = number
        self._relay = relay
        self._socket = connected
        self._incoming, self._outgoing = frames.Incoming(), frames.Outgoing()
        self._queue: deque[memoryview] = deque()
        self._dialing = dialing
        self._said_end = False  # the guest's side will send no more
        self._heard_end = False  # the host's side will not
        self._shut = False  # and the guest's side was told
        self._closed = False  # the host said its last word
        self.watch()

    def watch(self) -> None:
        """Wait for what can go on now."""
        events = 0
        if not self._dialing and not self._said_end and self._room():
            events |= loop.READ
        if self._queue or self._dialing:
            events |= loop.WRITE
        self._relay.loop.watch(self._socket.fileno(), events, self._ready)

    def _room(self) -> int:
        return 0 if self._relay.port.full else min(self._outgoing.room, frames.MOST_DATA)

    def _ready(self, events: int) -> None:
        if self._dialing:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self.cut(os.strerror(number))
                return
            self._dialing = False
        try:
            if self._queue:
                self._write()
            if events & (loop.READ | loop.HANG_UP) and not self._said_end:
                self._read()
        except OSError as error:
            self.cut(error.strerror or "it broke")
            return
        if self._socket.fileno() >= 0:
            self.watch()

    def _read(self) -> None:
        room = self._room()
        if not room:
            return
        try:
            data = self._socket.recv(room)
        except BlockingIOError:
            return
        if data:
            self._outgoing.spend(len(data))
            self._relay.port.send(frames.frame(frames.DATA, self.number, data))
        else:
            self._said_end = True
            self._relay.port.send(frames.frame(frames.EOF, self.number))
            if self._shut:
                self.cut("")

    def _write(self) -> None:
        while self._queue:
            try:
                sent = self._socket.send(self._queue[0])
            except BlockingIOError:
                return
            granted = self._incoming.use(sent)
            if granted and not self._closed:
                self._relay.port.send(frames.credit(self.number, granted))
            if sent == len(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue[0] = self._queue[0][sent:]
        if self._closed:
            self.end()
        elif self._heard_end and not self._shut:
            self._shut = True
            self._socket.shutdown(socket.SHUT_WR)
        if self._shut and self._said_end:
            self.cut("")

    def take(self, frame: frames.Frame) -> None:
        """A frame of the host."""
        if frame.kind == frames.DATA:
            self._incoming.receive(len(frame.payload))
            self._queue.append(memoryview(frame.payload))
        elif frame.kind == frames.CREDIT:
            self._outgoing.grant(frame.payload)
        elif frame.kind == frames.EOF:
            self._heard_end = True
        elif frame.kind == frames.CLOSE:
            self._closed = True
            self._relay.forget(self)
        if self._dialing:
            return
        try:
            self._write()
        except OSError as error:
            self.cut(error.strerror or "it broke")
            return
        if self._socket.fileno() >= 0:
            self.watch()

    def cut(self, reason: str) -> None:
        """End both sides, for a reason or because both are done."""
        if not self._closed:
            self._relay.forget(self)
            self._relay.port.send(frames.told(frames.CLOSE, self.number, {"error": reason}))
        self.end()

    def end(self) -> None:
        if self._socket.fileno() >= 0:
            self._relay.loop.forget(self._socket.fileno())
            self._socket.close()


class Relay:
    """All connections between the guest and its host."""

    def __init__(self, port: str, model: int, inbound: tuple[int, ...]) -> None:
        self.loop = loop.Loop()
        self._inbound = inbound
        self._served: list[int] = []
        self._connections: dict[int, Connection] = {}
        self._number = -1
        self._listener = socket.create_server(("127.0.0.1", model), backlog=128)
        self._listener.setblocking(False)
        self.port = loop.Port(
            self.loop,
            loop.source(port),
            on_open=self._greet,
            on_frame=self._take,
            on_lost=self._lost,
            on_room=self._go_on,
        )
        self._look()

    def run(self) -> None:
        while True:
            self.loop.turn()

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)
        self._watch_listener()

    def _greet(self) -> None:
        self._number = -1
        self.port.send(frames.told(frames.NOTE, 0, {"version": frames.VERSION}))
        self._tell()
        self._watch_listener()

    def _tell(self) -> None:
        self.port.send(frames.told(frames.NOTE, 0, {"serving": self._served}))

    def _lost(self) -> None:
        lost = list(self._connections.values())
        self._connections.clear()
        for connection in lost:
            connection.end()
        self._watch_listener()

    def _go_on(self) -> None:
        for connection in list(self._connections.values()):
            connection.watch()

    def _watch_listener(self) -> None:
        """Nobody is let in without a host, nor beyond what one process can hold."""
        ready = self.port.open and len(self._connections) < _MOST_CONNECTIONS
        self.loop.watch(self._listener.fileno(), loop.READ if ready else 0, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connected, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number += 2
        self.port.send(frames.told(frames.OPEN, self._number, {"to": "model"}))
        self._join(self._number, connected, dialing=False)

    def _join(self, number: int, connected: socket.socket, *, dialing: bool) -> None:
        connected.setblocking(False)
        self._connections[number] = Connection(self, number, connected, dialing=dialing)
        self._watch_listener()

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.OPEN:
            self._dial(frame)
            return
        connection = self._connections.get(frame.channel)
        if connection is not None:
            connection.take(frame)

    def _dial(self, frame: frames.Frame) -> None:
        wanted = frames.content(frame.payload).get("to")
        if wanted not in self._inbound or len(self._connections) >= _MOST_CONNECTIONS:
            refusal = {"error": "nothing of the kind is let in"}
            self.port.send(frames.told(frames.CLOSE, frame.channel, refusal))
            return
        connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connected.connect_ex(("127.0.0.1", wanted))
        if number not in (0, errno.EINPROGRESS):
            connected.close()
            self.port.send(frames.told(frames.CLOSE, frame.channel, {"error": os.strerror(number)}))
            return
        self._join(frame.channel, connected, dialing=number != 0)

    def _look(self) -> None:
        """Which of the ports somebody serves; the kernel tells nobody when that changes."""
        served = sorted(listening() & set(self._inbound))
        if served != self._served:
            self._served = served
            self._tell()
        self.loop.later(_LOOK_S, self._look)


def listening() -> set[int]:
    """The TCP ports at which somebody listens, on whatever address."""
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except FileNotFoundError:  # a kernel without it
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def main(arguments: list[str]) -> None:
    named = dict(argument.split("=", 1) for argument in arguments[1:])
    inbound = tuple(int(port) for port in named["inbound"].split(",")) if "inbound" in named else INBOUND
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    relay = Relay(arguments[0], int(named.get("model", MODEL)), inbound)
    if os.geteuid() == 0:  # the port is open: nothing else here needs root
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    relay.run()


if __name__ == "__main__":
    main(sys.argv[1:])
