"""The table of the kinds of attempts, and the run: a JSON object in, one out, attempt to what came of it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder import firewall, hardware, network, relay, system
    from org.sandbox.intruder.basics import Finding, Given, Kind, make
else:  # sent along with this part
    import firewall
    import hardware
    import network
    import relay
    import system
    from basics import Finding, Given, Kind, make

_AT_ONCE = 8
# These use up what there is, so nothing else is tried beside them.
_ALONE = ("processes", "memory", "file_size")
_ALONE_S = 60.0  # hundreds of processes take their time where the machine is emulated
KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        network.tcp,
        network.udp,
        network.everybody,
        network.icmp,
        network.packet,
        network.interfaces,
        network.routes,
        network.resolve,
        network.unix,
        network.vsock,
        relay.http,
        relay.model,
        hardware.virtio_ports,
        hardware.taken,
        hardware.pci,
        hardware.disks,
        hardware.shares,
        hardware.firmware,
        hardware.environments,
        hardware.physical,
        hardware.debug_ports,
        hardware.configuration,
        firewall.default_deny,
        system.home,
        system.secrets,
        system.outside,
        system.system,
        system.see,
        system.kill,
        system.trace,
        system.privileges,
        system.keys,
        system.environment,
        system.terminal,
        system.devices,
        system.processes,
        system.memory,
        system.file_size,
    )
}


def reaches(given: Given) -> Finding:
    """A control: the kind of attempt named in `of`, aimed at what it must reach."""
    return network.reaches(KINDS[given["of"]], given)


def main() -> None:
    asked = json.loads(sys.argv[1])
    every: list[tuple[str, str, Given]] = [
        (name, kind, asked["common"] | given) for name, kind, given in asked["attempts"]
    ]
    kinds = KINDS | {"reaches": reaches}
    found = make([one for one in every if one[1] not in _ALONE], kinds, _AT_ONCE)
    found |= make([one for one in every if one[1] in _ALONE], kinds, 1, _ALONE_S)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
