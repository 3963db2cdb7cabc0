"""How a machine comes up: woken where it was suspended, forked from a snapshot, or booted.

The first two take a fraction of a second. Whatever goes wrong with them is said, and the machine is
booted from its disk instead.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from org.errors import EnvironmentProblem, OrgError, SandboxGone
from org.ports import Command
from org.sandbox.vm import GUEST_FILES, accel, hypervisor, initramfs, qemu, saved
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.environment import bare
from org.sandbox.vm.hypervisor import Hypervisor
from org.sandbox.vm.image import disk
from org.sandbox.vm.layout import ImageFolder, MachineFolder, StateFolder
from org.sandbox.vm.link import Link, linked
from org.sandbox.vm.net import Policy, Relay, relaying
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.qemu import MachineSpec, Memory
from org.sandbox.vm.snapshots import Snapshots

Way: TypeAlias = Literal["boot", "snapshot", "suspension"]

BOOT_S = 180.0
"""Emulated, and beside others that want the same processors, a guest takes its time."""

_AGAIN_S = 1.0
_ID = re.compile("[0-9a-f]{32}")
_DISK_HEAD = 64
_SPARE = 268_435_456  # bytes of the disk that a snapshot leaves to others
# Until what was started beside the agent is done: it would be done again in each fork.
_SETTLED = """
import os, time
def busy():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read() == "nft\\n":
                    return True
        except OSError:
            pass
while busy():
    time.sleep(0.05)
"""


@dataclass(frozen=True, slots=True)
class Up:
    """A machine that answers. `links` closes its ports, QEMU then goes on without."""

    hypervisor: Hypervisor
    link: Link
    relay: Relay
    links: AsyncExitStack
    way: Way


class Start:
    """One start of a machine. `step(text)` hears what is waited for, `note(text)` what did not go as it
    should."""

    def __init__(
        self, plan: Plan, log: Callable[[str], None], step: Callable[[str], None], note: Callable[[str], None]
    ) -> None:
        self.policy = Policy(plan.upstream, {7001: plan.port, 7002: plan.port + 1})
        self.key = ""
        """Whom a state fits that is saved of this machine; known once it is up."""
        self._whole = asyncio.Event()
        self._whole.set()
        self._plan = plan
        self._folder = MachineFolder(Path(plan.folder))
        self._image = ImageFolder(Path(plan.image))
        self._cache = Path(plan.cache)
        self._log, self._step, self._note = log, step, note
        self._spec = MachineSpec("", "")
        self._initrd = b""
        self._snapshots = Snapshots(self._cache, log, step, note)

    async def up(self, stack: AsyncExitStack) -> Up:
        """The machine, which ends with `stack`. Raises `EnvironmentProblem`, and `SandboxGone` when it
        does not come up."""
        self._step("preparing the machine")
        if not stack.enter_context(saved.held(self._image.manifest)):
            raise EnvironmentProblem(f"the image is gone: {self._image.path}", "`org vm rm`, `org vm up`")
        saved.remove(self._folder.suspending)
        self._folder.ram.unlink(missing_ok=True)
        await self._prepare()
        return await self._woken(stack) or await self._forked(stack) or await self._booted(stack)

    async def whole(self) -> None:
        """Until the start may be called off: a memory that is used up is nowhere but in QEMU until the
        machine is up, from where it can be suspended."""
        await self._whole.wait()

    async def _prepare(self) -> None:
        plan, folder = self._plan, self._folder
        self._initrd = initramfs.for_machine(self._image, initramfs.guest_side(GUEST_FILES))
        chosen = await accel.choose(self._cache, self._image.kernel, plan.arch)
        self._spec = qemu.MachineSpec(
            kernel=str(self._image.kernel),
            initrd=str(folder.initrd),
            drives=(qemu.Drive(str(folder.overlay)),),
            ports=(qemu.Port("org.ctl"), qemu.Port("org.net")),
            accel=chosen,
            arch=plan.arch,
            memory_mib=plan.memory_mib,
            cpus=1 if chosen == "tcg" else plan.cpus,
        )
        version = await accel.qemu_version(plan.arch)
        self.key = saved.key_of(self._spec, self._image, self._initrd, version)

    # -- three ways

    async def _woken(self, stack: AsyncExitStack) -> Up | None:
        state = StateFolder(self._folder.suspended)
        if not state.path.exists():
            return None
        why = saved.flaw(state, self.key, self._folder.overlay)
        if not why:
            self._step("waking the machine")
            try:
                return await self._resumed(stack, "suspension", state, Memory(), lambda: self._use_up(state))
            except OrgError as error:
                why = error.message
            finally:
                self._whole.set()
        saved.remove(state.path)
        self._note(f"the machine is booted from its disk instead of woken: {why}")
        return None

    def _use_up(self, state: StateFolder) -> None:
        """It is used once: what the guest writes from there on is newer than this memory."""
        self._whole.clear()
        saved.use_up(state)

    async def _forked(self, stack: AsyncExitStack) -> Up | None:
        if self._folder.overlay.exists():
            return None
        try:
            free = self._plan.memory_mib * 1024**2 + _SPARE
            snapshot = await self._snapshots.taken(stack, self.key, self._save, free)
            self._step("forking the machine")
            await asyncio.to_thread(_copy, snapshot.disk, self._folder.overlay)
            # QEMU opens it for writing: a guest that broke out must not reach other machines by it.
            ram = self._folder.ram
            try:
                await asyncio.to_thread(disk.clone, snapshot.ram, ram)
                return await self._resumed(stack, "snapshot", snapshot, Memory(str(ram)), ram.unlink)
            except OrgError:
                saved.remove(snapshot.path)
                raise
        except (OrgError, OSError) as error:
            self._folder.overlay.unlink(missing_ok=True)
            self._folder.ram.unlink(missing_ok=True)
            why = error.message if isinstance(error, OrgError) else str(error)
            self._note(f"the machine is booted instead of forked from a snapshot: {why}")
            return None

    async def _booted(self, stack: AsyncExitStack) -> Up:
        self._step("starting the machine")
        self._folder.initrd.write_bytes(self._initrd)
        if not self._folder.overlay.exists():
            await make_overlay(self._folder.overlay, self._image.root)
        check_disk(self._folder.overlay)
        async with AsyncExitStack() as own:
            running = await self._running(own, self._spec)
            self._step("waiting for the guest")
            up = await self._met(own, running, "boot")
            stack.push_async_exit(own.pop_all())
        return up

    async def _save(self, work: StateFolder) -> None:
        """Boot a machine that nobody has used yet, and save it as it is then."""
        self._step("starting a machine for the snapshot")
        work.initrd.write_bytes(self._initrd)
        await make_overlay(work.disk, self._image.root)
        work.ram.touch(0o600)
        memory = Memory(str(work.ram), share=True)
        drives = (qemu.Drive(str(work.disk)),)
        spec = replace(self._spec, initrd=str(work.initrd), drives=drives, memory=memory)
        async with AsyncExitStack() as own:
            running = await self._running(own, spec)
            self._step("waiting for its guest")
            await _settle(self._folder.ctl)
            self._step("saving the snapshot")
            await running.qmp.stop()
            await running.qmp.save(work.state)
            await running.qmp.quit()
            await running.process.wait()
        work.initrd.unlink()

    # -- QEMU

    async def _running(self, stack: AsyncExitStack, spec: MachineSpec) -> Hypervisor:
        return await stack.enter_async_context(
            hypervisor.running(spec, self._folder, self._image.path, self._log)
        )

    async def _resumed(
        self,
        stack: AsyncExitStack,
        way: Way,
        state: StateFolder,
        memory: Memory,
        loaded: Callable[[], None],
    ) -> Up:
        """Go on from a state; `loaded()` is called before the guest does. Raises `EnvironmentProblem`,
        `SandboxGone`."""
        spec = replace(self._spec, memory=memory, incoming=True)
        async with AsyncExitStack() as own:
            running = await self._running(own, spec)
            await running.qmp.load(state.state)
            loaded()
            await running.qmp.cont()
            up = await self._met(own, running, way)
            stack.push_async_exit(own.pop_all())
        return up

    async def _met(self, stack: AsyncExitStack, running: Hypervisor, way: Way) -> Up:
        """Connect to the guest's ports, and tell it first of all what it cannot know."""
        folder = self._folder
        again = None if way == "boot" else _AGAIN_S
        links = await stack.enter_async_context(AsyncExitStack())
        try:
            link = await links.enter_async_context(
                linked(folder.ctl, "the machine", timeout_s=BOOT_S, again_s=again)
            )
            if way == "suspension":
                await Channel(link).restored()
            else:
                await Channel(link).restored(machine_id=self._machine_id(), hostname=self._plan.hostname)
            relay = await links.enter_async_context(
                relaying(folder.net, self.policy, self._log, timeout_s=BOOT_S, again_s=again)
            )
        except SandboxGone as error:
            raise SandboxGone(error.message + await running.last_words(), error.hint) from error
        return Up(running, link, relay, links, way)

    def _machine_id(self) -> str:
        with suppress(FileNotFoundError):
            known = self._folder.id.read_text(errors="replace").strip()
            if _ID.fullmatch(known):
                return known
        made = secrets.token_hex(16)
        saved.write(self._folder.id, made + "\n")
        return made


async def _settle(port: Path) -> None:
    """Until a guest that booted has nothing more to do, and nobody speaks with it."""
    async with linked(port, "the machine", timeout_s=BOOT_S) as link:
        root = Channel(link, Surroundings(workspace="/root", user="root"))
        await root.python(_SETTLED, timeout_s=BOOT_S)
        await root.exec(Command(["/bin/sync"], timeout_s=BOOT_S))
        await link.ping(BOOT_S)


async def make_overlay(path: Path, base: Path) -> None:
    """An empty disk over the file `base`. Raises `EnvironmentProblem`."""
    draft = saved.drafted(path)
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(draft))
    try:
        process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE, env=bare())
    except OSError as error:
        hint = "`apt-get install qemu-utils`"
        raise EnvironmentProblem(f"cannot start `qemu-img`: {error.strerror}", hint) from error
    _, said = await process.communicate()
    if process.returncode:
        raise EnvironmentProblem(f"no disk could be made: {said.decode(errors='replace').strip()}")
    saved.put(draft, path)


def check_disk(path: Path) -> None:
    """Raises `EnvironmentProblem` for what is no disk (any more)."""
    with path.open("rb") as file:
        if not disk.is_qcow2(file.read(_DISK_HEAD)):
            raise EnvironmentProblem(f"no disk of a machine: {path}", "`org vm reset` makes it anew")


def _copy(source: Path, target: Path) -> None:
    """Whole, or not at all."""
    draft = saved.drafted(target)
    shutil.copyfile(source, draft)
    saved.put(draft, target)
