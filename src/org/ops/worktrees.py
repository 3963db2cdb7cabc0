"""The files of a commit in a folder of their own: made once, never changed, removed when long out of use.

They are not tied to the repository: whatever is run among them cannot reach it by running `git` there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from org.ops.git import Git
from org.ops.layout import Layout

KEPT = 3
_TRASH = ".trash-"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def ensure(layout: Layout, git: Git, commit: str) -> Path:
    """The folder with the files of a commit; it appears whole. To be called under the lock."""
    folder = layout.worktree(commit)
    if folder.is_dir():
        os.utime(folder)  # it is in use
        return folder
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


def prune(layout: Layout, needed: Collection[str]) -> list[str]:
    """Remove all but the last used, the needed, and those in which a process works; gives their names.

    Their files go in the background. To be called under the lock.
    """
    if not layout.generations.is_dir():
        return []
    entries = [entry for entry in layout.generations.iterdir() if not entry.name.startswith(".")]
    by_use = sorted(entries, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    old = [folder for folder in by_use[KEPT:] if folder.name not in needed]
    working = _folders_at_work() if old else []
    gone = [folder for folder in old if not any(folder in (at, *at.parents) for at in working)]
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


def _folders_at_work() -> list[Path]:
    """The working folders of all processes that we may see."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append(Path(os.readlink(process / "cwd")))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found
