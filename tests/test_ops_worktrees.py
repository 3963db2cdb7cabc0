"""The files of generations: whole or not there, never changed, kept while they are needed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops_kit import Shop
from org.ops import worktrees
from org.ops.git import Git
from org.ops.worktrees import Differences


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path, {"menu.txt": "tea\n", "deep/run": "#!/bin/sh\n"})
    made.edit({})
    return made


def make(shop: Shop, count: int) -> list[str]:
    """Generations of so many promotes, oldest use first."""
    commits = []
    for number in range(count):
        shop.change({"a": f"{number} on {shop.main}"})
        commits.append(shop.promote().entry.commit)
    return commits


def there(shop: Shop) -> set[str]:
    return {path.name for path in shop.layout.generations.iterdir() if not path.name.startswith(".")}


def test_they_are_the_files_of_the_commit_and_no_repository(shop: Shop) -> None:
    (commit,) = make(shop, 1)
    folder = shop.layout.worktree(commit)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
        "a", "deep", "deep/run", "menu.txt", "org.toml"
    }  # fmt: skip
    assert all(not path.stat().st_mode & 0o222 for path in (folder, *folder.rglob("*")))


def test_one_is_made_once(shop: Shop) -> None:
    (commit,) = make(shop, 1)
    folder = shop.layout.worktree(commit)
    before = folder.stat().st_ino
    with shop.program.hold("test") as git:
        assert worktrees.ensure(shop.layout, git, commit) == folder
    assert folder.stat().st_ino == before


def rewrite(folder: Path) -> None:
    (folder / "a").write_text("changed")


def keep_times(folder: Path) -> None:
    before = (folder / "menu.txt").stat()
    (folder / "menu.txt").write_text("pie\n")
    os.utime(folder / "menu.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def close(folder: Path) -> None:
    shutil.rmtree(folder / "deep")
    (folder / "deep").write_text("")


def lead_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.symlink_to("away")


def hide(folder: Path) -> None:
    (folder / "deep" / ".git").mkdir()
    (folder / "deep" / ".git" / "config").write_text("")


def flatten(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


TAMPERINGS: list[Callable[[Path], object]] = [
    rewrite,
    keep_times,
    close,
    lead_away,
    lambda folder: (folder / "menu.txt").unlink(),
    lambda folder: (folder / "menu.txt").chmod(0o755),
    lambda folder: (folder / "deep" / "extra").write_text(""),
    hide,
    lambda folder: (folder / ".gitattributes").write_text("* -diff"),
    lambda folder: (folder / "deep" / "link").symlink_to("/"),
    lambda folder: os.mkfifo(folder / "pipe"),
    flatten,
]


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_what_somebody_has_changed_is_made_anew(shop: Shop, tamper: Callable[[Path], object]) -> None:
    (commit,) = make(shop, 1)
    folder = shop.layout.worktree(commit)
    before = {path: path.lstat().st_mode for path in folder.rglob("*")}
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)
    (folder / "a").chmod(0o644)
    (folder / "menu.txt").chmod(0o644)
    tamper(folder)
    with shop.program.hold("test") as git:
        assert worktrees.ensure(shop.layout, git, commit) == folder
        assert worktrees.compare(shop.layout, git, commit) == Differences()
    assert not folder.is_symlink()
    assert {path: path.lstat().st_mode for path in folder.rglob("*")} == before
    assert (folder / "menu.txt").read_text() == "tea\n"


def test_it_is_said_what_was_changed(shop: Shop) -> None:
    (commit,) = make(shop, 1)
    folder = shop.layout.worktree(commit)
    folder.chmod(0o755)
    (folder / "menu.txt").unlink()
    (folder / "new").write_text("")
    with shop.program.hold("test") as git:
        assert worktrees.compare(shop.layout, git, commit) == Differences(("menu.txt",), ("new",))


def test_what_cannot_be_read_is_changed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (commit,) = make(shop, 1)
    ask = Git.ask

    def refused(git: Git, *words: str, **more: Any) -> tuple[int, str]:
        return (128, "") if words[0] == "diff" else ask(git, *words, **more)

    with shop.program.hold("test") as git, monkeypatch.context() as patch:
        patch.setattr(Git, "ask", refused)
        assert worktrees.compare(shop.layout, git, commit).changed == (".",)


def test_what_runs_among_changed_files_keeps_them(shop: Shop) -> None:
    (commit,) = make(shop, 1)
    folder = shop.layout.worktree(commit)
    (folder / "deep").chmod(0o755)
    (folder / "deep" / "note").write_text("mine")
    process = subprocess.Popen(["sleep", "600"], cwd=folder / "deep")
    try:
        with shop.program.hold("test") as git:
            worktrees.ensure(shop.layout, git, commit)
            assert not (folder / "deep" / "note").exists()
            assert Path(f"/proc/{process.pid}/cwd/note").read_text() == "mine"
            assert worktrees.prune(shop.layout, (commit,)) == []
    finally:
        process.kill()
        process.wait()
    with shop.program.hold("test"):
        (gone,) = worktrees.prune(shop.layout, (commit,))
    assert gone.startswith(commit)
    assert there(shop) == {commit}


def test_what_a_killed_one_was_making_is_made_anew(shop: Shop) -> None:
    half = shop.layout.generations / f".making-{shop.main}"
    half.mkdir(parents=True)
    (half / "half").write_text("")
    (shop.layout.generations / f".index-{shop.main}").write_text("")
    with shop.program.hold("test") as git:
        folder = worktrees.ensure(shop.layout, git, shop.main)
    assert not (folder / "half").exists()
    assert (folder / "menu.txt").read_text() == "tea\n"


def test_links_are_kept_and_what_they_lead_to_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    folder = shop.edit({})
    (folder / "link").symlink_to(outside)
    (folder / "link2").symlink_to(outside / "file")
    shop.change({})
    shop.promote()
    assert os.readlink(shop.layout.worktree(shop.main) / "link") == str(outside)
    worktrees.discard(shop.layout.worktree(shop.main))
    assert (outside / "file").stat().st_mode & 0o200
    assert stat.S_IMODE(outside.stat().st_mode) != 0o700


def test_the_last_used_are_kept(shop: Shop) -> None:
    commits = make(shop, 6)
    assert there(shop) == set(commits[-worktrees.KEPT :])


def test_what_is_needed_is_kept(shop: Shop) -> None:
    commits = make(shop, 3)
    with shop.program.hold("test") as git:
        worktrees.ensure(shop.layout, git, shop.refs.main.parents[0])
        kept = {shop.refs.by_name["refs/org/base"].commit}
        for commit in kept:
            worktrees.ensure(shop.layout, git, commit)
        os.utime(shop.layout.worktree(commits[0]), (0, 0))
        assert worktrees.prune(shop.layout, commits) == []
        assert worktrees.prune(shop.layout, ()) == [commits[0]]


def test_one_in_which_a_process_works_is_kept(shop: Shop) -> None:
    (first,) = make(shop, 1)
    process = subprocess.Popen(["sleep", "600"], cwd=shop.layout.worktree(first) / "deep")
    try:
        assert first in {first, *make(shop, 4)} & there(shop)
    finally:
        process.kill()
        process.wait()
    make(shop, 1)
    assert first not in there(shop)
