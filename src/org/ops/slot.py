"""One colour: its listening socket, the generation that serves on it, and those that drain."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from org.errors import EnvironmentProblem, OrgError
from org.ops.generation import Ended, Generation
from org.ops.plan import LONGEST, Plan, Times
from org.ops.restarts import Restarts

ACK_S = 2.0
"""How long an old generation may take to say that it takes no more connections."""
KILLED_S = 30.0

MakePlan = Callable[[str, Path, Mapping[str, str], Times], Plan]
Spawn = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served: a commit, and the folder with its files."""

    commit: str
    folder: Path


class Slot:
    """`make_plan(commit, folder, env, most)` says how to start it; `spawn` runs a coroutine in the
    background; `note` is for what a person should find in the log; `sweep` ends what has lost its keeper."""

    def __init__(
        self,
        listener: socket.socket,
        make_plan: MakePlan,
        spawn: Spawn,
        note: Callable[[str], None],
        sweep: Callable[[], None],
    ) -> None:
        self.listener = listener
        self.serving: Generation | None = None
        self.wanted: Wanted | None = None
        self.previous: Wanted | None = None
        self.draining: list[Generation] = []
        self.restarts = Restarts()
        self.env: Mapping[str, str] = {}
        """What is given to the next one that is started."""
        self.most = LONGEST
        """How long that one may take."""
        self.ended = ""
        """How what was asked for has ended by itself the last time; empty when it has not."""
        self.trouble = ""
        """Why it does not serve what was asked for; empty when it does."""
        self.starting: Generation | None = None
        """What is coming up, and does not serve yet."""
        self._make_plan = make_plan
        self._spawn = spawn
        self._note = note
        self._sweep = sweep
        self._lock = asyncio.Lock()

    @property
    def is_busy(self) -> bool:
        return self._lock.locked()

    async def serve(
        self, wanted: Wanted, env: Mapping[str, str] | None = None, most: Times = LONGEST
    ) -> dict[str, Any]:
        """Serve this commit from now on, with `env` or else what was given before; what served before
        drains. Raises `EnvironmentProblem` when it does not come up: then all is as it was before."""
        async with self._lock:
            if self.serving and self.serving.plan.commit == wanted.commit and not self.serving.ended.done():
                return {"commit": wanted.commit, "pid": self.serving.pid, "already": True}
            if env is not None:
                self.env = env
            self.most = most
            before = self.wanted if self.wanted not in (None, wanted) else self.previous
            new = await self._begin(wanted, before, "")
            old, self.serving = self.serving, new
            self.wanted, self.previous = wanted, before
            self.restarts, self.ended, self.trouble = Restarts(), "", ""
            self._spawn(self._keep_up(new))
            told = {"commit": wanted.commit, "pid": new.pid, "already": False}
            if old is not None:
                told["old_said_draining"] = await self._let_go(old)
            return told

    async def stop(self, *, now: bool = False) -> None:
        """Serve nothing any more; returns when all of it is gone. `now` waits for no drain."""
        if self.starting is not None:
            self.starting.kill()
        async with self._lock:
            self.wanted = None
            old, self.serving = self.serving, None
            if old is not None and now:
                self._drains(old)
            elif old is not None:
                await self._let_go(old)
        if now:
            self.hurry()
        while self.draining:
            await asyncio.wait({old.ended for old in self.draining})
            await asyncio.sleep(0)  # those that watch them take them off the list

    def take_over(self, found: list[Generation]) -> None:
        """Go on with what a supervisor before us has left: the youngest that takes connections serves, the
        others drain, and who was not told to go yet ends."""

        def by_rank(one: Generation) -> tuple[bool, float]:
            return one.has_said("accepting"), one.began

        for generation in sorted(found, key=by_rank, reverse=True):
            if not generation.told_to_go:
                generation.kill()
                self._drains(generation)
            elif self.serving is None and not generation.drain_began:
                self.serving = generation
                self._remember(generation.plan)
                self._spawn(self._keep_up(generation))
            else:
                if not generation.drain_began:
                    generation.drain()
                self._drains(generation)

        if self.serving is None and self.wanted is not None:
            self._spawn(self._revive())

    def _remember(self, plan: Plan) -> None:
        """What a keeper hands back of what was known when its generation was started."""
        self.wanted = Wanted(plan.commit, Path(plan.folder))
        self.previous = Wanted(plan.previous[0], Path(plan.previous[1])) if plan.previous else None
        self.env, self.most, self.trouble = plan.env, Times(plan.ready_s, plan.drain_s), plan.trouble

    @property
    def memory(self) -> dict[str, Any]:
        """What the next image of the supervisor could not find out by looking."""
        kept = {"wanted": self.wanted, "previous": self.previous}
        return {
            **{name: known and [known.commit, str(known.folder)] for name, known in kept.items()},
            "env": dict(self.env),
            "most": self.most,
            "trouble": self.trouble,
            "restarts": self.restarts.total,
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.wanted, self.previous = (
            known and Wanted(known[0], Path(known[1])) for known in (memory["wanted"], memory["previous"])
        )
        self.env = memory["env"]
        self.most = Times(*memory.get("most", ()))
        self.trouble = memory["trouble"]
        self.restarts = Restarts(total=memory["restarts"])

    def hurry(self) -> None:
        """End what drains now."""
        for old in self.draining:
            old.kill()

    def leave(self) -> None:
        """Let all of them be, as they are, for whoever supervises next."""
        for generation in (self.serving, *self.draining):
            if generation is not None:
                generation.leave()

    # -- one after another

    async def _begin(self, wanted: Wanted, previous: Wanted | None, trouble: str) -> Generation:
        """A generation that takes connections. Raises `EnvironmentProblem`, with what it said last."""
        plan = self._planned(wanted, previous, trouble)
        new = await Generation.start(plan, self.listener)
        self.starting = new
        try:
            try:
                await new.becomes_healthy(plan.ready_s)
                new.go()
                if not await new.says("accepting", plan.ready_s):
                    raise EnvironmentProblem(f"{plan.short} was told to go and did not take connections")
            except BaseException as error:
                new.kill()
                if isinstance(error, EnvironmentProblem):
                    raise await self._explained(error, new) from None
                raise
        finally:
            self.starting = None
        return new

    def _planned(self, wanted: Wanted, previous: Wanted | None, trouble: str) -> Plan:
        try:
            plan = self._make_plan(wanted.commit, wanted.folder, self.env, self.most)
        except OSError as error:
            raise EnvironmentProblem(f"{wanted.commit[:12]} cannot be started: {error}") from error
        before = (previous.commit, str(previous.folder)) if previous else None
        return replace(plan, previous=before, trouble=trouble)

    async def _explained(self, error: EnvironmentProblem, failed: Generation) -> EnvironmentProblem:
        await asyncio.wait({failed.ended}, timeout=KILLED_S)
        words = ""
        if failed.ended.done():
            self._report(failed, failed.ended.result())
            words = await failed.last_words()
        hint = f"its last words:\n{words}" if words else "it said nothing"
        return EnvironmentProblem(error.message, hint)

    async def _let_go(self, old: Generation) -> bool:
        """Have it drain; whether it says that it does."""
        old.drain()
        self._drains(old)
        if await old.says("draining", ACK_S) or old.ended.done():
            return True
        self._note(f"{old.plan.short} did not say that it drains: it may take connections until it ends")
        return False

    def _drains(self, old: Generation) -> None:
        self.draining.append(old)
        self._spawn(self._see_off(old))

    async def _see_off(self, old: Generation) -> None:
        ended = await old.ended
        self.draining.remove(old)
        self._report(old, ended)

    # -- what ends by itself

    async def _keep_up(self, generation: Generation) -> None:
        """Start it again when it ends by itself; after too many times, the one before it."""
        began = time.monotonic()
        ended = await asyncio.shield(generation.ended)
        self._report(generation, ended)
        if generation is not self.serving:
            return
        self.serving = None
        self._crashed(f"{generation.plan.short} ended: {ended.how}", time.monotonic() - began)
        await self._revive()

    async def _revive(self) -> None:
        while self.wanted is not None and self.serving is None:
            await asyncio.sleep(self.restarts.delay_s)
            async with self._lock:
                await self._start_again()

    async def _start_again(self) -> None:
        if self.wanted is None or self.serving is not None:
            return  # it was settled meanwhile
        try:
            self.serving = await self._begin(self.wanted, self.previous, self.trouble)
        except OrgError as error:
            self._crashed(error.message, 0.0)
        else:
            self._spawn(self._keep_up(self.serving))

    def _crashed(self, why: str, served_s: float) -> None:
        self.restarts.crashed(served_s)
        self.ended = why
        self._note(f"{why} (crash {self.restarts.crashes}); again in {self.restarts.delay_s:g} s")
        if self.restarts.is_hopeless and self.previous is not None:
            failed, self.wanted, self.previous = self.wanted, self.previous, None
            assert failed is not None
            self.trouble = (
                f"{failed.commit[:12]} crashed {self.restarts.crashes} times: "
                f"{self.wanted.commit[:12]} was brought back; last: {why}"
            )
            self._note(self.trouble)
            self.restarts = Restarts(total=self.restarts.total)

    def _report(self, generation: Generation, ended: Ended) -> None:
        if ended.code is None:
            self._sweep()
        if ended.left:
            self._note(f"{generation.plan.short} left {ended.left} processes that could not be ended")
