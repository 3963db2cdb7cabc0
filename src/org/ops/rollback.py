"""The newest promote that stands is taken back, by a commit on top: nothing is lost, and it can come again.

This is the rescue path: it looks at nothing but our own repository.
"""

from __future__ import annotations

from dataclasses import dataclass

from org.errors import OrgError
from org.ops import merges, steps, sync, tags
from org.ops.history import Rollback
from org.ops.program import Program
from org.ops.steps import Swap


@dataclass(frozen=True, slots=True)
class RolledBack:
    """`swapped` says whether a running current was replaced."""

    entry: Rollback
    swapped: bool


def rollback(program: Program, swap: Swap) -> RolledBack:
    """Take back the newest promote. Raises `OrgError` when none stands, `Conflict`, `Busy`.

    A move that was interrupted is not finished first, for that may be what fails: this one's own steps
    make everything follow from main.
    """
    with program.hold("rollback") as git:
        known, told = sync.current(git)
        tags.rebuild(git, known, told)
        if not told.standing:
            raise OrgError("there is no promote to roll back", "`org history` tells what was done")
        entry = merges.revert(git, told, told.standing[-1])
        tag = tags.make(git, entry, "")
        return RolledBack(entry, steps.carry_out(program, git, entry, tag, swap))
