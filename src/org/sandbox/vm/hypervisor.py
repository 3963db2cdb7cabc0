"""A QEMU that runs: behind its walls, with its control socket connected and its console kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from org.errors import SandboxGone
from org.sandbox.vm import qemu, qmp
from org.sandbox.vm.box import boxed
from org.sandbox.vm.console import Console
from org.sandbox.vm.qemu import MachineSpec
from org.sandbox.vm.tied import tied

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
    spec: MachineSpec,
    console: Path,
    log: Callable[[str], None],
    *,
    reads: Sequence[Path],
    writes: Sequence[Path],
) -> AsyncIterator[Hypervisor]:
    """Start QEMU, which ends with the block if it did not before.

    The guest's console is kept at `console`, QEMU's own words go to `log`; it sees `reads` and `writes`.
    `spec` names the control socket. Raises `SandboxGone` when it does not answer.
    """
    argv, walls = await boxed(qemu.argv(spec), reads, writes, kvm=spec.accel == "kvm")
    said = Console(console)
    process = await asyncio.create_subprocess_exec(
        *tied(argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    hearing = asyncio.create_task(said.keep(process.stdout))
    logging = asyncio.create_task(_logged(process.stderr, log))
    try:
        async with qmp.connect(Path(spec.qmp), alive=lambda: process.returncode is None) as control:
            yield Hypervisor(process, control, said, (spec.accel.upper(), *walls), hearing)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        await asyncio.gather(hearing, logging)


async def _logged(said: asyncio.StreamReader, log: Callable[[str], None]) -> None:
    """A guest can make QEMU complain without end: the log has bounds."""
    while data := await said.read(_READ):
        for line in data.decode(errors="replace").splitlines():
            log(f"QEMU: {line}")
