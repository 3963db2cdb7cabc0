"""A QEMU that runs: behind its walls, with its control socket connected and its console kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from org.errors import SandboxGone
from org.sandbox.vm import qemu, qmp
from org.sandbox.vm.box import boxed
from org.sandbox.vm.console import Console
from org.sandbox.vm.environment import bare
from org.sandbox.vm.layout import MachineFolder
from org.sandbox.vm.qemu import MachineSpec
from org.sandbox.vm.tied import tied
from org.sandbox.vm.trickle import Trickle

_READ = 65_536
_HEARD_S = 1.0


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """`walls` are what stands around the guest, the accelerator first."""

    process: asyncio.subprocess.Process
    qmp: qmp.Qmp
    console: Console
    walls: tuple[str, ...]
    _hearing: asyncio.Task[None]

    async def ended(self) -> SandboxGone:
        """What is to be raised when it ended by itself."""
        return SandboxGone(f"the machine ended (QEMU: {self.process.returncode}){await self.last_words()}")

    async def last_words(self) -> str:
        """Those of the guest's console; when it ends just now, with what it says at its very end."""
        await asyncio.wait([self._hearing], timeout=_HEARD_S)
        return self.console.last_words()


@asynccontextmanager
async def running(
    spec: MachineSpec, folder: MachineFolder, image: Path, log: Callable[[str], None]
) -> AsyncIterator[Hypervisor]:
    """Start QEMU, which ends with the block if it did not before. Its own words go to `log`.

    It sees the folder `image` and what `spec` names, and writes to the disks and the memory in there.
    What else is in `folder` it does not see: its console is kept there, and its sockets are made there.
    Raises `SandboxGone` when it does not answer.
    """
    reads = [image] if spec.incoming else [image, Path(spec.initrd)]
    writes = [Path(drive.path) for drive in spec.drives]
    if spec.memory.path:
        writes.append(Path(spec.memory.path))
    said = Console(folder.console)
    with listening(folder.qmp, folder.ctl, folder.net) as fds:
        ports = tuple(replace(port, fd=fd) for port, fd in zip(spec.ports, fds[1:], strict=True))
        words = qemu.argv(replace(spec, qmp=fds[0], ports=ports))
        argv, walls = await boxed(words, reads, writes, kvm=spec.accel == "kvm")
        process = await asyncio.create_subprocess_exec(
            *tied(argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=bare(),
            pass_fds=fds,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    hearing = asyncio.create_task(said.keep(process.stdout))
    logging = asyncio.create_task(_logged(process.stderr, log))
    try:
        async with qmp.connect(folder.qmp, alive=lambda: process.returncode is None) as control:
            yield Hypervisor(process, control, said, (spec.accel.upper(), *walls), hearing)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        await asyncio.gather(hearing, logging)


@contextmanager
def listening(*paths: Path) -> Iterator[list[int]]:
    """New sockets at `paths`, as descriptors for QEMU, which needs no folder to make them in then."""
    with ExitStack() as stack:
        fds = []
        for path in paths:
            path.unlink(missing_ok=True)
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            one.bind(str(path))
            path.chmod(0o600)
            fds.append(one.fileno())
        yield fds


async def _logged(said: asyncio.StreamReader, log: Callable[[str], None]) -> None:
    """A guest can make QEMU complain without end: the log has bounds."""
    bounded = Trickle(log)
    while data := await said.read(_READ):
        for line in data.decode(errors="replace").splitlines():
            bounded(f"QEMU: {line}")
    bounded.tell()
