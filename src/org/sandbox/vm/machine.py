"""A machine, seen from outside: a folder, and perhaps a process that it lives in.

Nothing about its state is written down: a lock says whether the process is there, its socket says
the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from org.errors import EnvironmentProblem, SandboxGone, UsageError
from org.sandbox.vm import frames, layout, saved
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.holding import Patience, holder, holding
from org.sandbox.vm.image.store import Image, folder_of, read_image
from org.sandbox.vm.layout import MachineFolder, StateFolder
from org.sandbox.vm.link import Link, linked
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.snapshots import stands
from org.sandbox.vm.start import BOOT_S, Way
from org.sandbox.vm.starter import begin

DEFAULT = "default"
"""The name of the machine that verbs and rooms use."""

State: TypeAlias = Literal["absent", "down", "starting", "up", "ending", "silent"]

_REMOVED = ".removed-"
_KEY = re.compile(r"[0-9a-f]{24}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MOST_PATH = 107  # bytes of the path of a unix socket
_DOWN_S = 60.0
_KILLED_S = 10.0
_POLL_S = 0.05
_GUEST = "org"  # how the guest of the default machine calls itself


@dataclass(frozen=True, slots=True)
class Status:
    """`pid` is the machine's process, None when there is none; `facts` are what that says of itself,
    empty unless the state is `up`. `silent` is one that runs and does not answer. `suspended` is one
    that is down and goes on where it was."""

    name: str
    state: State
    pid: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """How a machine came up, within so many seconds; `notes` say what did not go as it should."""

    seconds: float
    way: Way
    notes: tuple[str, ...]


class Machine:
    """The machine in `folder`, whether it is there or not."""

    def __init__(self, folder: MachineFolder) -> None:
        self.folder = folder
        self.name = folder.path.name

    async def status(self) -> Status:
        if not self.folder.path.is_dir():
            return Status(self.name, "absent")
        pid = holder(self.folder)
        if pid is None:
            return Status(self.name, "down", suspended=StateFolder(self.folder.suspended).manifest.exists())
        try:
            facts = await self._ask("machine")
        except SandboxGone:
            return Status(self.name, self._busy_with(), pid)
        return Status(self.name, "up", pid, facts)

    def _busy_with(self) -> State:
        """What a process does that does not answer."""
        if self.folder.socket.exists():
            return "silent"
        return "ending" if self.folder.suspending.exists() else "starting"

    async def up_or_gone(self) -> Status:
        """Its status. Raises `SandboxGone` when it is not up."""
        status = await self.status()
        if status.state != "up":
            hint = "`org vm down` ends it" if status.state == "silent" else "`org vm up`"
            raise SandboxGone(f"the machine `{self.name}` is not up: {status.state}", hint)
        return status

    def image(self, cache: Path) -> Image | None:
        """The image that its disk stands on, None for a machine that has none yet.

        Raises `EnvironmentProblem` when that image is no longer there.
        """
        path = self.folder.image
        if not path.exists():
            return None
        key = path.read_text().strip()
        image = read_image(folder_of(cache, key)) if _KEY.fullmatch(key) else None
        if image is None:
            raise EnvironmentProblem(
                f"the image of the machine `{self.name}` is not in {layout.images(cache)} any more",
                "`org vm rm` removes the machine, `org vm up` makes another",
            )
        return image

    def check_path(self) -> None:
        """Raises `UsageError` for a machine whose sockets could not be reached."""
        excess = len(os.fsencode(self.folder.socket)) - _MOST_PATH
        if excess > 0:
            raise UsageError(
                f"the path of a socket may have {_MOST_PATH} bytes: {self.folder.socket}",
                f"a `--name`, or an `XDG_STATE_HOME`, that is shorter by {excess}",
            )

    def make(self, image: Image) -> bool:
        """Make the machine, on `image`. False when it is there already, perhaps since a moment ago.

        Raises `UsageError`, `EnvironmentProblem` when it cannot be.
        """
        self.check_path()
        path = self.folder.image
        with self._writing():
            for place in (self.folder.path.parent, self.folder.path):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_name(f".image-{secrets.token_hex(8)}")
            try:
                part.write_text(image.key + "\n")
                saved.settle(part)
                path.hardlink_to(part)  # whole or not at all, and one of several that make it
            except FileExistsError:
                return False
            finally:
                part.unlink(missing_ok=True)
                with suppress(OSError):  # there is something in it, as there should be
                    self.folder.path.rmdir()
            self._stand_on(image)
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises `EnvironmentProblem` when the block meets a disk that is full, or may not be written."""
        try:
            yield
        except OSError as error:
            raise EnvironmentProblem(
                f"{error.strerror}: {error.filename or self.folder.path}", "`df` shows what is left of disks"
            ) from error

    def _stand_on(self, image: Image) -> None:
        """Have the image kept for as long as the machine is there."""
        image.folder.machines.mkdir(exist_ok=True)
        for other in image.folder.machines.iterdir():
            if not stands(other):  # of a machine that was removed
                other.unlink(missing_ok=True)
        link = image.folder.machines / hashlib.sha256(os.fsencode(self.folder.path)).hexdigest()[:16]
        with suppress(FileExistsError):
            link.symlink_to(self.folder.path)

    def memory(self) -> int | None:
        """How much it was started with the last time, in MiB."""
        return _number(self.folder.memory)

    def port(self) -> int | None:
        """Where its port 7001 appeared then."""
        return _number(self.folder.port)

    def base(self) -> str | None:
        """The model server that it was given by name then."""
        try:
            return self.folder.base.read_text().strip() or None
        except FileNotFoundError:
            return None

    async def up(
        self,
        image: Image,
        cache: Path,
        upstream: Upstream,
        on_step: Callable[[str], None],
        *,
        memory_mib: int,
        cpus: int,
        port: int = 7001,
        base: str | None = None,
    ) -> Started:
        """Start it, and wait until it is up. Its ports 7001 and 7002 appear at `port` and the one after.
        With `base`, the URL of `upstream`, it has that one from now on.
        One that somebody else starts is waited for. Cancelling it ends a machine that is not up yet.

        Raises `EnvironmentProblem`, and `SandboxGone` when it did not come up.
        """
        with self._writing():
            self._stand_on(image)
        folder, hostname = str(self.folder.path), _GUEST if self.name == DEFAULT else self.name
        root = str(image.folder.path)
        plan = Plan(folder, root, str(cache), image.arch, hostname, memory_mib, cpus, upstream, port)
        begun = asyncio.get_running_loop().time()
        notes: list[str] = []
        way = None
        while way is None:
            notes.clear()
            way = await begin(plan, self.folder.log, on_step, notes.append)
            if way is None:
                on_step("waiting for the machine, which another process starts or ends")
                way = await self._until_up()
        with self._writing():
            saved.write(self.folder.memory, f"{memory_mib}\n")
            saved.write(self.folder.port, f"{port}\n")
            if base is not None:
                saved.write(self.folder.base, f"{base}\n")
        return Started(asyncio.get_running_loop().time() - begun, way, tuple(notes))

    async def _until_up(self) -> Way | None:
        """Until what another process does with it is done; None when it is down then."""
        patience = Patience(self.folder, BOOT_S)
        while (status := await self.status()).state in ("starting", "ending"):
            if patience.over():
                break
            await asyncio.sleep(_POLL_S)
        if status.state == "down":
            return None
        if status.state != "up":
            raise SandboxGone(f"the machine `{self.name}` did not come up: {status.state}", "`org vm logs`")
        way: Way = status.facts["way"]
        return way

    async def down(self) -> bool:
        """Have it suspended, to be woken where it was; one that does not end is killed. Whether it was
        running."""
        pid = holder(self.folder)
        if pid is None:
            return False
        self.folder.unsaved.unlink(missing_ok=True)
        try:
            await self._ask("down")
        except SandboxGone:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not await self._ended(pid, _DOWN_S):
            await self.kill()
            why = f"its process stood still for {_DOWN_S:g} s, and was killed"
            with suppress(OSError):
                saved.write(self.folder.unsaved, f"{why}\n")
        return True

    def unsaved(self) -> str:
        """Why `down` could not suspend it; empty when that is not known, or it could."""
        try:
            return self.folder.unsaved.read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""

    async def kill(self) -> None:
        """End it as pulling the plug would. Raises `EnvironmentProblem` when it does not end."""
        pid = holder(self.folder)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not await self._ended(pid, _KILLED_S):
            raise EnvironmentProblem(f"process {pid} of the machine `{self.name}` cannot be killed")
        self.folder.socket.unlink(missing_ok=True)

    async def reset(self) -> None:
        """Forget all that was written in the machine. Raises `Busy` when it runs."""
        async with holding(self.folder):
            for path in (self.folder.overlay, self.folder.id):
                path.unlink(missing_ok=True)
            saved.remove(self.folder.suspended)

    async def remove(self) -> None:
        """Remove it with its disk. Raises `Busy` when it runs."""
        place = self.folder.path.parent
        async with holding(self.folder):
            self.folder.path.replace(place / f"{_REMOVED}{secrets.token_hex(8)}")
        for stale in place.glob(f"{_REMOVED}*"):  # with what was left when this was cut short
            await asyncio.to_thread(saved.remove, stale)

    @asynccontextmanager
    async def channel(self, surroundings: Surroundings) -> AsyncIterator[Channel]:
        """Commands and files in it. Raises `SandboxGone` when it is not up."""
        async with self._link() as link:
            yield Channel(link, surroundings)

    @asynccontextmanager
    async def _link(self) -> AsyncIterator[Link]:
        if not self.folder.socket.exists():
            raise SandboxGone(f"the machine `{self.name}` is not up", "`org vm up`")
        async with linked(self.folder.socket, f"the machine `{self.name}`") as link:
            yield link

    async def _ask(self, what: str) -> Mapping[str, Any]:
        """What the machine's process itself answers. Raises `SandboxGone`."""
        async with self._link() as link:
            talk = link.open({"op": what})
            while (await talk.next()).kind != frames.CLOSE:
                pass
            return talk.closed or {}

    async def _ended(self, pid: int, seconds: float) -> bool:
        """Whether that process gets done with it, which shows no sign of life for so many seconds at most;
        another may have it by then."""
        patience = Patience(self.folder, seconds)
        while holder(self.folder) == pid:
            if patience.over():
                return False
            await asyncio.sleep(_POLL_S)
        return True


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def machines_of(state: Path) -> list[Machine]:
    """All machines, by name."""
    return [
        Machine(MachineFolder(path.parent)) for path in sorted(layout.machines(state).glob("[!.]*/image"))
    ]


def machine_of(state: Path, name: str = DEFAULT) -> Machine:
    """The machine `name`. `state` is the user's state folder of this program. Raises `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a machine's name is of a-z, 0-9 and `-`, 32 at most: {name!r}")
    return Machine(MachineFolder(layout.machines(state) / name))
