"""The folder in which a candidate is worked on: what is in it, and that nothing of it is lost.

It is a whole clone, for the convenience of whoever works there, and belongs to them: our Git reads its files
and never its `.git`, so nothing that is configured there is run. What counts are the files. When it has to
make room, what nobody keeps elsewhere goes along or stays beside it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from org.errors import OrgError, UsageError
from org.ops import user, worktrees
from org.ops.git import Git, seeing
from org.ops.layout import Layout
from org.ops.refs import Refs

_MODULE = "160000"
"""The mode of another repository's commit in a tree: it stays what it is."""
_ID = re.compile(rb"\b[0-9a-f]{40}\b")
_MOST_REFS = 1 << 20
"""Bytes of a file of references that is read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files as they are: a tree, whose new objects are in a folder that will be gone; `env` shows it,
    with an index of all these files."""

    tree: str
    objects: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Aside:
    """A folder that made room. `carried` are the paths that are to go along; `kept` says whether all others
    are kept elsewhere."""

    folder: Path
    carried: tuple[str, ...] = ()
    kept: bool = False


def there(layout: Layout) -> bool:
    return _is_folder(layout.candidate)


def beside(layout: Layout) -> list[Path]:
    """The folders that made room and hold what is kept nowhere else, oldest first."""
    found = [path for path in layout.root.glob("candidate-*") if _number(path)]
    return sorted(found, key=_number)


def clone(layout: Layout, git: Git, branch: str) -> None:
    """Make the folder; there is none."""
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".clone-") as place:
        fresh = Path(place) / "candidate"
        words = ("clone", "--quiet", "--no-local", "--no-tags", "--template=", f"--origin={user.REMOTE}")
        git.run(*words, f"--branch={branch}", "--", str(layout.repo), str(fresh))
        fresh.rename(layout.candidate)


@contextmanager
def snapshot(layout: Layout, git: Git, head: str) -> Iterator[Snapshot]:
    """Its files, where `head` is what Git knew of them before. Raises `UsageError` for what has no place."""
    if not there(layout):
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
        gone, found = _listed(layout.candidate, git, env)
        git.run("update-index", "--force-remove", "-z", "--stdin", input=gone, env=env)
        git.run("update-index", "--add", "--replace", "-z", "--stdin", input=found, env=env)
        yield Snapshot(git.run("write-tree", env=env), objects, env)


def become(layout: Layout, git: Git, taken: Snapshot, tree: str) -> None:
    """Have the files of a tree there instead of those of the snapshot; what Git ignores stays.

    Raises `UsageError`, and changes nothing, when that would be in the way.
    """
    words = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=A", taken.tree, tree)
    added = map(Path, git.ask(*words, env=taken.env)[1].split("\0")[:-1])
    folder = layout.candidate
    met = {
        str(part)
        for path in added
        for part in (path, *path.parents)
        if os.path.lexists(folder / part) and (part == path or not _is_folder(folder / part))
    }
    if met:
        env = {**taken.env, "GIT_LITERAL_PATHSPECS": "1"}
        if others := _others(git, env, "--", *sorted(met)):
            raise UsageError(f"{', '.join(others)} is in the way: main has a file there", "move it elsewhere")
    git.run("read-tree", "-m", "-u", taken.tree, tree, env=taken.env)


def set_aside(layout: Layout, git: Git, known: Refs, head: str) -> Aside | None:
    """Have whatever stands in the folder's place beside it; None when nothing does. `known` is what is kept,
    `head` what Git knows of the files."""
    if not os.path.lexists(layout.candidate):
        return None
    kept, others = _looked_at(layout, git, known, head)
    number = max(map(_number, beside(layout)), default=0) + 1
    return Aside(layout.candidate.rename(layout.root / f"candidate-{number}"), others, kept)


def let_go(layout: Layout, aside: Aside) -> None:
    """Take along into the new folder what Git ignored in the old one, which is removed when nothing of it is
    left that is kept nowhere else."""
    moved = [_moved(aside.folder / path, layout.candidate, Path(path)) for path in aside.carried]
    if aside.kept and all(moved):
        layout.generations.mkdir(exist_ok=True, mode=0o700)
        worktrees.discard(aside.folder.rename(layout.generations / f".old-{os.getpid()}"))


def _looked_at(layout: Layout, git: Git, known: Refs, head: str) -> tuple[bool, tuple[str, ...]]:
    """Whether all of it is kept but for what Git ignores, and that."""
    try:
        with snapshot(layout, git, head) as taken:
            trees = {ref.tree for ref in known.by_name.values()}
            others = _others(git, taken.env, "--directory")
            return taken.tree in trees and _has_no_commits_of_its_own(layout.candidate / ".git", git), others
    except OrgError:  # it cannot even be read
        return False, ()


def _has_no_commits_of_its_own(inner: Path, git: Git) -> bool:
    """Whether we have all that the clone's references name. They are read as files: nobody knows who wrote
    what Git would do there."""
    if not os.path.lexists(inner):
        return True
    if not _is_folder(inner) or not _is_folder(inner / "refs"):
        return False
    if any(os.path.lexists(inner / name) for name in ("worktrees", "modules")):  # other clones hang on it
        return False
    files = [inner / "HEAD", inner / "packed-refs", *(inner / "refs").rglob("*")]
    plain = [file for file in files if file.is_file() and not file.is_symlink()]
    if any(file.stat().st_size > _MOST_REFS for file in plain):
        return False
    named = {name.decode() for file in plain for name in _ID.findall(file.read_bytes())}
    asked = "".join(f"{name}\n" for name in named)
    return not asked or " missing" not in git.run("cat-file", "--batch-check", input=asked)


def _moved(old: Path, folder: Path, path: Path) -> bool:
    """Take one path along; False when there is something else in its place."""
    new = folder / path
    above = [folder / part for part in path.parents]
    if os.path.lexists(new) or any(part.is_symlink() or part.is_file() for part in above):
        return False
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    return True


def _others(git: Git, env: Mapping[str, str], *words: str) -> tuple[str, ...]:
    """The paths that are not in the index, which is of all that is to be kept: so those that Git ignores."""
    return tuple(git.ask("ls-files", "-z", "--others", *words, env=env)[1].split("\0")[:-1])


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
    return _ended(gone), _ended((*kept, *fresh))


def _ended(paths: Sequence[str]) -> str:
    return "".join(f"{path}\0" for path in paths)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(folder: Path, path: str) -> bool:
    """Whether a file or a link stands there, and not behind a link."""
    place = folder / path
    if any(parent.is_symlink() for parent in place.parents if folder in parent.parents):
        return False
    return place.is_symlink() or place.is_file()


def _number(path: Path) -> int:
    """Of a folder that made room; 0 for any other name."""
    number = path.name.removeprefix("candidate-")
    return int(number) if number.isascii() and number.isdecimal() else 0
