"""The candidate: a branch of its own, and a folder in which it is worked on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from org.errors import OrgError, UsageError
from org.ops import files, merges, sync, user, workfolder
from org.ops.git import Git
from org.ops.history import History
from org.ops.program import Program
from org.ops.refs import HEADS, Refs

_JOINING = "refs/org/joining/"
"""The main that `update` has put into the folder of a branch: the next commit builds on it too."""
_COMMIT = '`org candidate commit -m "…"`'


@dataclass(frozen=True, slots=True)
class Opened:
    """`beside` are the folders that made room for this one and hold what is kept nowhere else."""

    branch: str
    folder: Path
    note: str
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Updated:
    """`main` is in the folder now; `files` are those in which the branch does not fit it."""

    branch: str
    folder: Path
    main: str
    files: tuple[str, ...]
    note: str


def branch_of(program: Program) -> str:
    """The branch in the work folder. Raises `UsageError` when there is none."""
    if branch := _stored(program):
        return branch
    raise UsageError("there is no candidate", "`org candidate edit` begins one")


def edit(program: Program, branch: str = "", *, new: bool = False) -> Opened:
    """The candidate and its folder: `branch`, else the one that is there; a new one on main when there is
    none, it was promoted, or `new`. Nothing that was done in the folder is lost.

    Raises `UsageError` when something has to be committed first, `Conflict`, `Busy`.
    """
    with program.hold("candidate edit") as git:
        note = sync.begin(program, git)
        known, told = sync.current(git)
        if not note:
            note = sync.take_in(program, git, known)
            known, told = sync.current(git)
        stored = _stored(program)
        wanted = _wanted(program, git, known, told, branch, new) or _fresh(known, stored)
        if wanted != stored or not workfolder.there(program.layout):
            _open(program, git, known, wanted)
        return Opened(wanted, program.layout.candidate, note, tuple(workfolder.beside(program.layout)))


def commit(program: Program, message: str, env: Mapping[str, str]) -> tuple[str, str]:
    """Keep all files of the folder as a commit of the branch; gives both. Raises `OrgError` for no change."""
    branch = branch_of(program)
    if not message.strip():
        raise UsageError("a commit needs words", f"{_COMMIT} says what was done")
    with program.hold("candidate commit") as git:
        known, _ = sync.current(git)
        head = known.branch(branch)
        parents = [head.commit, *_joining(git, known, branch)]
        with workfolder.snapshot(program.layout, git, head.commit) as taken:
            if taken.tree == head.tree and len(parents) == 1:
                raise OrgError("no file has changed since the last commit")
            words = [word for parent in parents for word in ("-p", parent)]
            who = {**taken.env, **user.author(env)}
            made = git.run("commit-tree", taken.tree, *words, input=message.rstrip() + "\n", env=who)
            git.bring(taken.objects, made, parents)
        moves = [f"update {HEADS}{branch} {made} {head.commit}\n"]
        moves += [f"delete {_JOINING}{branch}\n"] * (_JOINING + branch in known.by_name)
        git.run("update-ref", "--stdin", input="".join(moves))
    return branch, made


def update(program: Program) -> Updated:
    """Bring main into the folder, where what does not fit stands twice, between marks.

    Raises `UsageError` when something has to be committed first, `OrgError` when all of main is there.
    """
    branch = branch_of(program)
    with program.hold("candidate update") as git:
        known, _ = sync.current(git)
        note = sync.take_in(program, git, known)
        known, told = sync.current(git)
        head, main = known.branch(branch), known.main.commit
        if _has(git, head.commit, main):
            raise OrgError(f"{branch} has all of main already")
        with workfolder.snapshot(program.layout, git, head.commit) as taken:
            if taken.tree != head.tree:
                raise UsageError("the candidate has changes that are not committed", f"{_COMMIT}, then again")
            tree, odd = merges.joined(git, main, told, branch, head.commit)
            workfolder.become(program.layout, git, taken, tree)
        git.run("update-ref", _JOINING + branch, main)  # at last: what it names is there then
    return Updated(branch, program.layout.candidate, main, odd, note)


def diff(program: Program) -> str:
    """What the files would change on main since they left it, as a patch."""
    branch = branch_of(program)
    with program.hold("candidate diff") as git:
        known, told = sync.current(git)
        head = known.branch(branch).commit
        base = [*_joining(git, known, branch), merges.base(git, told, head)][0]
        with workfolder.snapshot(program.layout, git, head) as taken:
            words = ("diff-tree", "-r", "-p", "-M", "--no-ext-diff", "--no-textconv", base, taken.tree)
            return git.ask(*words, env=taken.env)[1]


def uncommitted(program: Program, branch: str) -> str:
    """For whoever promotes a branch, the one in the folder when it is empty: that it is not all that is
    there. Nothing when it is, or another is there."""
    try:
        stored = _stored(program)
        if not stored or branch not in ("", stored) or not workfolder.there(program.layout):
            return ""
        with program.hold("candidate diff") as git:
            differs = _differs(program, git, sync.current(git)[0], stored)
    except OrgError as error:
        return f"the candidate's folder could not be looked at: {error.message}"
    return f"what is not committed in the candidate's folder is not part of it: {_COMMIT}" if differs else ""


def tidy(program: Program) -> list[str]:
    """Remove what a killed one left in the program's folder; gives the names. To be called under the lock."""
    left = sorted(program.layout.root.glob(".[a-z]*"))
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [path.name for path in left]


def _stored(program: Program) -> str:
    """The branch that is edited; nothing when there is none. Raises `EnvironmentProblem`."""
    stored = files.read_json(program.layout.candidate_state, "branch")
    return stored["branch"] if stored else ""


def _wanted(program: Program, git: Git, known: Refs, told: History, branch: str, new: bool) -> str:
    """The branch that is to be in the folder; nothing for a new one."""
    stored = _stored(program)
    if branch:
        known.branch(branch)
    if HEADS + stored not in known.by_name or branch == stored:
        return branch
    leave = bool(branch) or new or _is_over(git, known, told, stored)
    if not leave:
        return stored
    if workfolder.there(program.layout) and _differs(program, git, known, stored):
        if branch or new:
            raise UsageError("the candidate has changes that are not committed", _COMMIT)
        return stored
    return branch


def _is_over(git: Git, known: Refs, told: History, branch: str) -> bool:
    """Whether nothing more is to come of a branch as it is: it stands on main, or was never worked on."""
    head, main = known.branch(branch).commit, known.main.commit
    promotes = [promote for promote in told.promotes if promote.candidate == head]
    if promotes:
        return promotes[-1] in told.standing
    return head != main and _has(git, main, head)


def _fresh(known: Refs, stored: str) -> str:
    """A name for a new branch, which is not that of one that was lost either."""
    branch = stamp = f"cand/{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while HEADS + branch in known.by_name or branch == stored:
        number += 1
        branch = f"{stamp}-{number}"
    return branch


def _open(program: Program, git: Git, known: Refs, branch: str) -> None:
    """Have a branch in the folder. Each step can follow an interruption of the one before: what is stored
    names what is missing, and what was there before is beside it until it is known to be kept."""
    layout, before = program.layout, known.by_name.get(HEADS + _stored(program), known.main)
    aside = workfolder.set_aside(layout, git, known, before.commit)
    files.write_json(layout.candidate_state, {"branch": branch})
    if HEADS + branch not in known.by_name:
        git.run("update-ref", HEADS + branch, known.main.commit, "")
    if _JOINING + branch in known.by_name:  # the files that it was in have gone
        git.run("update-ref", "-d", _JOINING + branch)
    workfolder.clone(layout, git, branch)
    if aside is not None:
        workfolder.let_go(layout, aside)


def _joining(git: Git, known: Refs, branch: str) -> tuple[str, ...]:
    """The main that is in the folder and not yet in the branch, when there is one."""
    joining = known.by_name.get(_JOINING + branch)
    if joining is None or _has(git, known.branch(branch).commit, joining.commit):
        return ()
    return (joining.commit,)


def _has(git: Git, commit: str, ancestor: str) -> bool:
    return git.ask("merge-base", "--is-ancestor", ancestor, commit, fine=(0, 1))[0] == 0


def _differs(program: Program, git: Git, known: Refs, branch: str) -> bool:
    """Whether there is something in the folder that the branch, which is in it, has not."""
    head = known.branch(branch)
    with workfolder.snapshot(program.layout, git, head.commit) as taken:
        return taken.tree != head.tree
