"""The one process per program that holds the listening sockets and starts, swaps and ends generations.

    python -m org.ops.supervisor ROOT [STATE | --stay]

ROOT is the program's folder, STATE the number of an open file. It leaves whoever started it, and says on
standard output `{"ready": true}` or what is in the way. With STATE it is the next image of the same
process, and says nothing. With `--stay` it stays with whoever started it, and goes on when nothing is to
be served. It answers on `run/supervisor.sock`, one line of JSON for one line: `{"v": 1,
"do": "serve" | "stop" | "status" | "reexec", ...}`. When it is killed the generations serve on, each with
its keeper; the next one finds them.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from org.errors import Busy, ExitCode, OrgError, UsageError
from org.ops import cgroups, describe, family, logfile, ours, streams, wire
from org.ops.alone import alone
from org.ops.generation import Generation
from org.ops.keeper import forget
from org.ops.layout import Colour, Layout
from org.ops.listener import bind
from org.ops.plan import Times
from org.ops.planning import make_plan
from org.ops.slot import Slot, Wanted

COLOURS: tuple[Colour, ...] = ("current", "candidate")


def main() -> int:
    layout = Layout(Path(sys.argv[1]))
    if sys.argv[2:] == ["--stay"]:
        asyncio.run(supervise(layout, {"shown": True, "stays": True}))
        return 0
    if len(sys.argv) > 2:
        with open(int(sys.argv[2]), "rb") as kept:
            kept.seek(0)
            state = json.load(kept)
        asyncio.run(supervise(layout, state))
        return 0
    if os.fork():  # whoever waits for this process is not to wait for what it serves
        os._exit(0)
    try:
        asyncio.run(supervise(layout, {"tell": True}))
    except OrgError as error:
        _tell({"error": error.message, "hint": error.hint, "code": error.exit_code})
        return error.exit_code
    return 0


def _tell(what: Mapping[str, Any]) -> None:
    """For whoever waits for standard output, which ends with this."""
    with suppress(BrokenPipeError):
        os.write(1, wire.line(what))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


async def supervise(layout: Layout, state: Mapping[str, Any], first: Mapping[str, Any] | None = None) -> None:
    """Supervise until nothing is to be served any more. `first` is a request that is answered before any
    other. Raises `Busy` when somebody supervises already."""
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with alone(layout, state.get("lock")) as lock:
        family.adopt_orphans()
        cgroups.move_aside()
        shown, stays = bool(state.get("shown")), bool(state.get("stays"))
        supervisor = Supervisor(layout, lock, shown=shown, stays=stays)
        await supervisor.run(state, first)


class Supervisor:
    """`shown` is whether what happens is written to standard error too; `lock` is what says that there is
    one supervisor; one that `stays` does not end when nothing is to be served."""

    def __init__(self, layout: Layout, lock: int, *, shown: bool, stays: bool) -> None:
        self._layout = layout
        self._lock = lock
        self._shown = shown
        self._stays = stays
        self._slots: dict[Colour, Slot] = {}
        self._one_by_one = {colour: asyncio.Lock() for colour in COLOURS}
        self._began = time.time()
        self._image = secrets.token_hex(4)
        self._over = asyncio.Event()
        self._next: dict[str, Any] | None = None
        self._changing = 0  # how many requests are under way that change what is served
        self._ending = False
        self._log = logfile.Log(layout.supervisor_log)
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def run(self, state: Mapping[str, Any], first: Mapping[str, Any] | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, family.reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with self._group:
            await self._adopt(state.get("slots", {}))
            failed = await self._begin(first)
            if failed is None:
                async with self._door():
                    if state.get("tell"):
                        _tell({"ready": True})
                    await self._over.wait()
            for task in self._tasks:
                task.cancel()
        if failed is not None:
            raise failed
        if self._next is not None:
            self._become_next(self._next)

    async def _begin(self, first: Mapping[str, Any] | None) -> OrgError | None:
        try:
            if first is not None:
                await self._serve(first)
        except OrgError as error:
            if not self._slots:
                return error
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background; what nobody expected ends the supervisor, and no generation."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, line: str) -> None:
        self._log.note(line)
        if self._shown:
            sys.stderr.write(f"org: {line}\n")

    # -- what there is

    def _slot(self, colour: Colour, listener: socket.socket) -> Slot:
        def note(line: str) -> None:
            self._note(f"{colour}: {line}")

        plan = partial(make_plan, self._layout, colour)
        self._slots[colour] = Slot(listener, plan, self._spawn, note, self._sweep)
        return self._slots[colour]

    def _sweep(self) -> None:
        """End what a keeper that was killed has left: it is ours now, and all that we start are keepers."""
        if left := family.sweep(os.getpid(), Generation.keepers):
            self._note(f"{left} processes of a keeper that is gone could not be ended")

    async def _adopt(self, slots: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what an image before this one, or a supervisor that was killed, has left."""
        for name, known in slots.items():
            colour = _colour(name)
            listener = socket.socket(fileno=known["listener"])
            listener.set_inheritable(False)
            slot = self._slot(colour, listener)
            slot.recall(known["memory"])
        found: dict[Colour, list[Generation]] = {}
        for door in self._layout.run.glob("*.keeper"):
            adopted = await Generation.adopt(door)
            if adopted is None:
                forget(door)
                continue
            generation, listener = adopted
            colour = _colour(generation.plan.colour)
            found.setdefault(colour, []).append(generation)
            if colour in self._slots:
                listener.close()
            else:
                self._slot(colour, listener)
            self._note(f"{colour}: found {generation.plan.short}, pid {generation.pid}")
        for colour, slot in list(self._slots.items()):
            slot.take_over(found.get(colour, []))
            if slot.wanted is None:  # it was being stopped
                self._spawn(self._finish_alone(colour, slot))

    # -- what it is asked

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[None]:
        path = self._layout.supervisor_socket
        path.unlink(missing_ok=True)
        os.chdir(path.parent)  # its whole path may be too long for a socket
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._answer, path.name, limit=wire.MOST_LINE)
        finally:
            os.umask(before)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if wire.is_ours(writer.get_extra_info("socket")) and (asked := await streams.read_line(reader)):
                doing = self._group.create_task(self._done(asked))
                writer.write(wire.line(await doing))
                await writer.drain()
        except ConnectionError:
            return  # whoever asked has left
        finally:
            writer.close()
            if self._next is not None or not (self._slots or self._stays):
                self._over.set()

    async def _done(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What came of it; what nobody expected is an answer too, and ends this request alone."""
        doing = asyncio.create_task(self._do(asked))
        await asyncio.wait({doing})
        if (error := doing.exception()) is None:
            return doing.result()
        self._note("".join(traceback.format_exception(error)).rstrip())
        hint = f"see {self._layout.supervisor_log}"
        told = f"the supervisor could not do that: {type(error).__name__}: {error}"
        return {"ok": False, "error": told, "hint": hint, "code": ExitCode.ENVIRONMENT}

    async def _do(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        does = {"serve": self._serve, "stop": self._stop, "status": self._status, "reexec": self._reexec}
        try:
            if asked.get("v") != wire.VERSION or asked.get("do") not in does:
                raise UsageError(
                    f"the supervisor of {self._layout.root.name} is of another version of org",
                    f"`kill -HUP {os.getpid()}` brings it up to date; what it serves goes on",
                )
            with self._change(asked["do"] in ("serve", "stop")):
                return {"ok": True, **await does[asked["do"]](asked)}
        except OrgError as error:
            return {"ok": False, "error": error.message, "hint": error.hint, "code": error.exit_code}

    @contextmanager
    def _change(self, changes: bool) -> Iterator[None]:
        self._changing += changes
        try:
            yield
        finally:
            self._changing -= changes

    async def _serve(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        colour = _colour(asked["colour"])
        async with self._one_by_one[colour]:
            slot = self._slots.get(colour)
            if "port" not in asked and (slot is None or slot.wanted is None):
                return {"served": False}
            fresh = slot is None
            if slot is None:
                slot = self._slot(colour, bind(asked["port"]))
            wanted, most = Wanted(asked["commit"], Path(asked["folder"])), Times(*asked.get("most", ()))
            try:
                told = await slot.serve(wanted, asked.get("env"), most)
            except BaseException as error:
                self._note(f"{colour}: {error}")
                if fresh and slot.wanted is None and self._slots.get(colour) is slot:
                    del self._slots[colour]
                    slot.listener.close()
                raise
        self._note(f"{colour}: serves {asked['commit'][:12]}, pid {told['pid']}")
        return {**told, "served": True, "colour": colour, "url": describe.url(slot.listener)}

    async def _stop(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        colour = _colour(asked["colour"])
        slot = self._slots.get(colour)
        if slot is None:
            return {"stopped": False}
        await self._finish(colour, slot, now=bool(asked.get("now")))
        return {"stopped": True}

    async def _finish_alone(self, colour: Colour, slot: Slot) -> None:
        """Nobody waits for it."""
        await self._finish(colour, slot)
        if not (self._slots or self._changing or self._stays):
            self._over.set()

    async def _finish(self, colour: Colour, slot: Slot, *, now: bool = False) -> None:
        await slot.stop(now=now)
        if slot.wanted is None and self._slots.get(colour) is slot:
            del self._slots[colour]
            slot.listener.close()
            self._note(f"{colour}: stopped")

    async def _status(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        supervisor = {
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self._began, 3),
            "image": self._image,
            "log": {"lost": self._log.lost, "why": self._log.why},
        }
        slots = list(self._slots.items())
        told = await asyncio.gather(*(describe.slot(slot) for _, slot in slots))
        return {
            "supervisor": supervisor,
            **{colour: said for (colour, _), said in zip(slots, told, strict=True)},
        }

    async def _reexec(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._renew()
        if self._next is None:
            raise Busy("a generation is being started or swapped", "try again when that is done")
        return {"image": self._image}

    # -- how it ends

    def _end(self) -> None:
        """Stop everything; told twice, at once."""
        for slot in self._slots.values():
            slot.hurry()
        if not self._ending and self._next is None:
            self._ending = True
            self._spawn(self._stop_all())

    async def _stop_all(self) -> None:
        await asyncio.gather(*(slot.stop() for slot in self._slots.values()))
        self._note("ends")
        self._over.set()

    def _renew(self) -> None:
        """Prepare to become the next image, with all sockets open; not in the middle of a change."""
        if self._changing or self._ending or any(slot.is_busy for slot in self._slots.values()):
            return
        slots = {
            colour: {"listener": os.dup(slot.listener.fileno()), "memory": slot.memory}
            for colour, slot in self._slots.items()
        }
        self._next = {"lock": self._lock, "slots": slots, "shown": self._shown, "stays": self._stays}

    def _hang_up(self) -> None:
        self._renew()
        if self._next is None:
            self._note("busy: SIGHUP was ignored")
        else:
            self._over.set()

    def _become_next(self, state: Mapping[str, Any]) -> None:
        for slot in self._slots.values():
            slot.leave()
        for fd in (self._lock, *(slot["listener"] for slot in state["slots"].values())):
            os.set_inheritable(fd, True)
        kept = os.memfd_create("org-state", 0)  # to be inherited; not an argument, there are keys in it
        os.write(kept, json.dumps(state).encode())
        words = ours.words("org.ops.supervisor", str(self._layout.root), str(kept))
        os.execve(words[0], words, ours.environment(os.environ))


def _colour(name: str) -> Colour:
    for colour in COLOURS:
        if name == colour:
            return colour
    raise UsageError(f"there is no generation `{name}`", "`current` or `candidate`")


if __name__ == "__main__":
    sys.exit(main())
