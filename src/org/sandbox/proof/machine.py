"""The walls of a machine: attacked from inside, by the user of its commands and by its root, and looked
at from outside."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from org.sandbox.limits import Limits
from org.sandbox.proof import attempts
from org.sandbox.proof.attempts import MODEL_PORT, Aims
from org.sandbox.proof.box import look
from org.sandbox.proof.prove import Came, attack, common, probes_of, reached
from org.sandbox.proof.report import Probe, Proof
from org.sandbox.proof.targets import addresses, targets
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.machine import Machine
from org.sandbox.vm.place import VirtualMachine, memory_of

_SHORTEST = 4  # letters of a name that is worth looking for
_EVERYWHERE = ("localhost", "debian", "linux", "qemu", "org", "root")


async def prove_machine(machine: Machine, place: VirtualMachine, key: str) -> Proof:
    """Attack a machine that is up. `key` is the API key that is added outside of it, or empty.

    Raises `EnvironmentProblem` when the attempts cannot be made, and `SandboxGone`.
    """
    status = await machine.up_or_gone()
    memory = memory_of(status)
    control = attempts.model(MODEL_PORT, "/v1/models")
    controls = (*attempts.CONTROLS, *attempts.OF_MACHINE, control)
    with targets(apart=True) as aimed:
        aims = Aims(aimed.ports, addresses())
        plain = [
            *attempts.network(aims),
            *attempts.beyond(aims.addresses, attempts.PUBLIC),
            *attempts.relay(aims, MODEL_PORT),
            *attempts.walls_of_processes(apart=True),
        ]
        by_root = attempts.as_root()
        given = common(aimed, Limits(memory=memory))
        async with machine.channel(Surroundings("/root", "root", memory=memory)) as root:
            as_job, as_root = await asyncio.gather(
                attack(place, plain, [one for one in controls if not one.root], given),
                attack(root, by_root, [one for one in controls if one.root], given),
            )
        came = as_job | as_root
        done = reached(controls, came)
        probes = probes_of([*plain, *by_root], came, done, aimed.reached())
    accel, *built = status.facts["walls"]
    box, stands = look(status.pid, machine.folder.path) if "box" in built else ([], tuple(built))
    secret = told(came, _words(key, machine.folder.path))
    return Proof((*probes, *secret, *box), done, (accel, *stands))


def _words(key: str, folder: Path) -> dict[str, tuple[str, str]]:
    """What nothing in a machine may tell: by attempt, what it is, and the word."""
    return {
        "api-key": ("the API key", key),
        "host-name": ("this host's name", socket.gethostname()),
        "host-user": ("your name here", os.environ.get("USER", "")),
        "host-folder": ("the machine's folder", str(folder)),
    }


def told(came: Mapping[str, Came], words: Mapping[str, tuple[str, str]]) -> list[Probe]:
    """Whether one of `words` is in anything that was read inside."""
    found = []
    for name, (what, word) in words.items():
        tried = f"find {what} in all that was read"
        if len(word) < _SHORTEST or word.lower() in _EVERYWHERE:
            detail = f"{word} is a name like any" if word else f"{what}: there is none"
            found.append(Probe(name, "secrecy", tried, "held", detail))
            continue
        letters = (word.encode(), word.encode("utf-16-le"))
        where = [one for one, was in came.items() if any(part in was.seen for part in letters)]
        read = sum(len(one.seen) for one in came.values())
        if where:
            found.append(Probe(name, "secrecy", tried, "fell", f"{where[0]} shows it"))
        else:
            found.append(Probe(name, "secrecy", tried, "held", f"not in {read:,} bytes"))
    return found
