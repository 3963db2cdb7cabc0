"""The process that a machine lives in: owns QEMU and the relay, and serves the machine's socket.

    python -m org.sandbox.vm.supervisor < PLAN

It reads a `Plan` as JSON, leaves whoever started it, and says on standard output how far it is, a JSON
object a line: its `pid`, each `step`, then `ready` or `error`. QEMU never outlives it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from org.errors import Busy, EnvironmentProblem, OrgError, SandboxGone
from org.ports import Command
from org.sandbox.vm import GUEST_FILES, accel, initramfs, qemu, qmp
from org.sandbox.vm.box import boxed
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.gate import PATHS, Upstream
from org.sandbox.vm.layout import ImageFolder, MachineFolder
from org.sandbox.vm.link import Link, linked
from org.sandbox.vm.net import Policy, Relay, relaying
from org.sandbox.vm.switch import Switch
from org.sandbox.vm.tied import tied

BOOT_S = 180.0
"""Emulated, and beside others that want the same processors, a guest takes its time."""

_LOCK_S = 1.0  # somebody who only looks holds the lock for a moment
_POLL_S = 0.02
_SYNC_S = 20.0
_OFF_S = 5.0
_MOST_LOG = 4_194_304
_LAST_WORDS = 4096
_POWER_OFF = "echo u > /proc/sysrq-trigger; echo o > /proc/sysrq-trigger"

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A machine to run. `folder` is the machine's, `image` an image's; `cache` is the user's cache
    folder of this program, `memory_mib` in MiB."""

    folder: str
    image: str
    cache: str
    arch: str
    memory_mib: int
    cpus: int
    upstream: Upstream

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        fields = json.loads(text)
        return cls(**fields | {"upstream": Upstream(**fields["upstream"])})


def main() -> int:
    plan = Plan.from_json(sys.stdin.read())
    if os.fork():  # whoever waits for this process is not to wait for the machine
        os._exit(0)
    _tell({"pid": os.getpid()})
    try:
        asyncio.run(supervise(plan, _tell))
    except OrgError as error:
        _tell({"error": error.message, "hint": error.hint, "busy": isinstance(error, Busy)})
        return error.exit_code
    return 0


def _tell(what: Mapping[str, Any]) -> None:
    """For whoever started it, who may have left."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


async def supervise(plan: Plan, tell: Tell) -> None:
    """Run a machine until it is told to go down. Raises `Busy` when it runs already, `SandboxGone` when
    it ends by itself, `EnvironmentProblem` when it cannot start."""
    folder = MachineFolder(Path(plan.folder))
    async with _holding(folder):
        with _logging(folder.log) as log:
            try:
                await _Supervisor(plan, folder, log, tell).run()
            except OrgError as error:
                log(f"ended: {error.message}")
                raise
            log("down")


class _Supervisor:
    def __init__(self, plan: Plan, folder: MachineFolder, log: Callable[[str], None], tell: Tell) -> None:
        self._plan = plan
        self._folder = folder
        self._image = ImageFolder(Path(plan.image))
        self._log = log
        self._tell = tell
        self._stop = asyncio.Event()
        self._began = time.time()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        async with self._qemu() as (process, walls):
            exited = asyncio.create_task(process.wait())
            serving = asyncio.create_task(self._serve(process, walls))
            try:
                await asyncio.wait({exited, serving}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done() or self._stop.is_set():
                    await serving
                else:
                    raise SandboxGone(f"the machine ended (QEMU: {process.returncode}){self._last_words()}")
            finally:
                serving.cancel()
                exited.cancel()
                await asyncio.gather(serving, exited, return_exceptions=True)

    # -- QEMU

    @asynccontextmanager
    async def _qemu(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, tuple[str, ...]]]:
        plan, folder = self._plan, self._folder
        self._tell({"step": "preparing the machine"})
        if not folder.overlay.exists():
            await make_overlay(folder.overlay, self._image.root)
        guest = initramfs.guest_side(GUEST_FILES)
        folder.initrd.write_bytes(initramfs.for_machine(self._image, guest))
        chosen = await accel.choose(Path(plan.cache), self._image.kernel, plan.arch)
        folder.console.unlink(missing_ok=True)
        spec = qemu.MachineSpec(
            kernel=str(self._image.kernel),
            initrd=str(folder.initrd),
            drives=(qemu.Drive(str(folder.overlay)),),
            ports=(qemu.Port("org.ctl", str(folder.ctl)), qemu.Port("org.net", str(folder.net))),
            accel=chosen,
            arch=plan.arch,
            memory_mib=plan.memory_mib,
            cpus=1 if chosen == "tcg" else plan.cpus,
            console=str(folder.console),
            qmp=str(folder.qmp),
        )
        argv, walls = await boxed(qemu.argv(spec), self._image.path, folder.path, kvm=chosen == "kvm")
        self._tell({"step": f"starting the machine ({' + '.join((chosen.upper(), *walls))})"})
        with folder.log.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *tied(argv), stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            yield process, (chosen.upper(), *walls)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()

    def _last_words(self) -> str:
        """Of the guest, which is not trusted: on one line, printable."""
        with suppress(FileNotFoundError):
            said = self._folder.console.read_bytes()[-_LAST_WORDS:].decode(errors="replace")
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            shown = "".join(char if char.isprintable() else "?" for char in " | ".join(lines[-6:]))
            return f"; its last words: {shown}" if shown else ""
        return ""

    # -- serving

    async def _serve(self, process: asyncio.subprocess.Process, walls: tuple[str, ...]) -> None:
        async with qmp.connect(self._folder.qmp):
            pass  # once it answers, the ports are there too
        self._tell({"step": "waiting for the guest"})
        policy = Policy(self._plan.upstream)
        async with (
            linked(self._folder.ctl, "the machine", timeout_s=BOOT_S) as link,
            relaying(self._folder.net, policy, self._log) as relay,
        ):
            seconds = time.time() - self._began

            def status() -> Mapping[str, Any]:
                return self._status(link, relay, policy, walls, seconds)

            switch = Switch(link, {"machine": status, "down": self._go_down})
            server = await _listening(self._folder.socket, switch)
            self._log(f"up after {seconds:.1f} s: {' + '.join(walls)}")
            self._tell({"ready": seconds})
            _let_go_of_starter()
            try:
                await self._until_stopped(link, relay)
                await self._power_off(link, process)
            finally:
                self._folder.socket.unlink(missing_ok=True)
                server.close()
                await switch.end()

    async def _until_stopped(self, link: Link, relay: Relay) -> None:
        """Raises `SandboxGone` when the guest is gone before."""
        relaying_on = asyncio.create_task(relay.run())
        waiting = [asyncio.create_task(self._stop.wait()), asyncio.create_task(link.ended.wait())]
        try:
            await asyncio.wait({relaying_on, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                if relaying_on.done():
                    await relaying_on
                raise SandboxGone(f"the machine is gone: {link.gone}{self._last_words()}")
        finally:
            for task in (relaying_on, *waiting):
                task.cancel()
            await asyncio.gather(relaying_on, *waiting, return_exceptions=True)

    async def _power_off(self, link: Link, process: asyncio.subprocess.Process) -> None:
        """As a guest should go: its disk written. Whatever is in the way, QEMU ends after this."""
        root = Channel(link, Surroundings(workspace="/root", user="root"))
        try:
            await root.exec(Command(["/bin/sync"], timeout_s=_SYNC_S))
        except OrgError as error:
            self._log(f"the guest did not write its disk: {error.message}")
            return
        with suppress(SandboxGone, TimeoutError):  # the former is what is asked for
            async with asyncio.timeout(_OFF_S):
                await root.exec(Command(["/bin/sh", "-c", _POWER_OFF]))
        with suppress(TimeoutError):
            async with asyncio.timeout(_OFF_S):
                await process.wait()

    def _go_down(self) -> Mapping[str, Any]:
        self._stop.set()
        return {}

    def _status(
        self, link: Link, relay: Relay, policy: Policy, walls: tuple[str, ...], boot_s: float
    ) -> Mapping[str, Any]:
        upstream = policy.upstream
        scheme = "https" if upstream.tls else "http"
        return {
            "walls": list(walls),
            "image": self._image.path.name,
            "memory_mib": self._plan.memory_mib,
            "started": self._began,
            "boot_s": boot_s,
            "missing": list(Channel(link).missing),
            "network": {
                "device": "none",
                "model_server": f"{scheme}://{upstream.authority}{upstream.path}",
                "paths": list(PATHS),
                "inbound": {str(port): here for port, here in policy.inbound.items()},
                "serving": {str(port): held for port, held in relay.serving.items()},
                "counts": dataclasses.asdict(relay.counts),
            },
        }


async def make_overlay(path: Path, base: Path) -> None:
    """An empty disk over the file `base`. Raises `EnvironmentProblem`."""
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path))
    try:
        process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    except OSError as error:
        hint = "`apt-get install qemu-utils`"
        raise EnvironmentProblem(f"cannot start `qemu-img`: {error.strerror}", hint) from error
    _, said = await process.communicate()
    if process.returncode:
        raise EnvironmentProblem(f"no disk could be made: {said.decode(errors='replace').strip()}")


async def _listening(path: Path, switch: Switch) -> asyncio.Server:
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(switch.serve, path)
    finally:
        os.umask(before)


def _let_go_of_starter() -> None:
    """Whoever waits for the end of standard output has heard all there is."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


@asynccontextmanager
async def _holding(folder: MachineFolder) -> AsyncIterator[None]:
    """Be the one process of this machine. Raises `Busy`."""
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _locked(lock, folder)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        yield
    finally:
        os.close(lock)


async def _locked(lock: int, folder: MachineFolder) -> None:
    deadline = asyncio.get_running_loop().time() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise Busy(f"the machine `{folder.path.name}` runs already") from error
        await asyncio.sleep(_POLL_S)


@contextmanager
def _logging(path: Path) -> Iterator[Callable[[str], None]]:
    """What writes lines to the log; one that has grown long is set aside first."""
    if path.exists() and path.stat().st_size > _MOST_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    with path.open("a", encoding="utf-8", errors="replace") as file:

        def log(line: str) -> None:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            file.flush()

        yield log


if __name__ == "__main__":
    sys.exit(main())
