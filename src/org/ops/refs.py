"""All references of the repository, read at once."""

from __future__ import annotations

import re
from dataclasses import dataclass

from org.errors import UsageError
from org.ops.git import Git

HEADS, TAGS, GATES = "refs/heads/", "refs/tags/", "refs/org/gate/"
MAIN = "refs/heads/main"
THEIRS = "refs/org/theirs/main"
"""The user's main when it was last looked at."""
BASE = "refs/org/base"
"""Where the history that is ours begins: nothing before it was promoted."""

COMMIT = "Org-Commit"
"""The trailer of a gate that names the candidate's commit."""

_BRANCH = re.compile(r"cand/[0-9]{8}-[0-9]{6}(-[0-9]+)?")
_FORMAT = (
    "%(refname) %(objectname) %(*objectname) | %(tree) %(committerdate:unix) | %(parent)"
    f" | %(contents:trailers:key={COMMIT},valueonly=true,separator=%2C)"
)


@dataclass(frozen=True, slots=True)
class Ref:
    """`commit` is what the name means in the end; the rest is of a commit, and empty for an annotated tag.

    `at` is in seconds since 1970; `candidate` is the commit of which a gate is.
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
    lines = git.run("for-each-ref", f"--format={_FORMAT}").splitlines()
    return Refs(dict(map(_parse, lines)))


def _parse(line: str) -> tuple[str, Ref]:
    names, about, parents, candidate = line.split("|")
    name, *objects = names.split()
    tree, at = about.split() or ("", "0")
    return name, Ref(objects[-1], tree, int(at), tuple(parents.split()), candidate.strip())
