"""What is known of a candidate before anything of it is run, and what its verdict is kept as."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from org.errors import Busy
from org.ops import history, refs, trust, verdicts, worktrees
from org.ops.fitness import anchor, inputs, policy, sequential
from org.ops.fitness.anchor import Anchor
from org.ops.fitness.inputs import Inputs
from org.ops.git import Git
from org.ops.history import History
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.refs import GATES, Refs

_PATIENCE_S = 60.0
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person said: `tasks` is a file of theirs, `pairs` 0 for as many as main says."""

    tasks: str = ""
    pairs: int = 0
    allow_protected: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """`current` and `candidate` are the folders of main's and the merge's files; `wrong` is what is wrong
    with the latter, which may change what is protected when `allow_protected` is. `since` is the promote
    before it, `attempt` how often anything was tried since."""

    gate: Gate
    inputs: Inputs
    current: Path
    candidate: Path
    tree: str
    wrong: list[str]
    allow_protected: bool
    attempt: int
    since: str
    anchor: Anchor


def prepare(program: Program, gate: Gate, wish: Wish) -> Case:
    """Raises `ConfigError` for what is off or not trusted."""
    with patiently(program, "fitness") as git:
        known = trusted(program, git)
        told = history.read(git, known)
        current = worktrees.ensure(program.layout, git, gate.main)
        read = inputs.read(git, gate.main, current, wish.tasks)
        since = told.promotes[-1].commit if told.promotes else ""
        attempt = _spent(git, since) + 1
        wrong = policy.findings(
            git, gate.main, gate.merge, read.rules.protected, allow_protected=wish.allow_protected
        )
        candidate = worktrees.ensure(program.layout, git, gate.merge)
        tree = git.run("rev-parse", f"{gate.merge}^{{tree}}")
        return Case(
            gate,
            read,
            current,
            candidate,
            tree,
            wrong,
            wish.allow_protected,
            attempt,
            since,
            _anchor(git, told, gate.main, read),
        )


def trusted(program: Program, git: Git) -> Refs:
    """All references; raises `ConfigError` when the person does not trust what main would start."""
    known = refs.read(git)
    trust.require_commit(program, git, known.main.commit)
    return known


def begin(program: Program, case: Case) -> None:
    """Note that an attempt is under way, before its first pair: to break off is an attempt too."""
    with patiently(program, "fitness") as git:
        interrupted = {"verdict": "inconclusive", "why": "it was interrupted"}
        verdicts.record(git, case.gate.merge, {**names(case), **interrupted, "spent": case.attempt})


def names(case: Case) -> dict[str, object]:
    """What every verdict on this case says of itself."""
    return {
        "format": 1,
        "branch": case.gate.branch,
        "candidate": case.gate.candidate,
        "merge": case.gate.merge,
        "tree": case.tree,
        "inputs": case.inputs.names,
        **{name: case.inputs.names[name] for name in ("main", "suite", "model", "tasks")},
        "since": case.since,
        "allow_protected": case.allow_protected,
        "attempt": case.attempt,
        "alpha": sequential.alpha(case.attempt),
        "spent": case.attempt - 1,
    }


@contextmanager
def patiently(program: Program, purpose: str) -> Iterator[Git]:
    """The repository, to change it, soon: what took an hour to find out is not lost to who is quicker."""
    deadline = time.monotonic() + _PATIENCE_S
    with ExitStack() as stack:
        while True:
            try:
                git = stack.enter_context(program.hold(purpose))
                break
            except Busy:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_S)
        yield git


def _spent(git: Git, since: str) -> int:
    """How often anything was tried since a promote: another branch, or a byte more, is another chance too."""
    merges = git.run("for-each-ref", "--format=%(objectname)", GATES).split()
    found = [one for one in verdicts.read_all(git, merges) if one.get("since") == since]
    return max((int(str(one.get("spent", 0))) for one in found), default=0)


def _anchor(git: Git, told: History, main: str, read: Inputs) -> Anchor:
    promotes = [verdicts.read(git, promote.commit) for promote in told.standing]
    return anchor.find(promotes, main, read.suite.digest, read.model)
