"""All references of the repository, read at once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from org.errors import EnvironmentProblem, UsageError
from org.ops.git import Git, GitFailed

HEADS, TAGS, GATES = "refs/heads/", "refs/tags/", "refs/org/gate/"
MAIN = "refs/heads/main"
THEIRS = "refs/org/theirs/main"
"""The user's main when it was last looked at."""
BASE = "refs/org/base"
"""Where the history that is ours begins: nothing before it was promoted."""

COMMIT = "Org-Commit"
"""The trailer of a gate that names the candidate's commit."""

_BRANCH = re.compile(r"cand/[0-9]{8}-[0-9]{6}(-[0-9]+)?")
_GATE = re.compile(rf"{GATES}[1-9][0-9]*")
_ID = re.compile(r"[0-9a-f]{40}")

# What is free text is asked for of gates alone, whose messages are ours, and comes last.
_FORMAT = "%00".join(
    (
        *("%(refname)", "%(objectname)", "%(*objectname)", "%(tree)", "%(committerdate:unix)", "%(parent)"),
        f"%(if:equals={GATES.rstrip('/')})%(refname:rstrip=1)%(then)"
        f"%(contents:trailers:key={COMMIT},valueonly=true,unfold=true,separator=%2C)%(end)",
    )
)


@dataclass(frozen=True, slots=True)
class Ref:
    """`commit` is what the name means in the end; the rest is of a commit, and empty for an annotated tag.

    `at` is in seconds since 1970, 0 for a date that is none; `candidate` is the commit of which a gate is,
    and empty for what is no gate.
    """

    commit: str
    tree: str
    at: int
    parents: tuple[str, ...]
    candidate: str


@dataclass(frozen=True, slots=True)
class Refs:
    by_name: dict[str, Ref]

    @property
    def main(self) -> Ref:
        return self.by_name[MAIN]

    def branch(self, name: str) -> Ref:
        """Raises `UsageError` for what is no branch of a candidate."""
        ref = self.by_name.get(HEADS + name)
        if not _BRANCH.fullmatch(name) or ref is None:
            known = [known.removeprefix(HEADS) for known in self.by_name if known.startswith(f"{HEADS}cand/")]
            raise UsageError(
                f"no such candidate: {name!r}",
                f"there is {', '.join(sorted(known)[-5:])}" if known else "`org candidate edit` begins one",
            )
        return ref


def read(git: Git) -> Refs:
    """Raises `EnvironmentProblem` when what must be there is not."""
    try:
        lines = git.run("for-each-ref", f"--format={_FORMAT}").split("\n")
    except GitFailed as error:
        raise damaged(git, error.message) from error
    by_name = dict(_parse(line) for line in lines if line)
    for name in (MAIN, THEIRS, BASE):
        if name not in by_name:
            raise damaged(git, f"{git.folder} has no {name}")
    return Refs(by_name)


def damaged(git: Git, why: str) -> EnvironmentProblem:
    """What is said of a repository of ours that cannot be gone on with."""
    return EnvironmentProblem(
        f"the repository is damaged: {why}",
        f"move {git.folder.parent} aside, it has what you did not pull; then `org candidate edit` begins anew"
        " from your main",
    )


def _parse(line: str) -> tuple[str, Ref]:
    name, object, peeled, tree, at, parents, candidate = line.split("\0")
    if not (_GATE.fullmatch(name) and parents and _ID.fullmatch(candidate)):
        candidate = ""
    return name, Ref(peeled or object, tree, int(at or 0), tuple(parents.split()), candidate)
