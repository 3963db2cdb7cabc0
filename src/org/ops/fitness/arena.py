"""Where generations are tried: each a process of its own with a home of its own, as contained as a candidate
is, on a port that nobody else knows.

Neither what is served nor the candidate that somebody has started takes part. Both sides of a comparison
are started alike, so that nothing but their commits tells them apart, and nothing that they are given says
that they are tried: their places have names that say nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from org.errors import ConfigError, EnvironmentProblem
from org.ops import cgroups, family, streams
from org.ops.fitness.ask import Door
from org.ops.fitness.rules import Ask
from org.ops.generation import Ended, Generation
from org.ops.keeper import forget
from org.ops.layout import Layout
from org.ops.listener import bind
from org.ops.plan import Plan, environment
from org.ops.planning import account_of_candidate, make_plan

MOST_STARTS = 4
"""One that ends by itself is started again, but not for ever."""
_ACK_S = 2.0
_MOST_TOKEN = 4096


def place_of(layout: Layout) -> Layout:
    """The folder of all that is tried of a program; its lock says that somebody tries."""
    return Layout(layout.root / "aside")


class Side:
    """One generation in the arena. `crashes` is how often it ended by itself."""

    def __init__(self, program: Layout, name: str, commit: str, folder: Path, ask: Ask) -> None:
        self.name = name
        self.commit = commit
        self.crashes = 0
        self._program = program
        self._place = Layout(place_of(program).root / secrets.token_hex(4))
        self._folder = folder
        self._ask = ask
        self._port = 0
        self._generation: Generation | None = None
        self._plan: Plan | None = None

    @property
    def door(self) -> Door:
        """Where it answers. Its token is whatever its file holds, if that is its own file."""
        return Door(self._port, self._ask, self._token())

    @property
    def log(self) -> Path:
        """What it says. What was said before, by whoever had its name, is there too."""
        return place_of(self._program).root / f"{self.name}.log"

    @property
    def drain_s(self) -> float:
        assert self._plan is not None
        return self._plan.drain_s

    @property
    def speaks(self) -> bool:
        """Whether it knows the contract itself."""
        return self._plan is not None and self._plan.speaks

    @property
    def shared(self) -> str:
        """Why it runs as ourselves; empty when it does not."""
        return self._plan.shared if self._plan else ""

    @property
    def ended(self) -> Ended | None:
        """How it has ended, if it has."""
        if self._generation is None or not self._generation.ended.done():
            return None
        return self._generation.ended.result()

    def again(self, after: Side | None = None) -> Side:
        """The same generation once more, in a place of its own, or in that of another, which has ended."""
        side = Side(self._program, self.name, self.commit, self._folder, self._ask)
        if after is not None:
            side._place = after._place
        return side

    # -- its life

    async def start(self) -> None:
        """Start it, and wait until it names its commit and takes connections. Raises `EnvironmentProblem`
        with its last words."""
        await self._open(self._planned())
        assert self._generation is not None
        plan, new = self._generation.plan, self._generation
        try:
            await new.becomes_healthy(plan.ready_s)
            new.go()
            if not await new.says("accepting", plan.ready_s):
                raise EnvironmentProblem(f"{plan.short} was told to go and did not take connections")
        except EnvironmentProblem as error:
            new.kill()
            words = await new.last_words()
            raise EnvironmentProblem(
                error.message, f"its last words:\n{words}" if words else "it said nothing"
            ) from None

    async def revive(self) -> bool:
        """Whether it runs: when it has ended by itself it is started again, some times."""
        if self.ended is None:
            return True
        self.crashes += 1
        if self.crashes >= MOST_STARTS:
            return False
        try:
            await self.start()
        except EnvironmentProblem:
            return False
        return True

    async def run(self, argv: Sequence[str], env: Mapping[str, str], seconds: float) -> Ended | None:
        """Run a command among its files instead of it; None when it had to be ended. Raises
        `EnvironmentProblem`."""
        plan = self._planned()
        await self._open(replace(plan, argv=tuple(argv), more={**plan.more, **env}, speaks=False))
        assert self._generation is not None
        await streams.first_of(self._generation.ended, seconds=seconds)
        in_time = self._generation.ended.done()
        if not in_time:
            self._generation.kill()
        ended = await self._generation.ended
        self._close()
        return ended if in_time else None

    async def health(self) -> Mapping[str, object]:
        return await self._generation.health() if self._generation else {}

    async def drain(self) -> bool:
        """Tell it to drain; whether it says in time that it does."""
        assert self._generation is not None
        self._generation.drain()
        return await self._generation.says("draining", _ACK_S) or self._generation.ended.done()

    async def gone(self) -> Ended:
        """How it ended, once it has."""
        assert self._generation is not None
        return await self._generation.ended

    async def stop(self) -> None:
        """End it now, with all that descends from it."""
        if self._generation is not None:
            self._generation.kill()
            await self._generation.ended
        self._close()

    @property
    def home(self) -> Path:
        """Its state folder."""
        return self._place.candidate_home

    # -- how it is started

    def _planned(self) -> Plan:
        """As a candidate is started, in a place of its own. Raises `EnvironmentProblem`, also when its files
        do not say how: it may have removed them."""
        account_of_candidate(self._program, self._folder)  # opens the way to the files
        self._place.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:  # whoever it runs as has to get to its home
            place_of(self._program).root.chmod(0o711)
        given = environment(os.environ, "candidate")
        try:
            plan = make_plan(self._place, "candidate", self.commit, self._folder, given)
        except ConfigError as error:
            raise EnvironmentProblem(
                f"{self.commit[:12]} cannot be started from its files: {error.message}", error.hint
            ) from None
        self._plan = replace(plan, log=str(self.log), lasts=False)
        return self._plan

    async def _open(self, plan: Plan) -> None:
        self._close()
        # Its keeper alone holds the socket: when that has ended, nobody waits there for an answer.
        with bind(0) as listener:
            self._port = listener.getsockname()[1]
            self._generation = await Generation.start(plan, listener)

    def _close(self) -> None:
        if self._generation is not None:
            self._generation.leave()
            self._generation = None

    def _token(self) -> str:
        if not self._ask.token:
            return ""
        assert self._plan is not None
        owner = self._plan.uid if self._plan.uid >= 0 else os.geteuid()
        return read_own(self.home / self._ask.token, owner)


def read_own(path: Path, owner: int) -> str:
    """A small file of that user, or nothing: whoever made it may have linked it to somebody else's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            return ""
        text = os.read(fd, _MOST_TOKEN).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
    return text if text.isprintable() else ""


@asynccontextmanager
async def arena(layout: Layout) -> AsyncIterator[None]:
    """Around all that is tried: nothing of it is left behind, nor of one that was killed. To be entered
    under the lock of the place."""
    family.adopt_orphans()
    cgroups.move_aside()
    await _end_leftovers(layout)
    try:
        yield
    finally:
        await _end_leftovers(layout)


async def _end_leftovers(layout: Layout) -> None:
    place = place_of(layout).root
    for door in place.glob("*/run/*.keeper"):
        found = await Generation.adopt(door)
        if found is not None:
            generation, listener = found
            generation.kill()
            await asyncio.wait({generation.ended}, timeout=family.SWEEP_S)
            generation.leave()
            listener.close()
        forget(door)
    for folder in place.glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)
