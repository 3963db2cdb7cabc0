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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from org.errors import EnvironmentProblem, OrgError, Stale
from org.ops import files, refs, sync, tags, worktrees
from org.ops.git import Git
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


class Step(NamedTuple):
    name: str
    act: Callable[[], object]


NAMES = ("pending", "cas", "worktree", "swap", "prune", "done")
"""The steps of a move, in their order."""


def carry_out(program: Program, git: Git, entry: Entry, tag: str, swap: Swap) -> bool:
    """Do all of a move; whether what is served was swapped. `tag` is the object of the tag that names it."""
    move = Move(tags.name_of(entry), entry.main, entry.commit)
    _do(
        Step("pending", lambda: files.write_json(program.layout.pending, asdict(move))),
        Step("cas", lambda: _compare_and_swap(git, move, tag)),
    )
    return _follow(program, git, move, swap)


def finish(program: Program, git: Git, swap: Swap) -> str:
    """End a move that was interrupted; gives what came of it, or nothing. To be called under the lock.

    What is left to do follows from main as it is now, which may have gone further meanwhile.
    """
    stored = files.read_json(program.layout.pending, "tag", "before", "after")
    if stored is None:
        return ""
    move = Move(**stored)
    known, told = sync.current(git)
    if move.after not in (known.main.commit, *(entry.commit for entry in told.entries)):
        files.remove(program.layout.pending)
        return f"a {move.kind} was interrupted before it moved main: nothing has changed"
    tags.rebuild(git, known, told)
    _follow(program, git, replace(move, after=known.main.commit), swap)
    return f"a {move.kind} was interrupted after it moved main: it is finished"


def _follow(program: Program, git: Git, move: Move, swap: Swap) -> bool:
    """Do what follows from main; whether what is served was swapped. An error says that main has moved."""
    layout = program.layout
    try:
        _, swapped, *_ = _do(
            Step("worktree", lambda: worktrees.ensure(layout, git, move.after)),
            Step("swap", lambda: swap(layout, move.after, layout.worktree(move.after))),
            Step("prune", lambda: worktrees.prune(layout, (move.before, move.after))),
            Step("done", lambda: files.remove(layout.pending)),
        )
    except OSError as error:
        raise _moved(files.problem(error), move) from error
    except OrgError as error:
        raise _moved(error, move) from error.__cause__
    return swapped is True


def _moved(error: OrgError, move: Move) -> OrgError:
    back = ", `org rollback` takes it back" if move.kind == "promote" else ""
    told = f"main is at {move.after[:12]} already: `org recover` goes on{back}"
    error.hint = "\n".join(filter(None, (error.hint, told)))
    return error


def _do(*some: Step) -> list[object]:
    """Do steps in a row; gives what came of each."""
    results = []
    for step in some:
        _fault(step.name)
        results.append(step.act())
        _fault(f"{step.name}:after")
    return results


def _compare_and_swap(git: Git, move: Move, tag: str) -> None:
    """Main and its tag in one go. A kill in between is possible; the tag follows from main then."""
    moves = f"update {MAIN} {move.after} {move.before}\nupdate {TAGS}{move.tag} {tag}\n"
    try:
        git.run("update-ref", "--stdin", input=moves)
    except EnvironmentProblem:
        now = refs.read(git).main.commit
        if now == move.before:
            raise
        if now != move.after:
            raise Stale(f"main has moved to {now[:12]} meanwhile", "try again") from None


def _fault(point: str) -> None:
    if os.environ.get("ORG_FAULT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
