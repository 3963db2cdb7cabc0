"""What the attempts are aimed at, on this side of the wall: real, and reached once before."""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem

# Each attempt has a listener of its own, so that what arrives tells which of them got through.
_TCP = ("tcp", "absolute", "connect", "host-header")
_SECRETS = ("/etc/shadow", "/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Targets:
    """`listeners` by attempt; `given` is what the intruder is told."""

    listeners: Mapping[str, socket.socket]
    given: Mapping[str, object]

    @property
    def ports(self) -> dict[str, int]:
        return {
            name: one.getsockname()[1]
            for name, one in self.listeners.items()
            if one.family in (socket.AF_INET, socket.AF_INET6)
        }

    def reached(self) -> dict[str, str]:
        """What arrived here, whatever the attempts say of themselves: attempt to detail."""
        return {
            name: f"a {'datagram' if one.type == socket.SOCK_DGRAM else 'connection'} arrived outside"
            for name, one in self.listeners.items()
            if _came(one)
        }


def _came(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(1)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@contextmanager
def targets(*, apart: bool) -> Iterator[Targets]:
    """For a place that is `apart` files and processes are aims only when nobody else has such."""
    token = f"org-probe-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in _TCP}
        with suppress(OSError):  # a host without IPv6
            listeners["tcp-ipv6"] = stack.enter_context(
                socket.create_server(("::1", 0), family=socket.AF_INET6)
            )
        listeners["udp"] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        listeners["udp"].bind(("127.0.0.1", 0))
        listeners["unix"] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listeners["unix"].bind("\0" + token)
        listeners["unix"].listen()
        canary = stack.enter_context(tempfile.NamedTemporaryFile(prefix="org-probe-"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="org-probe-"))
        # It waits for its input to end, which happens at the latest when this process does.
        victim = stack.enter_context(
            subprocess.Popen(["/bin/sh", "-c", "read -r _", token], stdin=subprocess.PIPE)
        )
        given: dict[str, object] = {
            "unix": token,
            "victim": victim.pid,
            "token": token,
            "canary": canary.name,
            # A place apart has such folders too: there, only what nobody else has is an aim.
            "homes": [folder] if apart else sorted({str(Path.home()), "/root", "/home"}),
            "secrets": [canary.name] if apart else list(_SECRETS),
        }
        for listener in listeners.values():
            listener.setblocking(False)
            _knock(listener)
        yield Targets(listeners, given)


def _knock(listener: socket.socket) -> None:
    """Reach it from this side once: a target that nobody can reach would prove nothing."""
    with socket.socket(listener.family, listener.type) as caller:
        caller.connect(listener.getsockname())
        caller.send(b"x")
        if not _came(listener):
            raise EnvironmentProblem(f"the listener at {listener.getsockname()!r} cannot be reached")


def addresses() -> list[str]:
    """The addresses of this host beyond its loopback, as far as they can be seen."""
    found = set()
    with suppress(OSError), open("/proc/net/fib_trie", encoding="utf-8") as file:
        last = ""
        for line in file:
            if "/32 host LOCAL" in line:
                found.add(last)
            last = line.split()[-1]
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as one:
            one.connect((far, 9))  # sends nothing, but chooses
            found.add(one.getsockname()[0])
    return sorted(address for address in found if not address.startswith("127.") and address != "::1")
