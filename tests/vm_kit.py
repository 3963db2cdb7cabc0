"""A guest without a machine: its agent and its relay as processes here, on unix sockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from org.sandbox.vm import frames
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.link import linked

SOURCE = Path(__file__).parent.parent / "src/org/sandbox/vm"
# The one of Debian, where there is one: somebody without rights can read its library.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
NOBODY = "65534" if os.geteuid() == 0 else str(os.geteuid())


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="org-vm-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Guest:
    """A running agent (or relay); `path` is the host's end of its port."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path, folder: Path) -> None:
        self.process = process
        self.path = path
        self.folder = folder
        self.workspace = folder / "work"

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(str(self.workspace), NOBODY)

    @asynccontextmanager
    async def channel(
        self, surroundings: Surroundings | None = None, *, ping_s: float = 2.0
    ) -> AsyncIterator[Channel]:
        async with linked(self.path, "the machine", ping_s=ping_s) as link:
            yield Channel(link, surroundings or self.surroundings)


@asynccontextmanager
async def agent(user: int | None = None) -> AsyncIterator[Guest]:
    """An agent; with `user` it runs as that one, and can enforce what that one may."""
    with open_folder() as folder:
        path = folder / "ctl"
        if user is not None:
            os.chown(folder, user, user)
        async with _running([str(SOURCE / "agent.py"), f"ctl={path}", "net="], path, user) as process:
            yield Guest(process, path, folder)


@asynccontextmanager
async def relay(model: int, inbound: Sequence[int] = ()) -> AsyncIterator[Guest]:
    """The guest's half of the relay, with `model` in place of port 11434."""
    with open_folder() as folder:
        path = folder / "net"
        arguments = [f"model={model}", "inbound=" + (",".join(map(str, inbound)) or "0")]
        async with _running([str(SOURCE / "guest_relay.py"), str(path), *arguments], path) as process:
            yield Guest(process, path, folder)


@asynccontextmanager
async def _running(
    words: Sequence[str], path: Path, user: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(PYTHON, "-S", "-B", *words, user=user, group=user)
    try:
        async with asyncio.timeout(30):
            while not _listens(path):
                assert process.returncode is None
                await asyncio.sleep(0.005)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        _end_families(process.pid)  # those of an agent that a test killed
        async with asyncio.timeout(30):
            await process.wait()


def _end_families(agent: int) -> None:
    """What stays in the cgroups of an agent that was killed: nobody is there to end it."""
    for folder in Path("/sys/fs/cgroup").glob(f"**/org-{agent}/*/cgroup.kill"):
        folder.write_text("1")


def _listens(path: Path) -> bool:
    """Whether somebody listens there; to try it out would be a connection."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Impostor:
    """A guest that does as a test says: `path` is where it is reached, `say` sends bytes as they are."""

    def __init__(self, path: Path, *, greets: bool = True) -> None:
        self.path = path
        self.heard: asyncio.Queue[frames.Frame] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._greets = greets
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()

    async def say(self, data: bytes) -> None:
        """Send it; when the host has hung up, nothing happens."""
        await self._ready.wait()
        assert self._writer is not None
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            self.gone.set()

    async def next(self, kind: int) -> frames.Frame:
        """The next frame of that kind that the host sent."""
        while (frame := await self.heard.get()).kind != kind:
            pass
        return frame

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        decoder = frames.Decoder(frames.MOST_ASKED)
        try:
            greeting = await reader.readexactly(frames.GREETING)
            if self._greets:
                about = frames.told(frames.NOTE, 0, {"version": frames.VERSION})
                writer.write(greeting + about)
            self._ready.set()
            while data := await reader.read(65_536):
                for frame in decoder.feed(data):
                    if frame.kind == frames.PING and self._greets:
                        writer.write(frames.frame(frames.PONG, 0, frame.payload))
                    self.heard.put_nowait(frame)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._ready.set()
            self.gone.set()
            writer.close()


@asynccontextmanager
async def impostor(*, greets: bool = True) -> AsyncIterator[Impostor]:
    with open_folder() as folder:
        guest = Impostor(folder / "port", greets=greets)
        server = await asyncio.start_unix_server(guest.serve, guest.path)
        async with server:
            yield guest
