"""A program: the user's repository, and what `org` keeps of it beside."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem, UsageError
from org.ops import place, user
from org.ops.git import Git, check_version
from org.ops.layout import Layout, programs_folder
from org.ops.lock import hold
from org.ops.user import Checkout


@dataclass(frozen=True, slots=True)
class Program:
    layout: Layout
    checkout: Checkout

    @property
    def begun(self) -> bool:
        """Whether anything of it is kept."""
        return self.layout.repo.is_dir()

    @property
    def pull(self) -> str:
        """What the user types to get our main."""
        return place.pull() or shlex.join(
            ["git", "-C", str(self.checkout.folder), "pull", "--no-rebase", str(self.layout.repo), "main"]
        )

    @contextmanager
    def hold(self, purpose: str) -> Iterator[Git]:
        """The repository, to change it: nobody else does meanwhile. Raises `Busy`."""
        with hold(self.layout, purpose) as fd:
            for left in self.locks():  # Git's own, of somebody who was killed: nobody else is at work
                left.unlink()
            yield self._git(fd)

    def locks(self) -> list[Path]:
        """The files by which a Git command at work, or a killed one, keeps others out."""
        repo = self.layout.repo
        return sorted([*repo.glob("*.lock"), *(repo / "refs").rglob("*.lock")])

    def look(self) -> Git:
        """The repository, to read it."""
        return self._git()

    def _git(self, fd: int = -1) -> Git:
        git = Git(self.layout.repo, fd)
        if self.begun:
            git.restore()
        return git


def find(cwd: Path, env: Mapping[str, str]) -> Program:
    """The program of a folder: of the user's repository, or of what is kept beside it.

    Raises `UsageError` outside of both, `EnvironmentProblem` without a Git that is new enough, and when what
    is kept does not say of which repository it is.
    """
    check_version()
    try:
        cwd, ours = cwd.resolve(), programs_folder(env).resolve()
    except FileNotFoundError:
        raise EnvironmentProblem("the folder in which this was typed is gone", "`cd` to another") from None
    if ours in cwd.parents:
        layout = Layout(ours / cwd.relative_to(ours).parts[0])
        if not layout.source.is_file():
            raise EnvironmentProblem(
                f"it is not known of which repository this is: {layout.source} is gone",
                "`org recover`, in that repository, writes it again",
            )
        return Program(layout, Checkout(Path(os.fsdecode(layout.source.read_bytes()))))
    checkout = user.find(cwd)
    return Program(Layout.of(env, checkout.folder), checkout)


def require(program: Program) -> None:
    """Raises `UsageError` when nothing is kept of the program yet."""
    if not program.begun:
        raise UsageError(
            f"nothing was begun with {program.checkout.folder} yet",
            "`org candidate edit` begins a candidate" + place.other_place(),
        )
