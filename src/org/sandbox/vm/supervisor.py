"""The process that a machine lives in: owns QEMU and the relay, and serves the machine's socket.

    python -m org.sandbox.vm.supervisor

It reads a `Plan` as a line of JSON, leaves whoever started it, and says on standard output how far it is,
a JSON object a line: each `step`, then `ready` or `error`. When standard input ends before, nobody waits
for the machine any more, and it gives up. QEMU never outlives it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from org.errors import Busy, OrgError, SandboxGone
from org.sandbox.vm.channel import Channel
from org.sandbox.vm.console import older
from org.sandbox.vm.gate import PATHS
from org.sandbox.vm.holding import Hold, holding
from org.sandbox.vm.layout import MachineFolder
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.start import Start, Up
from org.sandbox.vm.suspend import suspend
from org.sandbox.vm.switch import Switch

_STARTER = 0  # standard input, which ends when whoever started it leaves
_LOOK_S = 2.0
_MOST_LOG = 4_194_304

Tell = Callable[[Mapping[str, Any]], None]


def main() -> int:
    os.umask(0o077)
    plan = Plan.from_json(sys.stdin.readline())
    if os.fork():  # whoever waits for this process is not to wait for the machine
        os._exit(0)
    try:
        asyncio.run(supervise(plan, _tell))
    except OrgError as error:
        _tell({"error": error.message, "hint": error.hint, "busy": isinstance(error, Busy)})
        return error.exit_code
    except OSError as error:  # a full disk, most of all; where it was is for the log
        _tell({"error": f"{error.strerror or error}: {error.filename or plan.folder}", "hint": ""})
        raise
    return 0


def _tell(what: Mapping[str, Any]) -> None:
    """For whoever started it, who may have left."""
    with suppress(ConnectionError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


async def supervise(plan: Plan, tell: Tell) -> None:
    """Run a machine until it is told to go down. Raises `Busy` when it runs already, `SandboxGone` when
    it ends by itself, `EnvironmentProblem` when it cannot start."""
    folder = MachineFolder(Path(plan.folder))
    async with holding(folder, os.getpid()) as hold:
        log = _Log(folder.log)
        try:
            await _Supervisor(plan, hold, log, tell).run()
        except OrgError as error:
            log(f"ended: {error.message}")
            raise
        log("down")


class _Supervisor:
    def __init__(self, plan: Plan, hold: Hold, log: Callable[[str], None], tell: Tell) -> None:
        self._plan = plan
        self._folder = MachineFolder(Path(plan.folder))
        self._hold = hold
        self._log = log
        self._tell = tell
        self._stop = asyncio.Event()
        self._began = time.time()
        self._seconds = 0.0
        self._start = Start(plan, log, self._step, self._note)

    def _step(self, text: str) -> None:
        self._tell({"step": text})

    def _note(self, text: str) -> None:
        self._log(text)
        self._tell({"note": text})

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(_STARTER, self._on_starter)
        async with AsyncExitStack() as stack:
            up = await self._started(stack)
            if up is not None:
                await self._serve(up)

    def _on_starter(self) -> None:
        """Whoever started it has left, and has nothing to say before."""
        asyncio.get_running_loop().remove_reader(_STARTER)
        self._log("given up: nobody waits for the machine any more")
        self._stop.set()

    async def _started(self, stack: AsyncExitStack) -> Up | None:
        """The machine; None when it was to go down before it was up."""
        starting = asyncio.create_task(self._start.up(stack))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await self._start.whole()
            return await starting if starting.done() else None
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)

    # -- serving

    async def _serve(self, up: Up) -> None:
        self._seconds = time.time() - self._began

        def status() -> Mapping[str, Any]:
            return self._status(up)

        switch = Switch(up.link, {"machine": status, "down": self._go_down})
        server = await _listening(self._folder.socket, switch)
        self._log(f"up after {self._seconds:.1f} s ({up.way}): {' + '.join(up.hypervisor.walls)}")
        self._tell({"ready": self._seconds, "way": up.way})
        _let_go_of_starter()
        try:
            await self._until_stopped(up)
        finally:
            if self._hold.in_place():
                self._folder.socket.unlink(missing_ok=True)
            server.close()
            await switch.end()
        async with self._hold.beating():
            await suspend(up, self._folder, self._start.key, self._log)

    async def _until_stopped(self, up: Up) -> None:
        """Raises `SandboxGone` when the guest is gone before."""
        relaying = asyncio.create_task(up.relay.run())
        exited = asyncio.create_task(up.hypervisor.process.wait())
        removed = asyncio.create_task(self._removed())
        waiting = [asyncio.create_task(self._stop.wait()), asyncio.create_task(up.link.ended.wait()), removed]
        try:
            await asyncio.wait({relaying, exited, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                if removed.done():
                    raise SandboxGone("the machine's folder was removed")
                if exited.done():
                    raise await up.hypervisor.ended()
                if relaying.done():
                    with suppress(SandboxGone):  # anything else is a fault of ours
                        await relaying
                words = await up.hypervisor.last_words()
                raise SandboxGone(f"the machine is gone: {up.link.gone or up.relay.gone}{words}")
        finally:
            for task in (relaying, exited, *waiting):
                task.cancel()
            await asyncio.gather(relaying, exited, *waiting, return_exceptions=True)

    async def _removed(self) -> None:
        """Until somebody removed the machine's folder, other than by `org vm rm`."""
        while self._hold.in_place():  # noqa: ASYNC110 -- whoever does so tells nobody
            await asyncio.sleep(_LOOK_S)

    def _go_down(self) -> Mapping[str, Any]:
        self._stop.set()
        return {}

    def _status(self, up: Up) -> Mapping[str, Any]:
        upstream, relay, policy = self._plan.upstream, up.relay, self._start.policy
        scheme = "https" if upstream.tls else "http"
        return {
            "walls": list(up.hypervisor.walls),
            "image": Path(self._plan.image).name,
            "memory_mib": self._plan.memory_mib,
            "started": self._began,
            "boot_s": self._seconds,
            "way": up.way,
            "missing": list(Channel(up.link).missing),
            "network": {
                "device": "none",
                "model_server": f"{scheme}://{upstream.authority}{upstream.path}",
                "paths": list(PATHS),
                "inbound": {str(port): here for port, here in policy.inbound.items()},
                "serving": {str(port): held for port, held in relay.serving.items()},
                "counts": dataclasses.asdict(relay.counts),
            },
        }


async def _listening(path: Path, switch: Switch) -> asyncio.Server:
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(switch.serve, path)
    finally:
        os.umask(before)


def _let_go_of_starter() -> None:
    """Whoever waits for the end of standard output has heard all there is, and may leave."""
    asyncio.get_running_loop().remove_reader(_STARTER)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (_STARTER, sys.stdout.fileno()):
        os.dup2(nothing, fd)
    os.close(nothing)


class _Log:
    """Lines with their time; when the log has grown long it is set aside, in place of an older one.
    Without a place for them, the machine goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, line: str) -> None:
        with suppress(OSError):
            if self._path.stat().st_size > _MOST_LOG:
                self._path.replace(older(self._path))
        with suppress(OSError), self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


if __name__ == "__main__":
    sys.exit(main())
