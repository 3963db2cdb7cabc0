"""The agent: what a guest does for its host. Runs as root in the guest, on the port `org.ctl`.

    python3 -S agent.py [ctl=DEVICE] [net=DEVICE]

For a `DEVICE` there may be the path at which a socket is to listen. Every channel begins with a
request, a JSON object with `op`:

    exec      run a command to its end, or with it in a terminal
    read      a file of a workspace          write     put or append to one
    start     a command that stays           jobs, stop, log   what became of those
    restored  the machine continues from a snapshot: clock, randomness, name

Commands live in cgroups of their own and run as somebody else. When the host goes away, those that
belong to channels are ended; those that were started to stay, stay. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from org.sandbox.vm import channels, family, frames, groups, loop, places, running
else:  # beside this file in the guest
    import channels
    import family
    import frames
    import groups
    import loop
    import places
    import running

CTL = "/dev/virtio-ports/org.ctl"
NET = "/dev/virtio-ports/org.net"
_RELAY_AGAIN_S = 1.0
_STEP_S = 0.01  # a clock that is off by less is left alone
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207


class Agent:
    """Serves one host at a time."""

    def __init__(self, ctl: str, net: str) -> None:
        self.loop = loop.Loop()
        self.groups = groups.Groups()
        self.warm = family.Warm(self.loop, sys.executable or "/usr/bin/python3")
        self._channels: dict[int, channels.Channel] = {}
        self._daemons: dict[str, running.Daemon] = {}
        self._session = os.urandom(8).hex()
        self._net = net
        self._going = True
        self._operations: dict[str, Callable[[channels.Channel, dict[str, Any]], channels.Work | None]] = {
            "exec": self._exec,
            "read": self._read,
            "write": self._write,
            "start": self._start,
            "jobs": self._jobs,
            "stop": self._stop_job,
            "log": self._log,
            "restored": self._restored,
        }
        self.port = loop.Port(
            self.loop,
            loop.source(ctl),
            on_open=self._greet,
            on_frame=self._take,
            on_lost=self._lost,
            on_room=self._go_on,
        )
        self.warm.start()

    def run(self) -> None:
        """Serve until `SIGTERM`."""
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(woken)
        self.loop.watch(wake, loop.READ, lambda _events: None)
        if self._net:
            self._start_relay()
        while self._going:
            self.loop.turn()
        self._lost()
        for daemon in self._daemons.values():
            daemon.kill()
        while self.groups.live:
            self.loop.turn()
        self.groups.close()

    def _stop(self, _number: int, _frame: object) -> None:
        self._going = False

    # -- channels

    def _greet(self) -> None:
        about = {"version": frames.VERSION, "session": self._session, "missing": list(self.groups.missing)}
        self.port.send(frames.told(frames.NOTE, 0, about))

    def _lost(self) -> None:
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
        request = frames.content(frame.payload)
        begin = self._operations.get(str(request.get("op")))
        try:
            if begin is None:
                raise channels.Refused("usage", f"the guest does not know `{request.get('op')}`")
            channel.work = begin(channel, request)
        except channels.Refused as error:
            channel.refuse(error)
        except places.PathRefused as error:
            channel.refuse(channels.Refused("usage", str(error)))
        except OSError as error:
            channel.refuse(channels.Refused("environment", f"the guest cannot: {error.strerror or error}"))
        except (KeyError, TypeError, ValueError) as error:
            channel.refuse(channels.Refused("usage", f"the guest does not understand the request: {error!r}"))

    # -- what can be asked

    def _exec(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        return running.Job(self.loop, self.groups, self.warm, channel, running.Wanted.of(request))

    def _read(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        fd = self._opened(request, os.O_RDONLY)
        return Reading(self.loop, channel, fd, int(request["limit"]))

    def _write(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        append = os.O_APPEND if request["append"] else 0
        fd = self._opened(request, os.O_WRONLY | os.O_CREAT | append)
        if not append:
            os.ftruncate(fd, 0)
        return Writing(channel, fd)

    def _opened(self, request: dict[str, Any], flags: int) -> int:
        who = running.identity(request["user"])
        workspace = places.prepared(request["workspace"], who)
        return places.opened(workspace, who, request["path"], flags)

    def _start(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        name = str(request["name"])
        old = self._daemons.get(name)
        if old is not None and old.code is None:
            raise channels.Refused("busy", f"the job `{name}` runs already (process {old.pid})")
        if old is None and len(self._daemons) >= running.MOST_DAEMONS:
            raise channels.Refused("busy", f"there are {len(self._daemons)} jobs already")
        daemon = running.Daemon(self.loop, self.groups, running.Wanted.of(request))
        self._daemons[name] = daemon
        channel.close(pid=daemon.pid)
        return None

    def _jobs(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        channel.close(jobs=[{"name": name, **daemon.told()} for name, daemon in self._daemons.items()])
        return None

    def _stop_job(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        daemon = self._daemon(request)

        def ended() -> None:
            self._daemons.pop(str(request["name"]), None)
            channel.close(code=daemon.code)

        daemon.stop(float(request["grace_s"]), ended)
        return None

    def _log(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        return Telling(channel, self._daemon(request).log(int(request["size"])))

    def _daemon(self, request: dict[str, Any]) -> running.Daemon:
        daemon = self._daemons.get(str(request["name"]))
        if daemon is None:
            raise channels.Refused("usage", f"there is no job `{request['name']}`")
        return daemon

    def _restored(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        set_clock(float(request["now"]), time.clock_settime)
        seed(bytes.fromhex(request["seed"]))
        rename(str(request["machine"]), str(request["hostname"]))
        self._session = os.urandom(8).hex()
        self.warm.renew()
        channel.close(session=self._session)
        return None

    # -- the relay

    def _start_relay(self) -> None:
        """In a process of its own, so that neither can starve or end the other."""
        here = os.path.dirname(os.path.abspath(__file__))
        python = sys.executable or "/usr/bin/python3"
        pid = os.posix_spawn(
            python,
            [python, "-S", os.path.join(here, "guest_relay.py"), self._net],
            {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )
        pidfd = os.pidfd_open(pid)

        def ended(_events: int) -> None:
            self.loop.close(pidfd)
            os.waitpid(pid, 0)
            self.loop.later(_RELAY_AGAIN_S, self._start_relay)

        self.loop.watch(pidfd, loop.READ, ended)


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


# -- after a snapshot


def set_clock(now: float, settime: Callable[[int, float], None]) -> None:
    """Set the clock to `now`, Unix time in seconds, unless it is right already."""
    if abs(time.time() - now) >= _STEP_S:
        settime(time.CLOCK_REALTIME, now)


def seed(data: bytes) -> None:
    """Give the kernel `data` as randomness that counts, and make it use it at once: clones of one
    snapshot would otherwise draw the same numbers."""
    fd = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _RNDADDENTROPY, struct.pack("ii", len(data) * 8, len(data)) + data)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)
    finally:
        os.close(fd)


def rename(machine: str, hostname: str) -> None:
    """A machine id (32 hexadecimal digits) and a host name of its own; each is left when empty."""
    if machine:
        with open("/etc/machine-id", "w", encoding="ascii") as file:
            file.write(machine + "\n")
    if hostname:
        socket.sethostname(hostname)
        with open("/etc/hostname", "w", encoding="ascii") as file:
            file.write(hostname + "\n")


def main(arguments: list[str]) -> None:
    named = dict(argument.split("=", 1) for argument in arguments)
    # Only root may; elsewhere the agent is no more than what it runs.
    with suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(0o022)
    net = named.get("net", NET if os.path.exists(NET) else "")
    try:
        agent = Agent(named.get("ctl", CTL), net)
    except OSError as error:
        if error.errno == errno.EBUSY:
            sys.exit("another agent has the port")
        raise
    agent.run()


if __name__ == "__main__":
    main(sys.argv[1:])
