"""The walls of the virtual machine that this process itself is in, whoever made it."""

from __future__ import annotations

import socket
import struct
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from org.errors import EnvironmentProblem
from org.sandbox.local import GUEST_MARKER, Local
from org.sandbox.proof import attempts
from org.sandbox.proof.attempts import Control
from org.sandbox.proof.prove import attack, probes_of, reached
from org.sandbox.proof.report import Proof
from org.sandbox.proof.targets import addresses

_DMI = Path("/sys/class/dmi/id")
_CPU = Path("/proc/cpuinfo")
_ROUTES = Path("/proc/net/route")
_GATEWAY = 0x2
# What the makers of virtual machines call themselves, in lower case.
_MAKERS = ("qemu", "kvm", "virtualbox", "innotek", "vmware", "virtual machine", "xen", "parallels", "bochs",
           "apple virtualization", "amazon ec2", "google compute", "openstack", "bhyve")  # fmt: skip


def virtual_machine() -> str:
    """The kind of virtual machine that this is, empty for none."""
    if GUEST_MARKER.exists():
        return "made by `org vm up`"
    for name in ("sys_vendor", "product_name", "board_vendor", "bios_vendor"):
        with suppress(OSError):
            said = (_DMI / name).read_text().strip()
            if any(maker in said.lower() for maker in _MAKERS):
                return said
    with suppress(OSError):
        for line in _CPU.read_text().splitlines():
            if line.startswith("flags") and "hypervisor" in line.split():
                return "by its processor"
    return ""


async def prove_inside(base: str) -> Proof:
    """Try to reach anything but the model server at `base` from here, as this user.

    Raises `EnvironmentProblem` when its address is not known here.
    """
    control, model = _model(base)
    tried = attempts.inside(addresses(), _gateways(), attempts.PUBLIC, model)
    with tempfile.TemporaryDirectory(prefix="org-inside-") as scratch:
        came = await attack(Local(Path(scratch), unsafe=True), tried, [control], {})
    done = reached([control], came)
    proof = Proof(probes_of(tried, came, done, {}), done)
    held = (wall for wall, verdict in proof.verdicts().items() if verdict == "held")
    return replace(proof, stands=tuple(held))


def _model(base: str) -> tuple[Control, tuple[str, int]]:
    parts = urlsplit(base)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    try:
        host = str(socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        problem = f"the model server's address is not known here: {parts.hostname}"
        raise EnvironmentProblem(
            problem, "name it by its number: `--base http://10.0.2.2:11434/v1`"
        ) from error
    if tls:
        given = {"of": "tcp", "own": "", "host": host, "port": port}
        return Control("model", f"the model server, {host} port {port}", given), (host, port)
    return attempts.model(port, f"{parts.path}/models", host), (host, port)


def _gateways() -> list[str]:
    """Where packets to everywhere go, by the kernel's table."""
    found = []
    with suppress(OSError):
        for line in _ROUTES.read_text().splitlines()[1:]:
            _, target, gateway, flags, *_ = line.split()
            if int(target, 16) == 0 and int(flags, 16) & _GATEWAY:
                found.append(socket.inet_ntoa(struct.pack("=I", int(gateway, 16))))
    return sorted(set(found))
