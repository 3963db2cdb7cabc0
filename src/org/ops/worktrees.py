"""The files of a commit in a folder of their own: made once, never changed, removed when long out of use.

They are not tied to the repository: whatever is run among them cannot reach it by running `git` there. What
runs as their owner can change them all the same: so they are compared with the commit before they are used
again, and made anew when they differ.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from org.ops.git import Git
from org.ops.layout import Layout

KEPT = 3
_TRASH = ".trash-"
_ASIDE = "~"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def ensure(layout: Layout, git: Git, commit: str) -> Path:
    """The folder with the files of a commit, and no others; it appears whole. To be called under the lock."""
    folder = layout.worktree(commit)
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    elif compare(layout, git, commit) == Differences():
        os.utime(folder)  # it is in use
        return folder
    else:
        _put_aside(folder)
    layout.generations.mkdir(exist_ok=True, mode=0o700)
    making = layout.generations / f".making-{commit}"
    index = layout.generations / f".index-{commit}"
    if making.exists():  # somebody was killed here
        discard(making)
    making.mkdir(mode=0o755)
    index.unlink(missing_ok=True)
    where = {"GIT_WORK_TREE": str(making), "GIT_INDEX_FILE": str(index)}
    git.run("read-tree", "--reset", "-u", commit, env=where)
    index.unlink()
    _seal(making)
    return making.rename(folder)


@dataclass(frozen=True, slots=True)
class Differences:
    """Paths of a commit that its folder has otherwise or not at all, and what is there besides."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def compare(layout: Layout, git: Git, commit: str) -> Differences:
    """What is not in a folder as its commit has it. All files are read: times and sizes can be made up."""
    index = layout.generations / f".index-{commit}"
    index.unlink(missing_ok=True)
    where = {"GIT_WORK_TREE": str(layout.worktree(commit)), "GIT_INDEX_FILE": str(index)}
    git.run("read-tree", commit, env=where)
    unread, changed = git.ask("diff", "--no-ext-diff", "--name-only", "-z", env=where, fine=(0, 128))
    index.unlink()
    if unread:
        return Differences((".",))
    known = git.ask("ls-tree", "-r", "-z", "--name-only", commit)[1].split("\0")
    added = set(_paths(layout.worktree(commit))).difference(known)
    return Differences(tuple(filter(None, changed.split("\0"))), tuple(sorted(added)))


def _paths(folder: Path) -> Iterator[str]:
    """All that is in a folder but folders."""
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(path, name), folder)


def _put_aside(folder: Path) -> None:
    """What runs among these files goes on; they are removed when nothing does."""
    aside = folder.rename(folder.with_name(f"{folder.name}{_ASIDE}{time.time_ns()}"))
    if not _at_work((aside,)):
        discard(aside)


def prune(layout: Layout, needed: Collection[str]) -> list[str]:
    """Remove all but the last used, the needed, and those in which a process works; gives their names.

    Their files go in the background. To be called under the lock.
    """
    if not layout.generations.is_dir():
        return []
    entries = [entry for entry in layout.generations.iterdir() if not entry.name.startswith(".")]
    aside = [entry for entry in entries if _ASIDE in entry.name]
    by_use = sorted(
        (entry for entry in entries if entry not in aside),
        key=lambda entry: entry.stat().st_mtime_ns,
        reverse=True,
    )
    old = [*aside, *(folder for folder in by_use[KEPT:] if folder.name not in needed)]
    working = _at_work(old)
    gone = [folder for folder in old if folder not in working]
    for folder in gone:
        discard(folder)
    return [folder.name for folder in gone]


def tidy(layout: Layout) -> list[str]:
    """Remove what a killed one was making or removing; gives the names. To be called under the lock."""
    left = sorted(layout.generations.glob(".[a-z]*")) if layout.generations.is_dir() else []
    for path in left:
        if path.is_dir():
            discard(path)
        else:
            path.unlink()
    return [path.name for path in left if not path.name.startswith(_TRASH)]  # that may still be going


def discard(folder: Path) -> None:
    """Remove a folder: at once by its name, and its files by a process that nobody waits for."""
    trash = folder
    if not folder.name.startswith(_TRASH):
        trash = folder.rename(folder.with_name(f"{_TRASH}{os.getpid()}-{folder.name}"))
    for path, _, _ in os.walk(trash):
        with suppress(FileNotFoundError):  # an earlier one is at it still
            os.chmod(path, 0o700)
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    os.posix_spawnp("rm", ["rm", "-rf", "--", str(trash)], os.environ, file_actions=null, setsid=True)


def _seal(folder: Path) -> None:
    for path, _, files in os.walk(folder):
        for name in files:
            file = os.path.join(path, name)
            if not os.path.islink(file):
                os.chmod(file, os.stat(file).st_mode & ~_WRITABLE)
        os.chmod(path, os.stat(path).st_mode & ~_WRITABLE)


def _at_work(folders: Collection[Path]) -> set[Path]:
    """Those of them in which a process works that we may see."""
    working = _folders_at_work() if folders else []
    return {folder for folder in folders if any(folder in (at, *at.parents) for at in working)}


def _folders_at_work() -> list[Path]:
    """The working folders of all processes that we may see."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append(Path(os.readlink(process / "cwd")))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found
