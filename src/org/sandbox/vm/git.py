"""Work into a room's workspace in a machine and out of it, as git objects and nothing else.

What comes from the guest is hostile. It is fetched into a bare repository of our own, checked object by
object, and from there into the user's, below `refs/remotes/org`: no git of this host runs in a tree that
the guest wrote, and nothing is checked out.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from org.errors import Busy, Conflict, EnvironmentProblem, UsageError
from org.ports import Command, ExecResult
from org.sandbox.vm import git_guest
from org.sandbox.vm.channel import Channel
from org.sandbox.vm.git_host import Repository, reason
from org.sandbox.vm.git_stream import MOST_S, Intake, Talked, talk
from org.wording import one_line

WORKSPACE = "workspace"
"""What a fetched workspace itself is called, beside its branches."""

Relation: TypeAlias = Literal["first", "new", "contained", "unrelated"]
"""Of a commit to what is checked out: nothing is; it has more; it has no more; they share nothing."""

_PLAIN = re.compile(r"[a-zA-Z0-9._/-]+")  # a name that a person may be told to type
_TAKEN = ("main", "cand")  # by programs, beside the branches of rooms
_SETTLE_S = 300.0
_FROM = "org.from"  # the repositories that were pushed from, in the settings of our own


@dataclass(frozen=True, slots=True)
class Pushed:
    """`left` are the paths with changes that no commit holds, which therefore stayed here."""

    branch: str
    commit: str
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """`branches` are names with their commits, as the guest chose them. `best` is one that is as the
    workspace is, of letters that mean nothing to a shell."""

    branches: dict[str, str]
    best: str


class Workspace:
    """The workspace of `room` in a machine, which `reach` connects to. `own` is the bare repository for
    what comes from there; `remote` is what its branches are called after in a user's repository:
    `<remote>/<room>/<branch>`."""

    def __init__(
        self, reach: Callable[[], AbstractAsyncContextManager[Channel]], room: str, own: Path, remote: str
    ) -> None:
        self.room = room
        self.own = own
        self.below = f"{remote}/{room}"
        self._reach = reach

    async def push(
        self, repository: Repository, on_said: Callable[[bytes], None] = lambda line: None
    ) -> Pushed:
        """Make the workspace a checkout of the branch that is checked out in `repository`.

        Raises `Conflict` when work that is in it would be lost, and then nothing is changed; `UsageError`
        for a repository without such a branch, `SandboxGone`, `EnvironmentProblem`.
        """
        branch, commit = await _head(repository)
        pushed = Pushed(branch, commit, await _uncommitted(repository))
        async with self._held() as own, self._reach() as channel:
            known = _lines(await own.asked("config", "-z", "--get-all", _FROM))
            if (place := await common(repository)) not in known:
                await own.ask("config", "--add", _FROM, place)
            words = [
                "-c",
                "push.pushOption=",
                "push",
                "--progress",
                "--no-verify",
                "--no-follow-tags",
                "--no-signed",
            ]
            words += ["--recurse-submodules=no", "--no-force-if-includes"]
            target = [f"+{commit}:refs/remotes/host/{branch}"]
            script = ["sh", "-c", git_guest.RECEIVE, "sh", branch, self.room]
            talked = await talk_in_time(repository, words, target, channel, script, Intake(), on_said)
            check_talked(talked)
            # To stop it half way would leave the workspace so.
            settling = asyncio.create_task(self._settle(channel, branch))
            try:
                result = await asyncio.shield(settling)
            except asyncio.CancelledError:
                await settling
                raise
        self._check_settled(result, branch)
        return pushed

    async def fetch(
        self, on_said: Callable[[bytes], None] = lambda line: None, *, intake: Intake | None = None
    ) -> Fetched:
        """Bring the branches of the workspace, and the workspace as it is, into our own repository.

        Raises `UsageError` when it is empty, `SandboxGone`, `EnvironmentProblem`; our own repository is
        then as it was.
        """
        words = ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        words += ["--no-auto-maintenance", "--atomic", "--prune", "--update-shallow"]
        wanted = ["+refs/heads/*:refs/org/heads/*", f"+refs/org/{WORKSPACE}:refs/org/{WORKSPACE}"]
        async with self._held() as own, self._reach() as channel:
            script = ["sh", "-c", git_guest.UPLOAD]
            talked = await talk_in_time(own, words, wanted, channel, script, intake or Intake(), on_said)
            if talked.code == git_guest.EMPTY:
                raise UsageError(f"there is nothing in the workspace `{self.room}`", "`org vm push` fills it")
            check_talked(talked)
            return await _fetched(own)

    async def deliver(self, repository: Repository) -> None:
        """Bring what was fetched into a user's repository, where only branches of that remote change."""
        below = f"refs/remotes/{self.below}"
        await repository.ask(
            *("-c", "protocol.file.allow=always", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"),
            *("--no-recurse-submodules", "--no-auto-maintenance", "--no-prune", "--atomic", str(self.own)),
            *(f"+refs/org/heads/*:{below}/*", f"^refs/org/heads/{WORKSPACE}"),
            f"+refs/org/{WORKSPACE}:{below}/{WORKSPACE}",
        )

    async def pushed_from(self, repository: Repository) -> bool:
        """Whether work was pushed from that repository."""
        if not self.own.is_dir():
            return False
        known = _lines(await Repository(self.own, own=True).asked("config", "-z", "--get-all", _FROM))
        return await common(repository) in known

    # -- how

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Repository]:
        """Our own repository, with nobody else at work there or in the workspace for the block."""
        self.own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.own.with_suffix(".lock"), self.room):
            own = await own_at(self.own)
            try:
                yield own
            finally:
                tidy(self.own)

    async def _settle(self, channel: Channel, branch: str) -> ExecResult:
        words = ["sh", "-c", git_guest.SETTLE, "sh", branch]
        env = [f"{name}={value}" for name, value in git_guest.ENV.items()]
        return await channel.exec(Command(["env", *env, *words], timeout_s=_SETTLE_S))

    def _check_settled(self, result: ExecResult, branch: str) -> None:
        said = result.head + result.tail
        hint = f"`org vm fetch --room {self.room}`, merge what it brings, and push again"
        if result.exit_code == git_guest.DIVERGED:
            raise Conflict(f"the workspace `{self.room}` has commits that `{branch}` here has not", hint)
        if result.exit_code == git_guest.IN_THE_WAY:
            files = [
                one_line(line, 80) for line in said.decode(errors="replace").splitlines() if line[:1] == "\t"
            ]
            what = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
            raise Conflict(
                f"the workspace `{self.room}` has changes that would be lost: {what or reason(said)}", hint
            )
        if result.exit_code:
            raise EnvironmentProblem(f"git in the machine failed: {reason(said)}")


async def own_at(path: Path) -> Repository:
    """The bare repository of our own at that path, made when it is missing. Nobody else is in there."""
    if not (path / "config").exists():
        new = path.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        await Repository(new, own=True).ask("init", "-q", "--bare", "--template=", str(new))
        new.rename(path)
    tidy(path)
    return Repository(path, own=True)


async def repository_of(folder: Path) -> Repository:
    """The repository that a folder is in. Raises `UsageError`."""
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    found = Repository(folder)
    done = await found.run(("rev-parse", "--git-dir"))
    if done.code:
        raise UsageError(f"{folder} is in no git repository: {reason(done.said)}", "`git init` makes one")
    return found


async def common(repository: Repository) -> str:
    """The folder of a repository's objects, which all its checkouts share."""
    words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    return os.path.realpath(await repository.ask(*words))


async def relation(repository: Repository, commit: str) -> Relation:
    """How `commit` stands to what is checked out in `repository`."""
    head = await repository.asked("rev-parse", "-q", "--verify", "HEAD^{commit}")
    if not head:
        return "first"
    base = await repository.asked("merge-base", head, commit)
    if not base:
        return "unrelated"
    return "contained" if base == commit else "new"


async def check_room(room: str) -> None:
    """Raises `UsageError` for a room after which no branch can be called."""
    if room in _TAKEN:
        raise UsageError(
            f"the branches of a room `{room}` would be called as those of candidates and their main",
            "`--room` names another",
        )
    done = await Repository(Path("/"), own=True).run(("check-ref-format", f"refs/org/{room}"))
    if done.code:
        raise UsageError(f"no git branch can be called after the room `{room}`")


async def _head(repository: Repository) -> tuple[str, str]:
    """(branch, commit) that is checked out. Raises `UsageError`."""
    commit = await repository.asked("rev-parse", "-q", "--verify", "HEAD^{commit}")
    if not commit:
        raise UsageError(f"{repository.path} has no commit yet", "`git commit` makes one")
    branch = await repository.asked("symbolic-ref", "-q", "--short", "HEAD")
    if not branch:
        raise UsageError(f"no branch is checked out in {repository.path}", "`git switch -c NAME` makes one")
    if await repository.ask("rev-parse", "--show-object-format") != "sha1":
        raise UsageError(f"{repository.path} names its objects by SHA-256; only SHA-1 can be pushed")
    return branch, commit


async def _uncommitted(repository: Repository) -> tuple[str, ...]:
    if await repository.ask("rev-parse", "--is-bare-repository") == "true":
        return ()
    entries = (await repository.ask("status", "--porcelain=v1", "-z", "--no-renames")).split("\0")
    return tuple(one_line(entry[3:] if entry[2:3] == " " else entry[2:], 200) for entry in entries if entry)


async def talk_in_time(
    repository: Repository,
    words: list[str],
    refspecs: list[str],
    channel: Channel,
    script: list[str],
    intake: Intake,
    on_said: Callable[[bytes], None],
) -> Talked:
    """`git_stream.talk`, within the time that it may take. Raises `EnvironmentProblem`."""
    try:
        async with asyncio.timeout(MOST_S):
            return await talk(
                *(repository, words, refspecs),
                channel=channel,
                argv=script,
                env=git_guest.ENV,
                intake=intake,
                on_said=on_said,
            )
    except TimeoutError as error:
        raise EnvironmentProblem(f"git in the machine was not done within {MOST_S:g} s") from error


def check_talked(talked: Talked) -> None:
    """Raises what went wrong; the guest's own words when it gave up first."""
    if talked.code and talked.said.strip():
        raise EnvironmentProblem(f"git in the machine failed: {reason(talked.said)}")
    if talked.host.code:
        raise EnvironmentProblem(f"git failed: {reason(talked.host.said)}")


async def _fetched(own: Repository) -> Fetched:
    told = await own.ask("for-each-ref", "--format=%(refname) %(objectname)", "refs/org")
    refs = dict(line.rsplit(" ", 1) for line in told.splitlines())
    workspace = refs.pop(f"refs/org/{WORKSPACE}")
    branches = {name.removeprefix("refs/org/heads/"): commit for name, commit in sorted(refs.items())}
    plain = [name for name in branches if _PLAIN.fullmatch(name) and name != WORKSPACE]
    same = [name for name in plain if branches[name] == workspace]
    best = "main" if "main" in same else same[0] if same else WORKSPACE
    return Fetched(branches | {WORKSPACE: workspace}, best)


@contextmanager
def _locked(path: Path, room: str) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Busy(f"another push or fetch of the workspace `{room}` is under way") from error
    finally:
        os.close(fd)


def tidy(own: Path) -> None:
    """Remove what a git that was killed leaves behind. Nobody else is in there."""
    for stray in (*own.glob("objects/pack/tmp_*"), *own.glob("objects/*/tmp_obj_*"), *own.rglob("*.lock")):
        stray.unlink(missing_ok=True)


def _lines(text: str) -> list[str]:
    return [part for part in text.split("\0") if part]
