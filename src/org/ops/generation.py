"""One generation as its supervisor has it: started, told what to do, and heard, through its keeper."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from org.errors import EnvironmentProblem
from org.ops import family, health, ours, streams, wire
from org.ops.keeper import WORDS, how
from org.ops.plan import Plan

KEEPER_S = 30.0
"""How long a keeper may take to answer; the machine may be busy."""
POLL_S = 0.05
_SHOWN_LINES = 8


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is negative for a signal, and None when nobody was left to see it; `tail` is what it said
    last, `left` how many of its processes could not be ended. `starved` is what it had and was too little,
    when that ended it."""

    code: int | None
    tail: str = ""
    left: int = 0
    starved: str = ""

    @property
    def how(self) -> str:
        if self.code is None:
            return "its keeper is gone"
        return how(self.code, self.starved)


class Generation:
    """`ended` is done when it is gone with all that descends from it. `pid` is 0 when it never was.
    `log` says how many lines of its log are `lost`, and `why`."""

    keepers: ClassVar[set[int]] = set()
    """The pids of all keepers that this process has to do with, and that have not ended."""

    def __init__(
        self, state: Mapping[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.plan = Plan.from_json(json.dumps(state["plan"]))
        self.keeper: int = state["keeper"]
        self.pid: int = state["pid"]
        self.began: float = state["began"]
        self.drain_began: float = state["drain_began"]
        self.told_to_go: bool = state["told_to_go"]
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.log: Mapping[str, Any] = state.get("log", {"lost": 0, "why": ""})
        self._health: str = state["health"]
        self._said = {word: asyncio.Event() for word in WORDS}
        for word in state["said"]:
            self._said[word].set()
        self._writer = writer
        self._handle = _handle(self.pid)
        self._listening = asyncio.create_task(self._listen(reader))

    # -- how it begins

    @classmethod
    async def start(cls, plan: Plan, listener: socket.socket) -> Generation:
        """Start one; it waits until it is told to go. Raises `EnvironmentProblem`."""
        channel, keeper = _start_keeper(listener)
        cls.keepers.add(keeper)
        reader, writer = await asyncio.open_connection(sock=channel, limit=wire.MOST_LINE)
        writer.write(plan.as_json().encode() + b"\n")
        state = None
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEPER_S):
                state = await streams.read_line(reader)
        if state is None:
            writer.close()
            cls.keepers.discard(keeper)
            raise EnvironmentProblem(
                f"no process could be started for {plan.short}", "see the supervisor's log"
            )
        return cls(state, reader, writer)

    @classmethod
    async def adopt(cls, door: Path) -> tuple[Generation, socket.socket] | None:
        """A generation that a supervisor before us started, and its listener; None when it is gone."""
        with wire.short(door) as path, socket.socket(socket.AF_UNIX) as found:
            found.settimeout(KEEPER_S)
            try:
                found.connect(path)
                said, fds, _, _ = socket.recv_fds(found, wire.MOST_LINE, 4)
                while b"\n" not in said:
                    part = found.recv(wire.MOST_LINE)
                    if not part:
                        return None
                    said += part
            except OSError:
                return None
            channel = found.dup()
        listener = socket.socket(fileno=fds[0])
        listener.setblocking(False)
        state, _, rest = said.partition(b"\n")
        reader, writer = await asyncio.open_connection(sock=channel, limit=wire.MOST_LINE)
        generation = cls(json.loads(state), reader, writer)
        cls.keepers.add(generation.keeper)
        for line in rest.splitlines():
            generation._take(json.loads(line))
        return generation, listener

    # -- what it is told

    def go(self) -> None:
        self.told_to_go = True
        self._order("go")

    def drain(self) -> None:
        """Have it finish what it does. Its keeper ends it when its time is over."""
        if not self.drain_began:
            self.drain_began = time.time()
        self._order("drain")

    def kill(self) -> None:
        self._order("kill")

    def leave(self) -> None:
        """Hear no more of it, and let it be."""
        self._listening.cancel()
        self._writer.close()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _order(self, word: str) -> None:
        if not self._writer.is_closing():
            self._writer.write(wire.line({"do": word}))

    # -- what it says

    def has_said(self, word: str) -> bool:
        return self._said[word].is_set()

    async def says(self, word: str, seconds: float) -> bool:
        """Wait until it says a word of the contract; False when it does not, or ends before."""
        waiting = asyncio.create_task(self._said[word].wait())
        await streams.first_of(waiting, self.ended, seconds=seconds)
        waiting.cancel()
        return self.has_said(word)

    async def becomes_healthy(self, seconds: float) -> None:
        """Wait until its health names its commit and its nonce. Raises `EnvironmentProblem`."""
        plan = self.plan
        deadline = time.monotonic() + seconds
        while not self.ended.done():
            said = await self.health()
            if said.get("nonce") == plan.nonce:
                if said.get("commit") != plan.commit:
                    raise EnvironmentProblem(f"{plan.short} says that it is {str(said.get('commit'))[:40]!r}")
                return
            if time.monotonic() > deadline:
                raise EnvironmentProblem(f"{plan.short} was not healthy after {seconds:g} s")
            await streams.first_of(self.ended, seconds=POLL_S)
        raise EnvironmentProblem(f"{plan.short} ended before it was healthy: {self.ended.result().how}")

    async def health(self) -> dict[str, str | int]:
        """What it says of itself on its private socket; {} when it says nothing."""
        return await health.ask_privately(self._health)

    async def last_words(self) -> str:
        """What it said last; known when it has ended."""
        tail = (await asyncio.shield(self.ended)).tail
        return "\n".join(tail.splitlines()[-_SHOWN_LINES:])

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while said := await streams.read_line(reader):
            self._take(said)
            if self.ended.done():
                break
        else:
            self._lose()
        self._writer.close()

    def _take(self, said: Mapping[str, Any]) -> None:
        if "said" in said:
            self._said[said["said"]].set()
        elif "lost" in said:
            self.log = said
        elif not self.ended.done():
            self.keepers.discard(self.keeper)
            self.ended.set_result(Ended(said["ended"], said["tail"], said["left"], said.get("starved", "")))

    def _lose(self) -> None:
        """Its keeper has gone without a word: nobody is left to end it in good order."""
        self.keepers.discard(self.keeper)
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(
                    self._handle, signal.SIGSTOP
                )  # it is still who its children come from
                family.sweep(self.pid)
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                os.killpg(self.pid, signal.SIGKILL)
        shutil.rmtree(Path(self._health).parent, ignore_errors=True)
        Path(self.plan.run, f"{self.plan.nonce}.keeper").unlink(missing_ok=True)
        self.ended.set_result(Ended(None))


def _start_keeper(listener: socket.socket) -> tuple[socket.socket, int]:
    """A channel to a keeper that waits for its plan, and its pid. Raises `EnvironmentProblem`."""
    channel, theirs = socket.socketpair()
    try:
        keeper = subprocess.Popen(
            ours.words("org.ops.keeper", str(listener.fileno())),
            env=ours.environment(os.environ),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
    except OSError as error:
        channel.close()
        raise EnvironmentProblem(f"no process can be started: {error.strerror}") from error
    finally:
        theirs.close()
    keeper.returncode = 0  # the supervisor waits for whatever ends
    return channel, keeper.pid


def _handle(pid: int) -> int:
    """A handle on a process that means this one, even when its number is given to another; -1 for none."""
    if not pid:
        return -1
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
