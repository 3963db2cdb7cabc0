"""What was promoted and rolled back, told by main itself.

The commits on main's first-parent line that are ours and carry our trailers are the truth; tags and state
files are derived from them. A merge of a promote has two parents and says `Org-Promote`; a commit that rolls
one back says `Org-Rollback` and which one. What is further from the line, or was committed by another (also
for a candidate), can say what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from org.ops.git import COMMITTER, Git
from org.ops.refs import BASE, COMMIT, MAIN, Refs

PROMOTE, CANDIDATE = "Org-Promote", "Org-Candidate"
ROLLBACK, ROLLBACK_OF = "Org-Rollback", "Org-Rollback-Of"

# How `git log` is asked: a record ends with NUL, which no message has, and of its fields, a line each, only
# the last is of more lines. Nothing is converted: a line stays one whatever encoding it claims to have.
_FIELDS = "%H%n%P%n%ct%n%cn <%ce>%n%(trailers:only,unfold)"
_LOG = ("log", "-z", "--encoding=none", f"--format={_FIELDS}", "--first-parent")


@dataclass(frozen=True, slots=True)
class Promote:
    """`commit` merged `candidate` (a commit of `branch`) into `main`. `at` is in seconds since 1970."""

    number: int
    commit: str
    main: str
    candidate: str
    branch: str
    at: int


@dataclass(frozen=True, slots=True)
class Rollback:
    """`commit` took back what the promote `of` had brought to `main`."""

    number: int
    commit: str
    main: str
    of: Promote
    at: int


Entry: TypeAlias = Promote | Rollback


@dataclass(frozen=True, slots=True)
class History:
    """All entries, oldest first, and the commit that is main now."""

    main: str
    entries: tuple[Entry, ...]

    @property
    def promotes(self) -> tuple[Promote, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, Promote))

    @property
    def rollbacks(self) -> tuple[Rollback, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, Rollback))

    @property
    def standing(self) -> tuple[Promote, ...]:
        """The promotes that are not rolled back, oldest first."""
        gone = {entry.of for entry in self.rollbacks}
        return tuple(entry for entry in self.promotes if entry not in gone)

    def after(self, rollback: Rollback) -> tuple[Promote, ...]:
        """The promotes that were made after a rollback, and stand."""
        later = self.entries[self.entries.index(rollback) :]
        return tuple(entry for entry in self.standing if entry in later)


def read(git: Git, refs: Refs) -> History:
    return parse(git.run(*_LOG, MAIN, "--not", BASE), refs.main.commit)


def base(git: Git, main: str) -> str:
    """Where the entries begin on a main of which nothing is known: the commit before the oldest."""
    told = parse(git.run(*_LOG, main), main)
    return told.entries[0].main if told.entries else main


def parse(log: str, main: str) -> History:
    """The history that `git log` tells, newest commit first.

    What cannot be so (a promote without two parents, a rollback of nothing, or of what is rolled back
    already) is left out.
    """
    standing: dict[str, Promote] = {}
    entries: list[Entry] = []
    promotes = 0
    for commit, parents, at, trailers in reversed(list(_ours(log))):
        if PROMOTE in trailers and len(set(parents)) == 2:
            promotes += 1
            candidate = trailers.get(COMMIT, parents[1])
            branch = trailers.get(CANDIDATE, "")
            made = Promote(promotes, commit, parents[0], candidate, branch, at)
            standing[commit] = made
            entries.append(made)
        elif ROLLBACK in trailers and trailers.get(ROLLBACK_OF, "") in standing and len(parents) == 1:
            of = standing.pop(trailers[ROLLBACK_OF])
            entries.append(Rollback(len(entries) - promotes + 1, commit, parents[0], of, at))
    return History(main, tuple(entries))


def _ours(log: str) -> Iterator[tuple[str, list[str], int, dict[str, str]]]:
    """The commits of ours: their parents, when, and what they say of themselves."""
    for record in log.split("\0")[:-1]:
        commit, parents, at, committer, said = record.split("\n", 4)
        if committer == COMMITTER:
            pairs = (line.partition(": ") for line in said.split("\n"))
            yield commit, parents.split(), int(at), {name: value.strip() for name, _, value in pairs}


def promote_message(number: int, branch: str, candidate: str) -> str:
    return (
        f"Promote {number}: {branch}\n\n{PROMOTE}: {number}\n{CANDIDATE}: {branch}\n{COMMIT}: {candidate}\n"
    )


def rollback_message(number: int, of: Promote) -> str:
    return f"Roll back promote {of.number}: {of.branch}\n\n{ROLLBACK}: {number}\n{ROLLBACK_OF}: {of.commit}\n"
