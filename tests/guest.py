"""A guest of the cached image with an agent of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from org.config.places import find_places
from org.sandbox.vm import accel, initramfs, qemu
from org.sandbox.vm.hypervisor import listening
from org.sandbox.vm.image import Image, build_image
from org.sandbox.vm.layout import MachineFolder

CACHE = find_places(Path.cwd(), os.environ).cache

# Answers each line, a Python expression or a call of `run(command)`, with a line of JSON.
AGENT = """
import json, os, subprocess
def run(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return done.stdout + done.stderr
def read(path):
    with open(path) as file:
        return file.read()
with open("/dev/virtio-ports/org.ctl", "r+b", buffering=0) as port:
    port.write(b'"ready"\\n')
    said = b""
    while True:
        said += port.read(4096) or b""
        while b"\\n" in said:
            line, said = said.split(b"\\n", 1)
            if line == b"end":
                raise SystemExit(0)
            port.write(json.dumps(eval(line)).encode() + b"\\n")
"""


@dataclass
class Guest:
    """A running guest: `ask` evaluates an expression in it."""

    process: asyncio.subprocess.Process
    folder: MachineFolder
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, expression: str) -> Any:
        self.writer.write(expression.encode() + b"\n")
        return json.loads(await self.reader.readline())

    async def tell(self, line: str) -> None:
        """Say something that is not answered."""
        self.writer.write(line.encode() + b"\n")
        await self.writer.drain()

    def console(self) -> str:
        return self.folder.console.read_text(errors="replace")


async def image() -> Image:
    """The image of this version, made when it is not in the user's cache."""
    return await build_image(CACHE)


async def overlay(path: Path, base: Path) -> None:
    """An empty disk over the image's root."""
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path))
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0


@asynccontextmanager
async def guest(folder: Path, of: Image, **more: Any) -> AsyncIterator[Guest]:
    """A guest in `folder`, with what is there already; `more` are fields of its `MachineSpec`."""
    machine = MachineFolder(folder)
    if not machine.overlay.exists():
        await overlay(machine.overlay, of.folder.root)
    side = initramfs.guest_side(["boot.py"]) | {"agent.py": AGENT.encode()}
    machine.initrd.write_bytes(initramfs.for_machine(of.folder, side))
    spec = qemu.MachineSpec(
        kernel=str(of.folder.kernel),
        initrd=str(machine.initrd),
        drives=(qemu.Drive(str(machine.overlay)),),
        ports=(qemu.Port("org.ctl"), qemu.Port("org.net")),
        accel=await accel.choose(CACHE, of.folder.kernel, of.arch),
        arch=of.arch,
        memory_mib=256,
        console=str(machine.console),
    )
    spec = replace(spec, **more)
    sockets = [folder / port.name.removeprefix("org.") for port in spec.ports]
    with listening(machine.qmp, *sockets) as fds:
        ports = tuple(replace(port, fd=fd) for port, fd in zip(spec.ports, fds[1:], strict=True))
        process = await asyncio.create_subprocess_exec(
            *qemu.argv(replace(spec, qmp=fds[0], ports=ports)), stdin=asyncio.subprocess.DEVNULL, pass_fds=fds
        )
    try:
        reader, writer = await _reached(machine.ctl, process)
        try:
            if not more.get("incoming"):
                assert json.loads(await reader.readline() or b"null") == "ready", machine.console.read_text()
            yield Guest(process, machine, reader, writer)
        finally:
            writer.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _reached(
    path: Path, process: asyncio.subprocess.Process
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while process.returncode is None:
        try:
            return await asyncio.open_unix_connection(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.01)
    raise AssertionError(f"QEMU ended with {process.returncode}")
