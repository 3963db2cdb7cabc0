"""Where everything of one program lies: names only, nothing is read or made here.

A program is a Git repository whose `org.toml` says how a generation starts. What `org` keeps of it is one
folder in the user's state folder, readable by the user alone:

    repo.git/            the truth: refs/heads/main of a bare repository of our own
    lock                 held by whoever changes anything here
    pending.json         the operation that is under way, from before its first effect to after its last
    source               the path of the user's repository
    branch               which branch of it is their main
    generations/COMMIT/  the files of one commit, made once and never changed
    candidate/           the work folder of the candidate, a clone of its own
    candidate.json       which branch is edited there
    state/               what the candidate keeps: its rooms, its token
    run/                 the supervisor's socket, pid and logs, and the sockets of the keepers
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Colour: TypeAlias = Literal["current", "candidate"]

_MOST_NAME = 100
"""Bytes of the repository's name: that is for people, the digest makes it one of its own."""


def state_folder(env: Mapping[str, str]) -> Path:
    """The user's state folder of `org`; follows XDG, which says to ignore a relative path."""
    named = env.get("XDG_STATE_HOME", "")
    home = Path(env.get("HOME") or Path.home())
    return (Path(named) if named.startswith("/") else home / ".local" / "state") / "org"


@dataclass(frozen=True, slots=True)
class Layout:
    """The names below `root`, the folder of one program."""

    root: Path

    @classmethod
    def of(cls, env: Mapping[str, str], repository: Path) -> Layout:
        """`repository` is the real path of the folder of the user's repository."""
        digest = hashlib.sha256(os.fsencode(repository)).hexdigest()[:8]
        name = os.fsencode(repository.name.removesuffix(".git"))[:_MOST_NAME].decode("utf-8", "ignore")
        return cls(programs_folder(env) / f"{name or 'program'}-{digest}")

    @property
    def repo(self) -> Path:
        return self.root / "repo.git"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def pending(self) -> Path:
        return self.root / "pending.json"

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def branch(self) -> Path:
        return self.root / "branch"

    @property
    def generations(self) -> Path:
        return self.root / "generations"

    def worktree(self, commit: str) -> Path:
        return self.generations / commit

    @property
    def candidate(self) -> Path:
        return self.root / "candidate"

    @property
    def candidate_state(self) -> Path:
        return self.root / "candidate.json"

    @property
    def candidate_home(self) -> Path:
        return self.root / "state"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "pid"

    @property
    def supervisor_log(self) -> Path:
        return self.run / "supervisor.log"

    def log(self, colour: Colour) -> Path:
        return self.run / f"{colour}.log"


def programs_folder(env: Mapping[str, str]) -> Path:
    """The folder of all programs."""
    return state_folder(env) / "programs"
