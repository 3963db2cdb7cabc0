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
from org.ops.user import Checkout, Main


@dataclass(frozen=True, slots=True)
class Program:
    layout: Layout
    checkout: Checkout

    @property
    def begun(self) -> bool:
        """Whether anything of it is kept."""
        return self.layout.repo.is_dir()

    def main(self) -> Main:
        """The user's main: a branch once chosen stays it. Raises `UsageError` when there is none."""
        known = self._branch
        try:
            return self.checkout.main(known)
        except UsageError as error:
            if known:
                error.hint = (
                    f"bring it back; or remove {self.layout.branch}: then it is `main`, `master`, or what is"
                    " checked out"
                )
            raise

    def remember(self, main: Main) -> None:
        """Keep which branch is the user's main, unless that is known."""
        if not self._branch:
            self.layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.layout.branch.write_bytes(os.fsencode(main.branch))

    @property
    def _branch(self) -> str:
        try:
            return os.fsdecode(self.layout.branch.read_bytes()).strip()
        except FileNotFoundError:
            return ""

    @property
    def pull(self) -> str:
        """What the user types to get our main."""
        folder, repo = str(self.checkout.folder), str(self.layout.repo)
        if merge := place.merge():
            return f"{merge} {self.look().run('rev-parse', '--short=12', 'refs/heads/main').strip()}"
        return self.on_main(shlex.join(["git", "-C", folder, "pull", "--no-rebase", repo, "main"]))

    def on_main(self, command: str) -> str:
        """A Git command, for the user to type, that is to act on their main and not on another branch."""
        branch = self._branch or "main"
        if self.checkout.has_out(branch):
            return command
        return f"{shlex.join(['git', '-C', str(self.checkout.folder), 'switch', branch])} && {command}"

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
    found = Program(Layout.of(env, checkout.folder), checkout)
    if not found.begun:
        check_version()
        _require_unmoved(found)
    return found


def _require_unmoved(fresh: Program) -> None:
    """Raises `UsageError` when something is kept of the repository by the path that it had before."""
    repo, now = Path(fresh.checkout.remote), fresh.layout
    kept = Layout(repo.parent)
    if repo.name != now.repo.name or kept.root.parent != now.root.parent or not kept.source.is_file():
        return
    before = Checkout(Path(os.fsdecode(kept.source.read_bytes())))
    if not before.git.exists():
        words = ["git", "-C", str(fresh.checkout.folder), "remote", "set-url", user.REMOTE, str(now.repo)]
        moving = shlex.join(["mv", "-T", str(kept.root), str(now.root)])
        raise UsageError(
            f"{fresh.checkout.folder} was {before.folder} before, and what is kept of it has that name still",
            f"`{moving} && {shlex.join(words)} && org recover` goes on with it",
        )


def require(program: Program) -> None:
    """Raises `UsageError` when nothing is kept of the program yet."""
    if not program.begun:
        raise UsageError(
            f"nothing was begun with {program.checkout.folder} yet",
            "`org candidate edit` begins a candidate" + place.other_place(),
        )
