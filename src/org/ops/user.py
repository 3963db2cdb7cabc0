"""The user's own repository: it is looked at, told of ours once, and otherwise left alone.

Its checkout is never touched, and nothing runs that its configuration could name: references are listed,
objects are read as files.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem, UsageError
from org.ops.git import Git, clean_environment

REMOTE = "org"
_HEADS = "refs/heads/"
_ID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Main:
    """The branch of the user's that is their main, and its commit."""

    branch: str
    commit: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """`git` is the folder in which Git keeps the repository, the same for all its working trees."""

    git: Path

    @property
    def folder(self) -> Path:
        """What a person calls the repository."""
        return self.git.parent if self.git.name == ".git" else self.git

    @property
    def objects(self) -> Path:
        return self.git / "objects"

    def main(self, branch: str = "") -> Main:
        """The branch of that name; without one `main`, else `master`, else what is checked out.

        Raises `UsageError` when there is none, `EnvironmentProblem` for a repository that cannot be taken in.
        """
        if not self.git.is_dir():
            raise EnvironmentProblem(f"your repository is gone: {self.folder}", "bring it back, then again")
        if (self.git / "shallow").exists():
            raise EnvironmentProblem(
                f"{self.folder} has not all of its history", f"`git -C {self.folder} fetch --unshallow`"
            )
        if commit := self._loose(branch or "main"):
            return Main(branch or "main", commit)
        lines = Git(self.git).run("for-each-ref", "--format=%(refname)%00%(objectname)%00%(HEAD)", _HEADS)
        heads = [line.split("\0") for line in lines.split("\n") if line]
        tips = {name.removeprefix(_HEADS): commit for name, commit, _ in heads}
        checked_out = [name.removeprefix(_HEADS) for name, _, head in heads if head == "*"]
        for name in [branch] if branch else ["main", "master", *checked_out]:
            if name in tips:
                return Main(name, _commit(tips[name]))
        if branch:
            raise UsageError(f"{self.folder} has no branch {branch} any more, which was your main")
        if tips or _ID.fullmatch(self._head()):
            raise UsageError(
                f"{self.folder} has no branch `main`, and none is checked out",
                f"`git -C {self.folder} branch main` makes one of what is checked out",
            )
        raise UsageError(f"there is no commit yet in {self.folder}", "`git commit` one first")

    def _loose(self, branch: str) -> str:
        """What a branch says when it has a file of its own, as after a commit: Git need not be asked."""
        try:
            text = (self.git / _HEADS / branch).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return text if _ID.fullmatch(text) else ""

    def has_out(self, branch: str) -> bool:
        """Whether a branch is what is checked out; in a bare repository nothing is, and no other is."""
        return self.folder == self.git or self._head() == f"ref: {_HEADS}{branch}"

    def _head(self) -> str:
        try:
            return os.fsdecode((self.git / "HEAD").read_bytes()).strip()
        except OSError:
            return ""

    @property
    def is_partial(self) -> bool:
        """Whether objects were left where it was cloned from, to be fetched when they are needed."""
        return any((self.objects / "pack").glob("*.promisor"))

    @property
    def remote(self) -> str:
        """Where the remote of our name leads; empty when there is none."""
        return self._config(("--get", f"remote.{REMOTE}.url"), fine=(0, 1)).rstrip("\n")

    def add_remote(self, repo: Path) -> bool:
        """Name our repository in theirs, once; False when that name is taken by another."""
        if url := self.remote:
            return url == str(repo)  # as when somebody was killed before the end of this
        for name, value in {
            "url": str(repo),
            "fetch": f"+refs/heads/*:refs/remotes/{REMOTE}/*",
            "tagOpt": "--no-tags",
        }.items():
            self._config((f"remote.{REMOTE}.{name}", value))
        return True

    def _config(self, words: Sequence[str], fine: tuple[int, ...] = (0,)) -> str:
        return Git(self.git).ask("config", "--file", str(self.git / "config"), *words, fine=fine)[1]


def find(cwd: Path) -> Checkout:
    """The repository around a folder. Raises `UsageError`."""
    cwd = cwd.resolve()
    for folder in (cwd, *cwd.parents):
        inner = folder / ".git"
        if inner.is_dir():
            return Checkout(inner.resolve())
        if inner.is_file():
            return Checkout(_linked(inner))
        if (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir():
            return Checkout(folder)
    raise UsageError(f"no Git repository in {cwd} or above", "go into the program's own, or `git init` one")


def author(env: Mapping[str, str]) -> dict[str, str]:
    """Who the user is by their environment or Git settings, as the environment of a candidate's commit."""
    keep = {name: env[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in env}
    named = {"GIT_COMMITTER_EMAIL": "candidate@localhost"}  # whoever the author is, or claims to be
    for variable, key in (("GIT_AUTHOR_NAME", "user.name"), ("GIT_AUTHOR_EMAIL", "user.email")):
        if env.get(variable, "").strip():
            named[variable] = env[variable].strip()
            continue
        seen = clean_environment() | keep
        del seen["GIT_CONFIG_GLOBAL"]
        asked = ["git", "config", "--global", "--includes", "--get", key]
        done = subprocess.run(asked, env=seen, cwd="/", capture_output=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            named[variable] = os.fsdecode(done.stdout).strip()
    return named


def _linked(file: Path) -> Path:
    """The common folder that the `.git` file of a linked working tree leads to."""
    text = os.fsdecode(file.read_bytes()).strip()
    inner = (file.parent / text.removeprefix("gitdir:").strip()).resolve()
    if not text.startswith("gitdir:") or not inner.is_dir():
        raise EnvironmentProblem(
            f"{file} does not lead to a Git repository", "`git worktree repair` mends it"
        )
    common = inner / "commondir"
    return (inner / os.fsdecode(common.read_bytes()).strip()).resolve() if common.is_file() else inner


def _commit(name: str) -> str:
    if not _ID.fullmatch(name):
        raise EnvironmentProblem(
            "the repository names its objects by SHA-256", "only SHA-1 is understood here"
        )
    return name
