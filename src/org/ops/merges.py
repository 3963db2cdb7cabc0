"""The commits that main is moved to, made before anything is decided on them: what is tested is what lands.

No working tree takes part. Git 2.38 cannot be told what a merge starts from, so where that is not what it
would find itself, the merge is made between commits that exist for this alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from org.errors import Conflict, OrgError, Stale
from org.ops.git import Git
from org.ops.history import History, Promote, Rollback, promote_message, rollback_message
from org.ops.refs import BASE, GATES, MAIN, Ref, Refs


@dataclass(frozen=True, slots=True)
class Gate:
    """`merge` is the pinned commit to which a promote of `candidate` moves main, away from `main`.

    It was made `at` seconds since 1970.
    """

    number: int
    merge: str
    main: str
    candidate: str
    branch: str
    at: int


def prepare(git: Git, refs: Refs, history: History, branch: str) -> Gate:
    """The gate of a branch on main as both are now: found when it was made before, else made and pinned.

    Raises `Conflict`, `Stale` for what is on main already, and `OrgError` for what changes nothing.
    """
    candidate = refs.branch(branch).commit
    for gate in gates(refs, branch):
        if gate.main == refs.main.commit and gate.candidate == candidate:
            return gate
    try:
        merge, at = _merge(git, refs.main, history, branch, candidate)
    except Conflict as conflict:
        conflict.hint = (
            f"`org candidate edit {branch}` opens it and `org candidate update` brings main into its folder;"
            " mend the files there, then `org candidate commit`"
        )
        raise
    names = (name.removeprefix(GATES) for name in refs.by_name if name.startswith(GATES))
    number = max((int(name) for name in names if name.isdecimal()), default=0)
    git.run("update-ref", f"{GATES}{number + 1}", merge, "")
    return Gate(number + 1, merge, refs.main.commit, candidate, branch, at)


def gates(refs: Refs, branch: str) -> list[Gate]:
    """Those of the branch as it is now, newest last, whichever main they are on."""
    candidate = refs.branch(branch).commit
    found = [
        Gate(int(name.removeprefix(GATES)), ref.commit, ref.parents[0], candidate, branch, ref.at)
        for name, ref in refs.by_name.items()
        if ref.candidate == candidate
    ]
    return sorted(found, key=lambda gate: gate.number)


def revert(git: Git, history: History, promote: Promote) -> Rollback:
    """The rollback of a promote: its commit is made, and main is not moved. Raises `Conflict`."""
    tree = f"{promote.main}^{{tree}}"
    if promote.commit != history.main:
        since = f"taking back promote {promote.number}"
        tree = _three_way(git, promote.commit, history.main, promote.main, since)
    number = len(history.rollbacks) + 1
    commit, at = _commit(git, tree, (history.main,), rollback_message(number, promote))
    return Rollback(number, commit, history.main, promote, at)


def base(git: Git, history: History, candidate: str) -> str:
    """From where on what a candidate holds is brought to main by a promote: main itself when they have
    nothing in common."""
    again = _given_up(git, history, candidate)
    alone, found = git.ask("merge-base", again.main if again else history.main, candidate, fine=(0, 1))
    return history.main if alone else found.strip()


def joined(git: Git, main: str, history: History, branch: str, candidate: str) -> tuple[str, tuple[str, ...]]:
    """The tree of a branch with main brought into it, and the files that do not fit: these have both."""
    sides = (branch, "main")  # as these are called in the files
    if _given_up(git, history, candidate) is not None:
        sides = _sides(git, base(git, history, candidate), candidate, main)
    _, tree, files = _merge_tree(git, *sides)
    return tree, files


def merged(git: Git, ours: str, theirs: str, what: str) -> str:
    """The tree of a merge. Raises `Conflict`; `what` names the other side in it."""
    fits, tree, files = _merge_tree(git, ours, theirs)
    if not fits:
        raise Conflict(f"main and {what} do not go together: {', '.join(files)}", files=files)
    return tree


def _merge_tree(git: Git, ours: str, theirs: str) -> tuple[bool, str, tuple[str, ...]]:
    """Whether two sides fit, the tree of their merge, and the files in it that do not."""
    how = ("--write-tree", "--allow-unrelated-histories", "-z", "--name-only", "--no-messages")
    code, said = git.ask("merge-tree", *how, ours, theirs, fine=(0, 1))
    tree, *files = said.rstrip("\0").split("\0")
    return code == 0, tree, tuple(files)


def _merge(git: Git, main: Ref, history: History, branch: str, candidate: str) -> tuple[str, int]:
    second = candidate
    if _given_up(git, history, candidate) is None:
        tree = merged(git, main.commit, candidate, branch)
    else:
        tree = _three_way(git, base(git, history, candidate), main.commit, candidate, branch)
        second, _ = _commit(git, tree, (main.commit, candidate), f"Reapply {branch}\n")
    if tree == main.tree:
        raise _nothing(history, branch, candidate)
    message = promote_message(len(history.promotes) + 1, branch, candidate)
    return _commit(git, tree, (main.commit, second), message)


def _commit(git: Git, tree: str, parents: tuple[str, ...], message: str) -> tuple[str, int]:
    """A commit, and when it was made."""
    at = int(time.time())
    words = [word for parent in parents for word in ("-p", parent)]
    env = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
    return git.run("commit-tree", tree, *words, input=message, env=env), at


def _nothing(history: History, branch: str, candidate: str) -> OrgError:
    for promote in history.standing:
        if promote.candidate == candidate:
            return Stale(f"{branch} is on main already: promote {promote.number}")
    return OrgError(f"{branch} changes nothing on main", '`org candidate commit -m "…"` keeps what you did')


def _given_up(git: Git, history: History, candidate: str) -> Promote | None:
    """The oldest promote whose work the candidate holds, and which main gave up without its knowing.

    That work is in main's past, so a plain merge would silently bring nothing of it back.
    """
    if not history.rollbacks:
        return None
    parents = _parents(git, candidate)
    held = _ancestors(parents, candidate)
    for rollback in sorted(history.rollbacks, key=lambda rollback: rollback.of.number):
        work = rollback.of.candidate
        later = (_ancestors(parents, promote.candidate) for promote in history.after(rollback))
        if work in held and rollback.commit not in held and not any(work in known for known in later):
            return rollback.of
    return None


def _parents(git: Git, candidate: str) -> dict[str, list[str]]:
    """The parents of each commit that is ours: what was before is nobody's work here."""
    lines = git.run("rev-list", "--parents", candidate, MAIN, "--not", BASE).splitlines()
    return {commit: parents for commit, *parents in map(str.split, lines)}


def _ancestors(parents: Mapping[str, list[str]], commit: str) -> set[str]:
    """All that a commit builds on, itself too."""
    seen: set[str] = set()
    todo = [commit]
    while todo:
        if (one := todo.pop()) not in seen:
            seen.add(one)
            todo += parents.get(one, ())
    return seen


def _three_way(git: Git, base: str, ours: str, theirs: str, what: str) -> str:
    return merged(git, *_sides(git, base, ours, theirs), what)


def _sides(git: Git, base: str, ours: str, theirs: str) -> tuple[str, str]:
    """Two commits with the trees of those, whose merge starts from `base`."""
    root = git.run("commit-tree", f"{base}^{{tree}}", input="base\n")
    first, second = (
        git.run("commit-tree", f"{side}^{{tree}}", "-p", root, input="side\n") for side in (ours, theirs)
    )
    return first, second
