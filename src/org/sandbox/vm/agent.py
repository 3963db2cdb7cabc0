"""The agent: what a guest does for its host. Runs as root in the guest, on the port `org.ctl`.

    python3 -S agent.py [ctl=DEVICE] [net=DEVICE] [jobs=SOCKET]

For a `DEVICE` there may be the path at which a socket is to listen; `jobs.py` says what `SOCKET` is.
Every channel begins with a request, a JSON object with `op`:

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
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from org.sandbox.vm import (
        channels,
        daemons,
        family,
        frames,
        groups,
        hosts,
        jobs,
        loop,
        orders,
        passing,
        running,
    )
else:  # beside this file in the guest
    import channels
    import daemons
    import family
    import frames
    import groups
    import hosts
    import jobs
    import loop
    import orders
    import passing
    import running

CTL = "/dev/virtio-ports/org.ctl"
NET = "/dev/virtio-ports/org.net"
_RELAY_AGAIN_S = 1.0
_STEP_S = 0.01  # a clock that is off by less is left alone
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207


class Agent:
    """Serves one host at a time."""

    def __init__(self, ctl: str, net: str, terms: jobs.Terms) -> None:
        self.loop = loop.Loop()
        self.groups = groups.Groups()
        self.warm = family.Warm(self.loop, sys.executable or "/usr/bin/python3")
        self._daemons: dict[str, daemons.Daemon] = {}
        self._session = os.urandom(8).hex()
        self._net = net
        self._operations: dict[str, hosts.Begin] = {
            "exec": self._exec,
            "read": self._read,
            "write": self._write,
            "start": self._start,
            "jobs": self._jobs,
            "stop": self._stop_job,
            "log": self._log,
            "restored": self._restored,
        }
        self._host = hosts.Host(self.loop, loop.source(ctl), self._begin, self._about)
        self._door = jobs.Door(self.loop, self.groups, terms)
        self.warm.start()

    def run(self) -> None:
        """Serve until `SIGTERM`."""
        if self._net:
            self._start_relay()
        self.loop.run()
        self._host.lost()
        self._door.close()
        for daemon in self._daemons.values():
            daemon.kill()
        while self.groups.live or self._door.serving:
            self.loop.turn()
        self.groups.close()

    # -- what can be asked

    def _about(self) -> dict[str, Any]:
        return {"session": self._session, "missing": list(self.groups.missing)}

    def _begin(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        begin = self._operations.get(str(request.get("op")))
        if begin is None:
            raise channels.Refused("usage", f"the guest does not know `{request.get('op')}`")
        return begin(channel, request)

    def _exec(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        return running.Job(self.loop, self.groups, self.warm, channel, orders.Wanted.of(request))

    def _read(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        return passing.reading(self.loop, channel, request)

    def _write(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        return passing.writing(channel, request)

    def _start(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        name = str(request["name"])
        old = self._daemons.get(name)
        if old is not None and old.code is None:
            raise channels.Refused("busy", f"the job `{name}` runs already (process {old.pid})")
        if old is None and len(self._daemons) >= daemons.MOST_DAEMONS:
            raise channels.Refused("busy", f"there are {len(self._daemons)} jobs already")
        daemon = daemons.Daemon(self.loop, self.groups, orders.Wanted.of(request))
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
        daemon, size = self._daemon(request), int(request["size"])
        if request.get("follow"):
            return passing.Following(channel, daemon, size)
        return passing.Telling(channel, daemon.log(size))

    def _daemon(self, request: dict[str, Any]) -> daemons.Daemon:
        daemon = self._daemons.get(str(request["name"]))
        if daemon is None:
            raise channels.Refused("usage", f"there is no job `{request['name']}`")
        return daemon

    def _restored(self, channel: channels.Channel, request: dict[str, Any]) -> channels.Work | None:
        set_clock(float(request["now"]), time.clock_settime)
        seed(bytes.fromhex(request["seed"]))
        rename(str(request["machine"]), str(request["hostname"]))
        self._session = os.urandom(8).hex()
        # The warm interpreter may stay: each process forked from it draws its own randomness.
        self._door.close()
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
    door = frames.JOBS if os.path.isdir(os.path.dirname(frames.JOBS)) else ""
    given = {name: value for name, value in named.items() if name in jobs.Terms._fields}
    terms = jobs.Terms(**{"jobs": door, **given})
    try:
        agent = Agent(named.get("ctl", CTL), net, terms)
    except OSError as error:
        if error.errno == errno.EBUSY:
            sys.exit("another agent has the port")
        raise
    agent.run()


if __name__ == "__main__":
    main(sys.argv[1:])
