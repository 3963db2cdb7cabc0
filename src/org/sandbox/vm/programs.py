"""A program and its generations in a machine: its commits go in, main comes out, as git objects alone.

The verbs are carried out by the root of the guest, who alone can look at what they keep: current runs as
`org`, a candidate as `cand`, and the models' commands as `job`. What comes from there is hostile, and taken
in as that of a workspace is: see `git.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem
from org.ports import Command, ExecResult
from org.sandbox.vm import git_programs as scripts
from org.sandbox.vm.channel import Attached, Channel, Surroundings
from org.sandbox.vm.git import check_talked, own_at, talk_in_time, tidy
from org.sandbox.vm.git_host import Repository, reason
from org.sandbox.vm.git_stream import Intake
from org.sandbox.vm.install import CURRENT

MOST_FILE = 16 * 1024**2
"""Bytes of a file that a verb reads or writes on the host."""

_HOME = "/root"
_PIDS = 2048
_ENDED = {
    scripts.LOST: "the machine was booted since",
    scripts.ENDED_THERE: "the program's supervisor was ended, with all that it watched over",
}
_DONE_S = 120.0
_ENV = {"HOME": _HOME, "XDG_STATE_HOME": scripts.STATE}


@dataclass(frozen=True, slots=True)
class Names:
    """Paths in the guest: of the program's repository as its user's is here, and of what is kept of it;
    the job in which it is supervised, and the folder in which its user has it."""

    repository: str
    kept: str
    job: str
    folder: str


async def ended(reach: Callable[[Surroundings], AbstractAsyncContextManager[Channel]]) -> bool:
    """Whether a machine that was booted served generations before."""
    async with reach(Surroundings(_HOME, "root")) as channel:
        return (await channel.exec(Command(["sh", "-c", scripts.ENDED]))).exit_code == scripts.LOST


class ProgramThere:
    """A program in a machine that is up, which `reach` connects to. `own` is the bare repository of this
    host for what comes out; `memory` is that of the machine, in bytes."""

    def __init__(
        self,
        reach: Callable[[Surroundings], AbstractAsyncContextManager[Channel]],
        memory: int,
        names: Names,
        own: Path,
    ) -> None:
        self.names = names
        self._reach = reach
        self._memory = memory
        self._own = own

    # -- in

    async def bring(
        self, repository: Repository, main: str, on_said: Callable[[bytes], None] = lambda line: None
    ) -> None:
        """Make that commit the main of the repository there; nothing is sent when it is."""
        async with self._held():
            pass  # by which this host knows that the program is there, also while the machine is down
        called = (self.names.repository, self.names.folder)
        async with self._channel() as channel:
            looked = await channel.exec(Command(["sh", "-c", scripts.LOOK, "sh", *called]))
            _check("look for the program", looked)
            if looked.head.decode(errors="replace").strip() == main:
                return
            words = ["-c", "push.pushOption=", "push", "--progress", "--no-verify", "--no-follow-tags"]
            words += ["--no-signed", "--recurse-submodules=no", "--no-force-if-includes"]
            target = [f"+{main}:refs/heads/main"]
            script = ["sh", "-c", scripts.RECEIVE, "sh", *called]
            check_talked(await talk_in_time(repository, words, target, channel, script, Intake(), on_said))

    async def trust(self, text: str) -> None:
        """Have what that `org.toml` says be started there: the person trusts it here."""
        words = ["python3", "-I", "-c", scripts.TRUST, f"{scripts.STATE}/org/trust.json"]
        async with self._channel() as channel:
            result = await channel.exec(Command([*words, self.names.repository], text.encode()))
        _check("note what is trusted", result)

    async def put(self, path: Path, name: str) -> str:
        """A copy of a file of this host; its path there. Raises `EnvironmentProblem`."""
        try:
            with path.open("rb") as file:
                data = file.read(MOST_FILE + 1)
        except OSError as error:
            raise EnvironmentProblem(f"cannot read {path}: {error.strerror}") from error
        if len(data) > MOST_FILE:
            raise EnvironmentProblem(f"{path} has more than {MOST_FILE:,} bytes")
        async with self._channel() as channel:
            await channel.write_file(_below_home(name), data)
        return path_there(name)

    # -- what runs there

    async def supervise(self) -> str:
        """Have its supervisor run, as a job. Says why what was served there has ended with a supervisor of
        before; nothing when it has not."""
        async with self._channel() as channel:
            if any(job.name == self.names.job and job.code is None for job in await channel.jobs()):
                return ""
            before = await self._done(channel, scripts.BEFORE, (0, *_ENDED))
        there = Surroundings(_HOME, "root", _ENV, _shared(self._memory), _PIDS)
        async with self._reach(there) as channel:
            await channel.detach(
                self.names.job, ["sh", "-c", scripts.SUPERVISE, "sh", self.names.kept, CURRENT]
            )
            await self._done(channel, scripts.AFTER)
        return _ENDED.get(before, "")

    async def renew(self) -> None:
        """Have what supervises be of the version of org that is installed now. What is served goes on."""
        async with self._channel() as channel:
            await self._done(channel, scripts.RENEW)
            await self._done(channel, scripts.AFTER)

    @asynccontextmanager
    async def running(self, words: Sequence[str], env: Mapping[str, str]) -> AsyncIterator[Attached]:
        """`org WORDS` there, in the program's repository, with nothing to read."""
        async with self._channel() as channel:
            argv = [f"{CURRENT}/bin/org", *words]
            async with channel.attached(argv, cwd=self.names.repository, env=env) as org:
                org.finish()
                yield org

    # -- out

    async def deliver(self, repository: Repository) -> None:
        """Bring main and the candidates into a user's repository, as `org/main` and `org/cand/...`, where
        nothing else changes. Without a program there, nothing is done."""
        words = ["fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        words += ["--no-auto-maintenance", "--atomic", "--prune"]
        wanted = ["+refs/heads/main:refs/org/heads/main", "+refs/heads/cand/*:refs/org/heads/cand/*"]
        script = ["sh", "-c", scripts.UPLOAD, "sh", f"{self.names.kept}/repo.git"]
        async with self._held() as own, self._channel() as channel:
            talked = await talk_in_time(own, words, wanted, channel, script, Intake(), lambda line: None)
            if talked.code == scripts.NO_PLACE:
                return
            check_talked(talked)
            await repository.ask(
                *("-c", "protocol.file.allow=always", "fetch", "--quiet", "--no-tags"),
                *("--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance", "--no-prune"),
                *("--atomic", str(self._own), "+refs/org/heads/main:refs/remotes/org/main"),
                "+refs/org/heads/cand/*:refs/remotes/org/cand/*",
            )

    async def taken(self, name: str) -> bytes | None:
        """A file that a verb wrote at `path_there(name)`, which is removed there; None when it wrote none."""
        path = path_there(name)
        async with self._channel() as channel:
            if (await channel.exec(Command(["test", "-f", path]))).exit_code:
                return None
            data = await channel.read_file(_below_home(name), MOST_FILE)
            await channel.exec(Command(["rm", "-f", path]))
            return data

    # -- how

    def _channel(self) -> AbstractAsyncContextManager[Channel]:
        return self._reach(Surroundings(_HOME, "root", _ENV, self._memory // 2))

    async def _done(self, channel: Channel, script: str, fine: tuple[int, ...] = (0,)) -> int:
        words = ["sh", "-c", script, "sh", self.names.kept]
        result = await channel.exec(Command(words, timeout_s=_DONE_S))
        _check("start the program's supervisor", result, fine)
        return result.exit_code

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Repository]:
        """Our own repository, with nobody else at work there; who is, is waited for."""
        self._own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._own.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            yield await own_at(self._own)
            tidy(self._own)
        finally:
            os.close(lock)


def _shared(memory: int) -> int:
    """What all that is served of a program may use: it leaves the machine enough to live, and to judge."""
    return memory // 4 * 3


def path_there(name: str) -> str:
    """Where a file that a verb reads or writes is in the guest."""
    return f"{scripts.FILES}/{name}"


def _below_home(name: str) -> str:
    return path_there(name).removeprefix(f"{_HOME}/")


def _check(what: str, result: ExecResult, fine: tuple[int, ...] = (0,)) -> None:
    if result.timed_out or result.exit_code not in fine:
        said = reason(result.head + result.tail)
        raise EnvironmentProblem(f"the machine cannot {what}: {said}", "`org vm shell --root` looks into it")
