"""The kit's program in a repository of a user's: trusted, with ports of its own, and served by `org`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import generation_kit
from generation_kit import end, free_port
from ops_kit import Shop


class Program(Shop):
    """`ports` are current's and the candidate's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = [free_port(), free_port()]
        self.settle("well")

    def settle(self, mode: str, **more: object) -> str:
        """Commit how it starts, and trust that."""
        commit = self.declare(mode, **more)
        assert self.org("trust").returncode == 0
        return commit

    def declare(self, mode: str, **more: object) -> str:
        """Commit how it starts; what is `rest` comes after that."""
        rest = more.pop("rest", "")
        start = [sys.executable, generation_kit.__file__, mode]
        table = {"start": start, "contract": 1, "ports": self.ports, **more}
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
        text = "\n".join(("[generation]", *lines, f"{rest}\n"))
        return self.save(f"be {mode} {more} {rest}", {"org.toml": text})

    def commit(self, files: Mapping[str, str]) -> str:
        """A commit of the candidate with these files."""
        branch = self.change(files)
        return self.refs.branch(branch).commit

    def told(self, *words: str) -> dict[str, Any]:
        done = self.org(*words, "--json")
        assert done.stderr == ""
        told: dict[str, Any] = json.loads(done.stdout)
        assert (told["v"], told["code"]) == (1, done.returncode)
        return told


@contextmanager
def program(folder: Path) -> Iterator[Program]:
    """One of which nothing is served afterwards."""
    made = Program(folder)
    yield made
    if made.program.begun:
        supervisor = made.told("status")["supervisor"]
        if supervisor is not None:
            end(supervisor["pid"])
