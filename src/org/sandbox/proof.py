"""What the walls of a place are worth: it is attacked from inside, and what happened is told.

Each attempt meets something real that it could reach without the wall: a listener that was just
connected to, a process that is running, a file that exists. So a probe that says "held" says that
the wall did it.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from org.errors import EnvironmentProblem
from org.ports import Command, Sandbox
from org.sandbox.limits import Limits

# Wall, and the attempts that it must hold against, as the program inside names them.
_WALLS = {
    "network": ("tcp", "udp", "unix"),
    "files": ("home", "secrets", "outside"),
    "system": ("system", "devices", "terminal"),
    "processes": ("see", "kill", "trace"),
    "privileges": ("privileges", "keys"),
    "environment": ("environment",),
    "limits": ("processes", "memory", "file_size"),
}
# In a place with a kernel and a system of its own these would only meet what belongs to the place.
_ITS_OWN = frozenset({"system", "privileges", "keys", "memory", "file_size"})
_SECRETS = ("/etc/shadow", "/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id")
_VARIABLES = ("PATH", "HOME", "LANG", "TERM", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "ORG_JOB")


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to get through a wall. `held` says that the wall did its work; `detail`, in
    words, what stopped the attempt or what it reached."""

    name: str
    wall: str
    held: bool
    detail: str


async def prove(place: Sandbox, limits: Limits, *, apart: bool = False) -> tuple[Probe, ...]:
    """Attack `place`, whose limits are `limits`, with every attempt there is.

    `apart` says that it has a kernel and a system of its own, as a machine has: the attempts are then
    those that would get through to this side. It needs `python3` inside. Raises `EnvironmentProblem`
    when the attempts cannot be made, and `SandboxGone`.
    """
    program = files("org.sandbox").joinpath("intruder.py").read_text("utf-8")
    with _targets(apart=apart) as targets:
        given = targets.given | {
            "variables": _VARIABLES,
            "processes": limits.processes,
            "memory": limits.memory,
            "file_size": limits.file_size,
        }
        result = await place.exec(
            Command(["python3", "-S", "-", json.dumps(given)], stdin=program.encode(), output_limit=65_536)
        )
        reached = targets.reached()
    if result.exit_code:
        said = (result.head + result.tail).decode(errors="replace").strip().rpartition("\n")[2]
        raise EnvironmentProblem(f"the place cannot be tried: {said or f'exit code {result.exit_code}'}")
    found: dict[str, tuple[bool, str]] = json.loads(result.head)
    found |= {name: (False, detail) for name, detail in reached.items()}
    made = {
        wall: [name for name in names if not (apart and name in _ITS_OWN)] for wall, names in _WALLS.items()
    }
    return tuple(Probe(name, wall, *found[name]) for wall, names in made.items() for name in names)


@dataclass(frozen=True, slots=True)
class _Targets:
    """What the attempts are aimed at, on this side of the wall."""

    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    victim: subprocess.Popen[bytes]
    canary: Path
    given: dict[str, object]

    def reached(self) -> dict[str, str]:
        """What arrived here, whatever the attempts say of themselves: attempt to detail."""
        found = {}
        for name, listener in (("tcp", self.tcp), ("unix", self.unix)):
            if _came(listener):
                found[name] = "a connection arrived outside"
        if _came(self.udp):
            found["udp"] = "a datagram arrived outside"
        return found


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
def _targets(*, apart: bool) -> Iterator[_Targets]:
    token = f"org-probe-{secrets.token_hex(8)}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
        tempfile.NamedTemporaryFile(prefix="org-probe-") as canary,
        tempfile.TemporaryDirectory(prefix="org-probe-") as folder,
        # It waits for its input to end, which happens at the latest when this process does.
        subprocess.Popen(["/bin/sh", "-c", "read -r _", token], stdin=subprocess.PIPE) as victim,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind("\0" + token)
        unix.listen()
        given: dict[str, object] = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": token,
            "victim": victim.pid,
            "token": token,
            "canary": canary.name,
            # A place apart has such folders too: there, only what nobody else has is an aim.
            "homes": [folder] if apart else sorted({str(Path.home()), "/root", "/home"}),
            "secrets": [canary.name] if apart else list(_SECRETS),
        }
        targets = _Targets(tcp, udp, unix, victim, Path(canary.name), given)
        for listener in (tcp, udp, unix):
            listener.setblocking(False)
            _knock(listener)
        yield targets


def _knock(listener: socket.socket) -> None:
    """Reach it from this side once: a target that nobody can reach would prove nothing."""
    with socket.socket(listener.family, listener.type) as caller:
        caller.connect(listener.getsockname())
        caller.send(b"x")
        if not _came(listener):
            raise EnvironmentProblem(f"the listener at {listener.getsockname()!r} cannot be reached")
