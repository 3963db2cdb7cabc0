"""The user's commits come in: all of them when a program is begun, later what is new on their main."""

from __future__ import annotations

import os
import shutil

from org.errors import ConfigError, Conflict, EnvironmentProblem
from org.ops import history, place, refs, settings, trust
from org.ops.git import Git, GitFailed
from org.ops.merges import merged
from org.ops.program import Program
from org.ops.refs import BASE, MAIN, THEIRS, Refs
from org.ops.user import REMOTE


def begin(program: Program, git: Git) -> str:
    """Keep a program from now on, unless it is kept already. Our repository appears whole, or not at all.

    Gives what the user should know of it, or nothing. To be called under the lock.
    """
    if program.begun:
        return ""
    layout, checkout = program.layout, program.checkout
    for left in layout.root.glob(".repo-*"):  # somebody was killed here
        shutil.rmtree(left)
    theirs = program.main()
    main = theirs.commit
    fresh = Git(layout.root / f".repo-{os.getpid()}", git.lock)
    fresh.create()
    _bring(program, fresh, main, [])
    _check_settings(fresh, main)
    fresh.run("update-ref", "--stdin", input=_creating({MAIN: main, THEIRS: main, BASE: main}))
    fresh.run("update-ref", BASE, history.base(fresh, main))
    name_source(program)
    program.remember(theirs)
    ours = checkout.add_remote(layout.repo)
    fresh.folder.rename(layout.repo)
    if place.in_guest():  # where nobody works in that repository
        return ""
    if ours:
        return f"{checkout.folder} has a new remote `{REMOTE}`: {layout.repo}"
    return f"{checkout.folder} has a remote `{REMOTE}` of its own; ours is {layout.repo}"


def name_source(program: Program) -> str:
    """Keep of which repository this is; gives what was done, or nothing when that is kept already."""
    path, source = program.layout.source, os.fsencode(program.checkout.git)
    if path.is_file() and path.read_bytes() == source:
        return ""
    path.write_bytes(source)
    return "wrote again of which repository this is"


def take_in(program: Program, git: Git, known: Refs) -> str:
    """Move our main to the user's when theirs goes further; gives what was done, or nothing when it stays.

    Raises `Conflict` when each has what the other has not, `ConfigError` when theirs starts what nobody
    trusts. To be called under the lock.
    """
    branch, main, last = program.main(), known.main.commit, known.by_name[THEIRS].commit
    program.remember(branch)
    theirs = branch.commit
    if theirs == last:  # which was taken in
        return ""
    _bring(program, git, theirs, [main, last])
    counted = git.run("rev-list", "--left-right", "--count", f"{main}...{theirs}")
    ours_only, theirs_only = map(int, counted.split())
    if ours_only and theirs_only:
        raise _apart(program, git, main, theirs)
    if theirs_only:
        trust.require_taken_in(program, git, main, theirs)
    moved = _onto(git, main, theirs) if theirs_only else main
    git.run("update-ref", "--stdin", input=f"update {MAIN} {moved} {main}\nupdate {THEIRS} {theirs}\n")
    return f"took in {theirs_only} commit{'s' * (theirs_only > 1)} of yours" if theirs_only else ""


def _bring(program: Program, git: Git, commit: str, known: list[str]) -> None:
    try:
        git.bring(program.checkout.objects, commit, known)
    except GitFailed as error:
        folder = program.checkout.folder
        if program.checkout.is_partial:
            raise EnvironmentProblem(
                f"{folder} is a partial clone: it has not all of its objects",
                f"`git -C {folder} fetch --refetch --no-filter`",
            ) from error
        raise EnvironmentProblem(
            f"the history of {folder} cannot be taken in: {error.message}",
            f"`git -C {folder} fsck` says more",
        ) from error


def _check_settings(git: Git, main: str) -> None:
    missing, text = git.ask("cat-file", "blob", f"{main}:{settings.FILE}", fine=(0, 128))
    if missing:
        raise ConfigError(
            f"{settings.FILE} is not on main: it says how a generation starts",
            f'[generation]\nstart = "…"\nin {settings.FILE}, then `git commit`',
        )
    settings.read(text)


def _onto(git: Git, main: str, theirs: str) -> str:
    """What main becomes: theirs, or where that would put ours on a side line, a merge that keeps it first."""
    line = git.run("rev-list", "--first-parent", "--parents", f"{main}..{theirs}").splitlines()
    if line[-1].split()[1:2] == [main]:
        return theirs
    return git.run("commit-tree", f"{theirs}^{{tree}}", "-p", main, "-p", theirs, input="Take in main\n")


def _apart(program: Program, git: Git, main: str, theirs: str) -> Conflict:
    files: tuple[str, ...] = ()
    try:
        merged(git, main, theirs, "yours")
    except Conflict as conflict:
        files = conflict.files
    alone, _ = git.ask("merge-base", main, theirs, fine=(0, 1))
    told = f"; they do not fit in {', '.join(files)}" if files else ""
    if alone:
        return Conflict(
            f"your main was begun anew and has no commit in common with this one{told}",
            f"`{program.pull} --allow-unrelated-histories` brings them together, then again",
            files=files,
        )
    return Conflict(
        f"your main and this one have each gone further{told}", f"`{program.pull}`, then again", files=files
    )


def _creating(heads: dict[str, str]) -> str:
    return "".join(f"create {name} {commit}\n" for name, commit in heads.items())


def current(git: Git) -> tuple[Refs, history.History]:
    """The references and what main tells, as they are now."""
    known = refs.read(git)
    return known, history.read(git, known)
