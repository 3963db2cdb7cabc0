"""How main is moved: steps in a row, each of which can be done again, so that any interruption can be ended.

What is under way stands in `pending.json` from before the first effect to after the last. One step decides:
main is moved by compare-and-swap. Whoever was stopped before it has changed nothing; whoever was stopped
after it has only what follows from main left to do.

`ORG_FAULT=STEP` ends this process before that step as a kill does, `ORG_FAULT=STEP:after` behind it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from org.errors import Stale
from org.ops import files, refs, sync, tags, worktrees
from org.ops.git import Git, GitFailed
from org.ops.history import Entry
from org.ops.layout import Layout
from org.ops.program import Program
from org.ops.refs import MAIN, TAGS

Swap: TypeAlias = Callable[[Layout, str, Path], bool]
"""Serves a commit from its folder in place of what is served now; False when nothing is."""


@dataclass(frozen=True, slots=True)
class Move:
    """Main goes from one commit to another; `tag` is the name for it, `promote/3` say."""

    tag: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """The verb that asked for it."""
        return self.tag.partition("/")[0]


def move_to(entry: Entry) -> Move:
    return Move(tags.name_of(entry), entry.main, entry.commit)


class Step(NamedTuple):
    name: str
    act: Callable[[], object]


def steps(program: Program, git: Git, move: Move, tag: str, swap: Swap) -> tuple[Step, ...]:
    """All of a move; `tag` is the object of the tag that names it."""
    pending = program.layout.pending
    return (
        Step("pending", lambda: files.write_json(pending, asdict(move))),
        Step("cas", lambda: _compare_and_swap(git, move, tag)),
        *_following(program, git, move, swap),
    )


def _following(program: Program, git: Git, move: Move, swap: Swap) -> tuple[Step, ...]:
    layout = program.layout
    return (
        Step("worktree", lambda: worktrees.ensure(layout, git, move.after)),
        Step("swap", lambda: swap(layout, move.after, layout.worktree(move.after))),
        Step("prune", lambda: worktrees.prune(layout, (move.before, move.after))),
        Step("done", lambda: files.remove(layout.pending)),
    )


NAMES = ("pending", "cas", "worktree", "swap", "prune", "done")
"""The steps of a move, in their order."""


def carry_out(some: tuple[Step, ...]) -> bool:
    """Do the steps; whether what is served was swapped."""
    swapped = False
    for step in some:
        _fault(step.name)
        result = step.act()
        swapped = swapped or (step.name == "swap" and result is True)
        _fault(f"{step.name}:after")
    return swapped


def finish(program: Program, git: Git, swap: Swap) -> str:
    """End a move that was interrupted; gives what came of it, or nothing. To be called under the lock."""
    stored = files.read_json(program.layout.pending, "tag", "before", "after")
    if stored is None:
        return ""
    move = Move(**stored)
    known, told = sync.current(git)
    if move.after not in (known.main.commit, *(entry.commit for entry in told.entries)):
        files.remove(program.layout.pending)
        return f"a {move.kind} was interrupted before it moved main: nothing has changed"
    tags.rebuild(git, known, told)
    carry_out(_following(program, git, move, swap))
    return f"a {move.kind} was interrupted after it moved main: it is finished"


def _compare_and_swap(git: Git, move: Move, tag: str) -> None:
    """Main and its tag in one go. A kill in between is possible; the tag follows from main then."""
    moves = f"update {MAIN} {move.after} {move.before}\nupdate {TAGS}{move.tag} {tag}\n"
    try:
        git.run("update-ref", "--stdin", input=moves)
    except GitFailed:
        if (now := refs.read(git).main.commit) != move.before:
            raise Stale(f"main has moved to {now[:12]} meanwhile", "try again") from None
        raise


def _fault(point: str) -> None:
    if os.environ.get("ORG_FAULT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
