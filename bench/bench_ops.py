"""What a promote costs beside the three Git commands that it cannot do without, on 5,000 files.

Git's part is the time spent in all of its commands from a candidate to main and its tag, the making of the
merge among them. The files of the generation are left out: what they cost is reading each of them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from org.ops import candidate, merges, program, sync, verdicts, worktrees
from org.ops.git import Git
from org.ops.layout import Layout
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.promote import promote

_FILES = 5_000
_ROUNDS = 9


def run() -> dict[str, float]:
    """Milliseconds, the least of several, and the ratio of Git's part to the floor, the median of them."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "shop"
        env = {"PATH": os.environ["PATH"], "HOME": place, "XDG_STATE_HOME": place}
        _fill(folder, env)
        here = program.find(folder, env)
        candidate.edit(here)
        rounds = [_round(here, number, env) for number in range(_ROUNDS)]
    floor, gits, whole = (min(figures) for figures in zip(*rounds, strict=True))
    # Of each round by itself: a longer row of commands has fewer chances to meet no other process at all.
    ratio = median(git / bare for bare, git, _ in rounds)
    return {"floor_ms": floor, "promote_git_ms": gits, "promote_ms": whole, "promote_ratio": ratio}


def _round(here: Program, number: int, env: Mapping[str, str]) -> tuple[float, float, float]:
    """(floor, Git's part of a promote, the whole of it) for one more change."""
    (here.layout.candidate / "folder-7" / "file-7").write_text(f"changed {number}\n")
    branch, commit = candidate.commit(here, "change", env)
    floor, _ = _timed(lambda: _bare(here, commit, env))
    with here.hold("bench") as git:
        known, told = sync.current(git)
        made, made_git = _timed(lambda: merges.prepare(git, known, told, branch))
        gate = merges.prepare(git, *sync.current(git), branch)  # which is there now
        verdicts.record(git, gate.merge, {"verdict": "pass"})
    with patch.object(worktrees, "ensure"):
        landed, landed_git = _timed(lambda: promote(here, branch, _judge, _nothing_served))
    return floor, made_git + landed_git, made + landed


def _judge(here: Program, gate: Gate) -> Mapping[str, object]:
    raise AssertionError("it was judged before")


def _bare(here: Program, commit: str, env: Mapping[str, str]) -> None:
    tree = _git(here, env, "merge-tree", "--write-tree", "main", commit)
    name = ("-c", "user.name=x", "-c", "user.email=x")
    merge = _git(here, env, *name, "commit-tree", tree, "-p", "main", "-p", commit, "-m", "merge")
    _git(here, env, "update-ref", "refs/heads/bench", merge)


def _git(here: Program, env: Mapping[str, str], *words: str) -> str:
    argv = ["git", f"--git-dir={here.layout.repo}", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.strip()


def _nothing_served(layout: Layout, commit: str, folder: Path) -> bool:
    return False


def _timed(act: Callable[[], object]) -> tuple[float, float]:
    """The milliseconds that something took, and those of them in Git commands of ours."""
    spent = 0.0
    ask = Git.ask

    def timed_ask(self: Git, *words: str, **options: Any) -> tuple[int, str]:
        nonlocal spent
        began = time.perf_counter()
        answer = ask(self, *words, **options)
        spent += time.perf_counter() - began
        return answer

    with patch.object(Git, "ask", timed_ask):
        began = time.perf_counter()
        act()
        return (time.perf_counter() - began) * 1000, spent * 1000


def _fill(folder: Path, env: Mapping[str, str]) -> None:
    folder.mkdir()
    (folder / "org.toml").write_text('[generation]\nstart = "true"\n')
    for number in range(_FILES):
        place = folder / f"folder-{number % 50}"
        place.mkdir(exist_ok=True)
        (place / f"file-{number}").write_text(f"{number}\n" * 20)
    name = ["-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*name, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=folder, env=dict(env), check=True)


if __name__ == "__main__":
    print(run())
