"""The candidate becomes main: the very merge that the gate passed, on the very main that it was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from org.errors import Inconclusive, OrgError, Stale
from org.ops import candidate, history, merges, refs, steps, sync, tags, verdicts
from org.ops.git import Git
from org.ops.history import History, Promote
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.refs import Refs
from org.ops.steps import Swap

Judge: TypeAlias = Callable[[Program, Gate], Mapping[str, object]]
"""Tries the merge of a gate and gives its verdict. It takes minutes, and is run without the lock."""

Verdict: TypeAlias = Mapping[str, object]

Stands: TypeAlias = Callable[[Git, Verdict], bool]
"""Whether what a verdict depends on is still as it was."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """`swapped` says whether a running current was replaced; `notes` what else was done on the way."""

    entry: Promote
    swapped: bool
    notes: tuple[str, ...]


def promote(
    program: Program, branch: str, judge: Judge, swap: Swap, stands: Stands = lambda git, verdict: True
) -> Promoted:
    """Promote a branch, the one in the work folder when it is empty; the gate is run unless it was, on all
    that counts now.

    Raises `Stale` when main is not what was judged, `Inconclusive` and `OrgError` for a verdict that is no
    pass, `Conflict`, `Busy`.
    """
    with program.hold("promote") as git:
        notes = [steps.finish(program, git, swap)]
        known = refs.read(git)
        notes.append(sync.take_in(program, git, known))
        if notes[-1]:
            known = refs.read(git)
        told = history.read(git, known)
        gate = merges.prepare(git, known, told, branch or candidate.branch_of(program))
        kept = verdicts.read(git, gate.merge)
        if kept is None:
            _refuse_stale(git, known, told, gate)
        elif stands(git, kept):
            return _land(program, git, told, gate, kept, swap, notes)
    verdict = judge(program, gate)
    with program.hold("promote") as git:
        kept = verdicts.record(git, gate.merge, verdict)
        if refs.read(git).main.commit != gate.main:
            raise _stale(gate)
        return _land(program, git, told, gate, kept, swap, notes)


def _land(
    program: Program, git: Git, told: History, gate: Gate, verdict: Verdict, swap: Swap, notes: list[str]
) -> Promoted:
    _require_pass(gate, verdict)
    number = len(told.promotes) + 1
    entry = Promote(number, gate.merge, gate.main, gate.candidate, gate.branch, gate.at)
    tag = tags.make(git, entry, verdicts.digest(verdict))
    swapped = steps.carry_out(program, git, entry, tag, swap)
    return Promoted(entry, swapped, tuple(filter(None, notes)))


def _require_pass(gate: Gate, verdict: Verdict) -> None:
    why = f": {verdict['why']}" if verdict.get("why") else ""
    match verdict.get("verdict"):
        case "pass":
            return
        case "inconclusive":
            hints = (verdict.get("hint"), "`org fitness` tries again")
            raise Inconclusive(
                f"the gate could not decide on {gate.branch}{why}",
                "\n".join(str(hint) for hint in hints if hint),
            )
        case _:
            raise OrgError(f"{gate.branch} has failed the gate{why}", "`org candidate edit`, then try again")


def _refuse_stale(git: Git, known: Refs, told: History, gate: Gate) -> None:
    """A pass on another main, not used yet, is no reason to judge again unasked: the user should know."""
    used = {promote.commit for promote in told.promotes}
    for earlier in (one for one in merges.gates(known, gate.branch) if one.merge not in used):
        verdict = verdicts.read(git, earlier.merge)
        if verdict is not None and verdict.get("verdict") == "pass":
            raise _stale(earlier)


def _stale(gate: Gate) -> Stale:
    return Stale(
        f"main has moved since {gate.branch} passed the gate on {gate.main[:12]}",
        "`org fitness` judges again",
    )
