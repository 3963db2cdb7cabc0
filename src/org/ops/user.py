"""The user's own repository: it is looked at, told of ours once, and otherwise left alone.

Its checkout is never touched, and nothing runs that its configuration could name: references are listed,
objects are read as files.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem, UsageError
from org.ops.git import Git, clean_environment

REMOTE = "org"
_ID = re.compile(r"[0-9a-f]{40}")


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

    def main(self) -> str:
        """The commit of `main`, else of `master`, else of the branch that is checked out.

        Raises `UsageError` without any, `EnvironmentProblem` for a repository that cannot be taken in.
        """
        if (self.git / "shallow").exists():
            raise EnvironmentProblem(
                f"{self.folder} has not all of its history", f"`git -C {self.folder} fetch --unshallow`"
            )
        if main := self._loose_main():
            return main
        lines = Git(self.git).run("for-each-ref", "--format=%(refname) %(objectname) %(HEAD)", "refs/heads")
        heads = {name: commit for name, commit, *_ in map(str.split, lines.splitlines())}
        checked_out = [line.split()[0] for line in lines.splitlines() if line.endswith("*")]
        for name in ("refs/heads/main", "refs/heads/master", *checked_out):
            if name in heads:
                return _commit(heads[name])
        raise UsageError(f"there is no commit yet in {self.folder}", "`git commit` one first")

    def _loose_main(self) -> str:
        """What `main` says when it has a file of its own, as it has after a commit: Git need not be asked."""
        try:
            text = (self.git / "refs" / "heads" / "main").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return text if _ID.fullmatch(text) else ""

    def add_remote(self, repo: Path) -> bool:
        """Name our repository in theirs, once; False when that name is taken by another."""
        config = Git(self.git)
        file = ("config", "--file", str(self.git / "config"))
        missing, url = config.ask(*file, "--get", f"remote.{REMOTE}.url", fine=(0, 1))
        if not missing:
            return url.rstrip("\n") == str(repo)  # as when somebody was killed before the end of this
        config.run(*file, f"remote.{REMOTE}.url", str(repo))
        config.run(*file, f"remote.{REMOTE}.fetch", f"+refs/heads/*:refs/remotes/{REMOTE}/*")
        config.run(*file, f"remote.{REMOTE}.tagOpt", "--no-tags")
        return True


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
    """Who the user is by their own Git settings, as the environment of a commit; nothing when unknown."""
    keep = {name: env[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in env}
    named = {}
    for variable, key in (("GIT_AUTHOR_NAME", "user.name"), ("GIT_AUTHOR_EMAIL", "user.email")):
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
