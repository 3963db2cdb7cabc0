"""A place is attacked from inside, and what happened is told.

Each attempt meets something real that it could reach without the wall: a listener that was just
connected to, a process that is running, a file that exists. And each kind of attempt reaches what it
is allowed to. So a probe that says "held" says that the wall did it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from org.errors import EnvironmentProblem
from org.ports import Command, Sandbox
from org.sandbox.intruder import PARTS
from org.sandbox.limits import Limits
from org.sandbox.proof import attempts
from org.sandbox.proof.attempts import Aims, Attempt, Control
from org.sandbox.proof.report import Outcome, Probe, Proof, Reached
from org.sandbox.proof.targets import Targets, addresses, targets

_TIMEOUT_S = 180.0
_MOST_SAID = 8_388_608
_VARIABLES = ("PATH", "HOME", "LANG", "TERM", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "ORG_JOB")
_MADE_OF = {
    "namespaces": ("network", "files", "system", "processes", "environment"),
    "seccomp": ("filter",),
    "no privileges": ("privileges",),
    "limits": ("limits",),
}
# Each part becomes a module by its own name, in front of the one that runs.
_LOAD = """
import sys, types
for name, source in PARTS[:-1]:
    sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), sys.modules[name].__dict__)
exec(compile(PARTS[-1][1], PARTS[-1][0], "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True, slots=True)
class Came:
    """What the intruder says of one attempt; `seen` is what it read, for this side to look through."""

    outcome: str
    detail: str
    seconds: float
    seen: bytes


async def prove(place: Sandbox, limits: Limits, *, outwards: bool = True) -> Proof:
    """Attack `place`, whose limits are `limits` and whose kernel is this one, with all that applies.

    Without `outwards` nothing is aimed at what is not on this host: where there is no wall, it would
    arrive. It needs `python3` inside. Raises `EnvironmentProblem` when the attempts cannot be made, and
    `SandboxGone`.
    """
    with targets(apart=False) as aimed:
        own = addresses()
        tried = attempts.network(Aims(aimed.ports, own))
        if outwards:
            tried += attempts.beyond(own, attempts.PUBLIC)
        tried += attempts.walls_of_processes(apart=False)
        came = await attack(place, tried, attempts.CONTROLS, common(aimed, limits))
        controls = reached(attempts.CONTROLS, came)
        proof = Proof(probes_of(tried, came, controls, aimed.reached()), controls)
    verdicts = proof.verdicts()
    stands = (name for name, walls in _MADE_OF.items() if all(verdicts[wall] == "held" for wall in walls))
    return replace(proof, stands=tuple(stands))


def common(aimed: Targets, limits: Limits) -> dict[str, object]:
    """What every attempt is told."""
    return {
        **aimed.given,
        "variables": _VARIABLES,
        "processes": limits.processes,
        "memory": limits.memory,
        "file_size": limits.file_size,
    }


async def attack(
    place: Sandbox, tried: Sequence[Attempt], controls: Sequence[Control], given: Mapping[str, object]
) -> dict[str, Came]:
    """What came of each attempt and (as `control NAME`) each control, by name."""
    asked = {
        "common": given,
        "attempts": [
            *((f"control {one.name}", "reaches", dict(one.given)) for one in controls),
            *((one.name, one.kind, dict(one.given)) for one in tried),
        ],
    }
    command = Command(
        ["python3", "-S", "-", json.dumps(asked)], _program(), _TIMEOUT_S, output_limit=2 * _MOST_SAID
    )
    result = await place.exec(command)
    said = result.head + result.tail
    if result.exit_code or result.timed_out:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise EnvironmentProblem(f"the place cannot be tried: {last or f'exit code {result.exit_code}'}")
    return {name: _came(told) for name, told in json.loads(said).items()}


def _came(told: Mapping[str, str]) -> Came:
    return Came(
        told["outcome"], told["detail"], float(told["seconds"]), base64.b64decode(told["seen"], validate=True)
    )


def _program() -> bytes:
    folder = files("org.sandbox.intruder")
    parts = [(name, folder.joinpath(f"{name}.py").read_text("utf-8")) for name in PARTS]
    return f"PARTS = {parts!r}\n{_LOAD}".encode()


def reached(controls: Iterable[Control], came: Mapping[str, Came]) -> tuple[Reached, ...]:
    """What became of the controls that are in `came`."""
    found = []
    for control in controls:
        if one := came.get(f"control {control.name}"):
            found.append(Reached(control.name, control.tried, one.outcome == "fell", one.detail))
    return tuple(found)


def probes_of(
    tried: Iterable[Attempt],
    came: Mapping[str, Came],
    controls: Sequence[Reached],
    arrived: Mapping[str, str],
) -> tuple[Probe, ...]:
    """What each attempt proves: what arrived here counts more than what it says of itself."""
    missed = {one.name for one in controls if not one.reached}
    probes = []
    for one in tried:
        told = came[one.name]
        outcome: Outcome = "inconclusive"
        if told.outcome in ("held", "fell"):
            outcome = "held" if told.outcome == "held" else "fell"
        probe = Probe(one.name, one.wall, one.tried, outcome, told.detail, told.seconds)
        if one.name in arrived:
            probe = replace(probe, outcome="fell", detail=arrived[one.name])
        elif probe.held and one.control in missed:
            probe = replace(probe, outcome="inconclusive", detail=f"control not reached: {one.control}")
        probes.append(probe)
    return tuple(probes)
