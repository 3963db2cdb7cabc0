"""The commits that main is moved to, made before anything is decided on them: what is tested is what lands.

No working tree takes part. Git 2.38 cannot be told what a merge starts from, so where that is not what it
would find itself, the merge is made between commits that exist for this alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from org.errors import Conflict, OrgError, Stale
from org.ops.git import Git
from org.ops.history import History, Promote, promote_message, rollback_message
from org.ops.refs import GATES, Ref, Refs


@dataclass(frozen=True, slots=True)
class Gate:
    """`merge` is the pinned commit to which a promote of `candidate` moves main, away from `main`."""

    number: int
    merge: str
    main: str
    candidate: str
    branch: str


def prepare(git: Git, refs: Refs, history: History, branch: str) -> Gate:
    """The gate of a branch on main as both are now: found when it was made before, else made and pinned.

    Raises `Conflict`, `Stale` for what is on main already, and `OrgError` for what changes nothing.
    """
    candidate = refs.branch(branch).commit
    for gate in gates(refs, branch):
        if gate.main == refs.main.commit and gate.candidate == candidate:
            return gate
    merge = _merge(git, refs.main, history, branch, candidate)
    number = max(
        (int(name.removeprefix(GATES)) for name in refs.by_name if name.startswith(GATES)), default=0
    )
    git.run("update-ref", f"{GATES}{number + 1}", merge, "")
    return Gate(number + 1, merge, refs.main.commit, candidate, branch)


def gates(refs: Refs, branch: str) -> list[Gate]:
    """Those of the branch as it is now, newest last, whichever main they are on."""
    candidate = refs.branch(branch).commit
    found = [
        Gate(int(name.removeprefix(GATES)), ref.commit, ref.parents[0], candidate, branch)
        for name, ref in refs.by_name.items()
        if name.startswith(GATES) and ref.candidate == candidate
    ]
    return sorted(found, key=lambda gate: gate.number)


def revert(git: Git, history: History, promote: Promote) -> str:
    """The commit on main that takes back what a promote brought. Raises `Conflict`."""
    tree = f"{promote.main}^{{tree}}"
    if promote.commit != history.main:
        since = f"taking back promote {promote.number}"
        tree = _three_way(git, promote.commit, history.main, promote.main, since)
    message = rollback_message(len(history.rollbacks) + 1, promote)
    return git.run("commit-tree", tree, "-p", history.main, input=message)


def merged(git: Git, ours: str, theirs: str, what: str) -> str:
    """The tree of a merge. Raises `Conflict`; `what` names the other side in it."""
    words = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
    conflicts, said = git.ask(*words, fine=(0, 1))
    tree, *files = said.rstrip("\0").split("\0")
    if conflicts:
        raise Conflict(f"main and {what} do not go together: {', '.join(files)}", files=tuple(files))
    return tree


def _merge(git: Git, main: Ref, history: History, branch: str, candidate: str) -> str:
    again = _given_up(git, history, candidate)
    second = candidate
    if again is None:
        tree = merged(git, main.commit, candidate, branch)
    else:
        base = git.run("merge-base", again.main, candidate)
        tree = _three_way(git, base, main.commit, candidate, branch)
        parents = ("-p", main.commit, "-p", candidate)
        second = git.run("commit-tree", tree, *parents, input=f"Reapply {branch}\n")
    if tree == main.tree:
        raise _nothing(history, branch, candidate)
    message = promote_message(len(history.promotes) + 1, branch, candidate)
    return git.run("commit-tree", tree, "-p", main.commit, "-p", second, input=message)


def _nothing(history: History, branch: str, candidate: str) -> OrgError:
    for promote in history.standing:
        if promote.candidate == candidate:
            return Stale(f"{branch} is on main already: promote {promote.number}")
    return OrgError(f"{branch} changes nothing on main", '`org candidate commit -m "…"` keeps what you did')


def _given_up(git: Git, history: History, candidate: str) -> Promote | None:
    """The oldest promote whose work the candidate holds, and which main gave up without its knowing.

    That work is in main's past, so a plain merge would silently bring nothing of it back.
    """
    for rollback in sorted(history.rollbacks, key=lambda rollback: rollback.of.number):
        if (
            _holds(git, candidate, rollback.of.candidate)
            and not _holds(git, candidate, rollback.commit)
            and not any(
                _holds(git, later.candidate, rollback.of.candidate) for later in history.after(rollback)
            )
        ):
            return rollback.of
    return None


def _holds(git: Git, commit: str, ancestor: str) -> bool:
    return commit == ancestor or not git.ask("merge-base", "--is-ancestor", ancestor, commit, fine=(0, 1))[0]


def _three_way(git: Git, base: str, ours: str, theirs: str, what: str) -> str:
    root = git.run("commit-tree", f"{base}^{{tree}}", input="base\n")
    first, second = (
        git.run("commit-tree", f"{side}^{{tree}}", "-p", root, input="side\n") for side in (ours, theirs)
    )
    return merged(git, first, second, what)
