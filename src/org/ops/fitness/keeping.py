"""Whether a promote, and the rollback after it, lose nothing that the program keeps: the candidate has to go
on with what current has left, and current with what the candidate has made of it.

The same requests are made of three generations in turn, each of which finds what the one before has left:
current, the candidate, current. All have to answer as when current follows itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from org.errors import EnvironmentProblem, Inconclusive
from org.ops.fitness import gates
from org.ops.fitness.arena import Side
from org.ops.fitness.gates import Finding
from org.ops.fitness.rules import NAME, Rules

_WHO = ("current", "the candidate", "current")
_READ = ("GET", "HEAD")
_SHOWN = 3


class _Said(NamedTuple):
    """What one said, in its turn, of what was begun in a turn: `began`."""

    turn: int
    began: int
    request: str
    status: str


async def follow(current: Side, candidate: Side, rules: Rules) -> Finding:
    """Others of these two are started, in places of their own. Raises `Inconclusive` when current does not
    even follow itself."""
    try:
        usual = await _succeed((current, current, current), rules)
    except EnvironmentProblem as error:
        raise Inconclusive(f"current does not follow itself here: {error.message}", error.hint) from None
    for said in usual:
        if said.turn == 0 and not said.status.startswith("2"):
            raise Inconclusive(
                f"current itself keeps nothing here: {said.request}: {said.status}",
                "see `keeps` in `[generation]` of org.toml, and whether its model server is there",
            )
    try:
        found = await _succeed((current, candidate, current), rules)
    except EnvironmentProblem as error:
        return Finding("keeps", False, f"one does not start with what another has left: {error.message}")
    wrong = [
        f"of what {_WHO[ours.began]} has begun {_WHO[ours.turn]} says {theirs.status} to {ours.request},"
        f" and {ours.status} when current follows itself"
        for ours, theirs in zip(usual, found, strict=True)
        if ours.status != theirs.status
    ]
    told = "; ".join(wrong[:_SHOWN]) + f"; and {len(wrong) - _SHOWN} more" * (len(wrong) > _SHOWN)
    return Finding("keeps", not wrong, told or "each goes on with what the other has left")


async def _succeed(generations: Sequence[Side], rules: Rules) -> list[_Said]:
    """What each says of all that was begun so far, having found what the one before has left. Raises
    `EnvironmentProblem` when one does not start."""
    told: list[_Said] = []
    names: list[str] = []
    side: Side | None = None
    for turn, generation in enumerate(generations):
        side = generation.again(side)
        names.append(secrets.token_hex(4))
        try:
            await side.start()
            for began, name in enumerate(names):
                # What was begun before is looked for before it could be made anew.
                first = [one for one in rules.keeps if one[0] in _READ] if began < turn else []
                for method, path, body in (*first, *rules.keeps):
                    target, data = path.replace(NAME, name), body.replace(NAME, name).encode()
                    status = await asyncio.to_thread(gates.status, side, method, target, data or None, True)
                    told.append(_Said(turn, began, f"{method} {path}", status))
            await side.drain()
            await side.gone()
        finally:
            await side.stop()
    return told
