"""A program in a repository of a user's, with a state folder of its own, and what is done with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from org.ops import candidate, history, merges, program, refs, steps, sync, verdicts
from org.ops.git import Git
from org.ops.history import History
from org.ops.layout import Layout
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.promote import Promoted, promote
from org.ops.refs import Refs
from org.ops.rollback import RolledBack, rollback

SETTINGS = '[generation]\nstart = "python -m shop"\n'
PASS = {"verdict": "pass"}


def passing(program: Program, gate: Gate) -> Mapping[str, object]:
    return PASS


def idle(layout: Layout, commit: str, folder: Path) -> bool:
    """As when nothing is served."""
    return False


class Shop:
    """`files` are what the user's main begins with, beside the settings."""

    def __init__(self, folder: Path, files: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.checkout = folder / "shop"
        self.checkout.mkdir(parents=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        (folder / "home").mkdir()
        (folder / "home" / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
        self.git("init", "-q", "-b", "main")
        self.save("begin", {"org.toml": SETTINGS, **(files or {"menu.txt": "tea\n"})})

    # -- the user, in their own checkout

    def git(self, *words: str, input: str = "") -> str:
        return subprocess.run(
            ["git", *words],
            cwd=self.checkout,
            env=self.env,
            input=input,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def save(self, message: str, files: Mapping[str, str]) -> str:
        """Commit files in the checkout; gives the commit."""
        put(self.checkout, files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def literally(self, kind: str, raw: bytes) -> str:
        """An object in the user's repository as Git itself would not write it."""
        return literally(self.checkout / ".git", kind, raw)

    def org(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """`org WORDS` in the checkout, as a process."""
        return subprocess.run(
            [sys.executable, "-m", "org", *words],
            cwd=self.checkout,
            env=self.env | extra,
            capture_output=True,
            text=True,
            check=False,
        )

    # -- what is kept of it

    @property
    def program(self) -> Program:
        return program.find(self.checkout, self.env)

    @property
    def layout(self) -> Layout:
        return self.program.layout

    @property
    def repo(self) -> Git:
        return self.program.look()

    @property
    def refs(self) -> Refs:
        return refs.read(self.repo)

    @property
    def main(self) -> str:
        return self.refs.main.commit

    @property
    def history(self) -> History:
        return history.read(self.repo, self.refs)

    def files(self, commit: str = "refs/heads/main") -> dict[str, str]:
        """The files of a commit but for the settings."""
        names = self.repo.run("ls-tree", "-r", "-z", "--name-only", commit).rstrip("\0").split("\0")
        return {
            name: self.repo.ask("cat-file", "blob", f"{commit}:{name}")[1]
            for name in names
            if name != "org.toml"
        }

    # -- what is done

    def edit(self, files: Mapping[str, str], *, new: bool = False) -> Path:
        """Change files of the candidate, which is begun when there is none; gives its folder."""
        opened = candidate.edit(self.program, new=new)
        put(opened.folder, files)
        return opened.folder

    def change(self, files: Mapping[str, str], *, new: bool = False, message: str = "change") -> str:
        """The same, committed; gives the branch."""
        self.edit(files, new=new)
        return candidate.commit(self.program, message, self.env)[0]

    def promote(self, branch: str = "", *, swap: steps.Swap = idle) -> Promoted:
        return promote(self.program, branch, passing, swap)

    def rollback(self, *, swap: steps.Swap = idle) -> RolledBack:
        return rollback(self.program, swap)

    def gate(self, branch: str = "") -> Gate:
        """Pinned, and passed."""
        with self.program.hold("gate") as git:
            known, told = sync.current(git)
            gate = merges.prepare(git, known, told, branch or candidate.branch_of(self.program))
            verdicts.record(git, gate.merge, PASS)
        return gate


def raw_commit(
    shop: Shop, parents: tuple[str, ...], message: bytes, author: str, committer: str, encoding: str = ""
) -> str:
    """A commit in our repository as nobody would write it, with the files of its first parent."""
    lines = [f"tree {shop.repo.run('rev-parse', f'{parents[0]}^{{tree}}')}"]
    lines += [f"parent {parent}" for parent in parents]
    lines += [f"author {author} 5 +0000", f"committer {committer} 5 +0000"]
    lines += [f"encoding {encoding}"] if encoding else []
    raw = "\n".join(lines).encode() + b"\n\n" + message
    return literally(shop.layout.repo, "commit", raw)


def literally(folder: Path, kind: str, raw: bytes) -> str:
    """Make an object in a repository, whatever is in it."""
    argv = ["git", f"--git-dir={folder}", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(argv, input=raw, capture_output=True, check=True).stdout.decode().strip()


def put(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
