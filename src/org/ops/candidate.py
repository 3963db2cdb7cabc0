"""The candidate: a branch of its own, and a folder in which it is worked on.

The folder is a whole clone, for the convenience of whoever works there, and belongs to them: our Git reads
its files and never its `.git`, so nothing that is configured there is run. What counts are the files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from org.errors import OrgError, UsageError
from org.ops import files, sync, user, worktrees
from org.ops.git import Git, seeing
from org.ops.history import History
from org.ops.layout import Layout
from org.ops.program import Program
from org.ops.refs import HEADS, Refs

_MODULE = "160000"
"""The mode of another repository's commit in a tree: it stays what it is."""


@dataclass(frozen=True, slots=True)
class Opened:
    branch: str
    folder: Path
    note: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files as they are: a tree, whose new objects are in a folder that will be gone; `env` shows it."""

    tree: str
    objects: Path
    env: Mapping[str, str]


def branch_of(program: Program) -> str:
    """The branch in the work folder. Raises `UsageError` when there is none."""
    stored = files.read_json(program.layout.candidate_state, "branch")
    if stored is None:
        raise UsageError("there is no candidate", "`org candidate edit` begins one")
    return stored["branch"]


def edit(program: Program, *, new: bool = False) -> Opened:
    """The candidate and its folder; a new one on main when there is none, it was promoted, or `new`.

    Raises `UsageError` when `new` would lose what was not committed, `Conflict`, `Busy`.
    """
    with program.hold("candidate edit") as git:
        note = sync.begin(program, git)
        known, told = sync.current(git)
        if not note:
            note = sync.take_in(program, git, known)
            known, told = sync.current(git)
        stored = files.read_json(program.layout.candidate_state, "branch")
        if stored is None or HEADS + stored["branch"] not in known.by_name:
            return _make(program, git, known, note)
        branch = stored["branch"]
        if not program.layout.candidate.is_dir():  # somebody was killed here
            _clone(program.layout, git, branch)
        if not new and not _is_over(git, known, told, branch):
            return Opened(branch, program.layout.candidate, note)
        if _differs(program, git, known.branch(branch).commit):
            if new:
                raise UsageError("the candidate has changes that are not committed", "`org candidate commit`")
            return Opened(branch, program.layout.candidate, note)
        return _make(program, git, known, note)


def commit(program: Program, message: str, env: Mapping[str, str]) -> tuple[str, str]:
    """Keep all files of the folder as a commit of the branch; gives both. Raises `OrgError` for no change."""
    branch = branch_of(program)
    with program.hold("candidate commit") as git:
        known, _ = sync.current(git)
        head = known.branch(branch)
        with _snapshot(program.layout, git, head.commit) as snapshot:
            if snapshot.tree == head.tree:
                raise OrgError("no file has changed since the last commit")
            words = ("commit-tree", snapshot.tree, "-p", head.commit)
            made = git.run(*words, input=message.rstrip() + "\n", env={**snapshot.env, **user.author(env)})
            git.bring(snapshot.objects, made, [head.commit])
        git.run("update-ref", HEADS + branch, made, head.commit)
    return branch, made


def diff(program: Program) -> str:
    """What the files would change on main since they left it, as a patch."""
    branch = branch_of(program)
    with program.hold("candidate diff") as git:
        known, _ = sync.current(git)
        head = known.branch(branch).commit
        base = git.run("merge-base", known.main.commit, head)
        with _snapshot(program.layout, git, head) as snapshot:
            words = ("diff-tree", "-r", "-p", "-M", "--no-ext-diff", "--no-textconv", base, snapshot.tree)
            return git.ask(*words, env=snapshot.env)[1]


def tidy(program: Program) -> list[str]:
    """Remove what a killed one left in the program's folder; gives the names. To be called under the lock."""
    left = sorted(program.layout.root.glob(".[a-z]*"))
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [path.name for path in left]


def _is_over(git: Git, known: Refs, told: History, branch: str) -> bool:
    """Whether nothing more is to come of a branch as it is: it stands on main, or was never worked on."""
    head, main = known.branch(branch).commit, known.main.commit
    promotes = [promote for promote in told.promotes if promote.candidate == head]
    if promotes:
        return promotes[-1] in told.standing
    return head != main and git.ask("merge-base", "--is-ancestor", head, main, fine=(0, 1))[0] == 0


def _make(program: Program, git: Git, known: Refs, note: str) -> Opened:
    """Each step can follow an interruption of the one before: what is stored names what is missing."""
    branch = stamp = f"cand/{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while HEADS + branch in known.by_name:
        number += 1
        branch = f"{stamp}-{number}"
    layout = program.layout
    if layout.candidate.exists():
        layout.generations.mkdir(exist_ok=True, mode=0o700)
        worktrees.discard(layout.candidate.rename(layout.generations / f".old-{os.getpid()}"))
    files.write_json(layout.candidate_state, {"branch": branch})
    git.run("update-ref", HEADS + branch, known.main.commit, "")
    _clone(layout, git, branch)
    return Opened(branch, layout.candidate, note)


def _clone(layout: Layout, git: Git, branch: str) -> None:
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".clone-") as place:
        fresh = Path(place) / "candidate"
        words = ("clone", "--quiet", "--no-local", "--no-tags", "--template=", f"--origin={user.REMOTE}")
        git.run(*words, f"--branch={branch}", "--", str(layout.repo), str(fresh))
        fresh.rename(layout.candidate)


def _differs(program: Program, git: Git, head: str) -> bool:
    with _snapshot(program.layout, git, head) as snapshot:
        return snapshot.tree != git.run("rev-parse", f"{head}^{{tree}}")


@contextmanager
def _snapshot(layout: Layout, git: Git, head: str) -> Iterator[Snapshot]:
    if layout.candidate.is_symlink() or not layout.candidate.is_dir():
        raise UsageError(f"the candidate's folder is gone: {layout.candidate}", "`org candidate edit`")
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".objects-") as place:
        objects = Path(place) / "objects"
        objects.mkdir()
        env = {
            "GIT_WORK_TREE": str(layout.candidate),
            "GIT_INDEX_FILE": str(Path(place) / "index"),
            "GIT_OBJECT_DIRECTORY": str(objects),
            **seeing(layout.repo / "objects"),
        }
        git.run("read-tree", head, env=env)
        gone, there = _listed(layout.candidate, git, env)
        git.run("update-index", "--force-remove", "-z", "--stdin", input=gone, env=env)
        git.run("update-index", "--add", "--replace", "-z", "--stdin", input=there, env=env)
        yield Snapshot(git.run("write-tree", env=env), objects, env)


def _listed(folder: Path, git: Git, env: Mapping[str, str]) -> tuple[str, str]:
    """The paths that the head has and the folder has not, and all that the folder has, each ended by NUL."""
    words = ("ls-files", "-z", "--exclude-standard")
    known = git.ask(*words, "--cached", "--stage", env=env)[1].split("\0")[:-1]
    modes = {path: entry.split()[0] for entry, _, path in (line.partition("\t") for line in known)}
    fresh = git.ask(*words, "--others", env=env)[1].split("\0")[:-1]
    for path in fresh:
        if path.endswith("/"):
            raise UsageError(f"{path} is a Git repository of its own", "remove its `.git`, or ignore it")
    kept = [path for path, mode in modes.items() if mode != _MODULE and _is_file(folder, path)]
    gone = [path for path, mode in modes.items() if mode != _MODULE and not _is_file(folder, path)]
    return "".join(f"{path}\0" for path in gone), "".join(f"{path}\0" for path in (*kept, *fresh))


def _is_file(folder: Path, path: str) -> bool:
    """Whether a file or a link stands there, and not behind a link."""
    place = folder / path
    if any(parent.is_symlink() for parent in place.parents if folder in parent.parents):
        return False
    return place.is_symlink() or place.is_file()
