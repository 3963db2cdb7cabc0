"""A guest without a machine: its agent and its relay as processes here, on unix sockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
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
    """An agent; with `user` it runs as that one, and can enforce what that one may. At `<folder>/jobs` it
    takes what is to run in the workspaces of the folder."""
    with open_folder() as folder:
        path = folder / "ctl"
        if user is not None:
            os.chown(folder, user, user)
        worker = NOBODY if user is None else str(user)
        terms = [f"jobs={folder}/jobs", f"server={worker}", f"worker={worker}", f"workspaces={folder}"]
        words = [str(SOURCE / "agent.py"), f"ctl={path}", "net=", *terms]
        async with _running(words, path, user) as process:
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
        async with asyncio.timeout(30):
            await process.wait()
            await _end_families(process.pid)


async def _end_families(agent: int) -> None:
    """What stays in the cgroups of an agent that was killed: nobody else is there to end it."""
    root = Path("/sys/fs/cgroup")
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    places = {root / name / path[1:] for _, names, path in own for name in ("", "unified", *names.split(","))}
    bases = [place / f"org-{agent}" for place in places if (place / f"org-{agent}").is_dir()]
    for base in bases:
        if (base / "cgroup.kill").exists():
            (base / "cgroup.kill").write_text("1")
    for base in bases:
        for folder in [*(one for one in base.iterdir() if one.is_dir()), base]:
            while folder.exists() and not _removed(folder):  # noqa: ASYNC110 -- the kernel, likewise
                await asyncio.sleep(0.01)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _listens(path: Path) -> bool:
    """Whether somebody listens there; to try it out would be a connection."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Impostor:
    """A guest that does as a test says: `path` is where it is reached, `say` sends bytes as they are.

    `before` is sent ahead of the greeting, `about` is what it says of itself; without `greets` it
    only listens, and answers no ping either.
    """

    def __init__(self, path: Path, *, greets: bool, before: bytes, about: Mapping[str, object]) -> None:
        self.path = path
        self.heard: asyncio.Queue[frames.Frame] = asyncio.Queue()
        self.gone = asyncio.Event()
        """Set when the host has hung up, or this side."""
        self._greets = greets
        self._before = before
        self._about = about
        self._mute = not greets
        self._ready = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

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

    def mute(self, mute: bool) -> None:
        """Whether pings are left without an answer."""
        self._mute = mute

    async def deafen(self) -> None:
        """Read nothing any more."""
        await self._ready.wait()
        assert self._writer is not None
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def hang_up(self) -> None:
        await self._ready.wait()
        assert self._writer is not None
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        decoder = frames.Decoder(frames.MOST_ASKED)
        try:
            greeting = await reader.readexactly(frames.GREETING)
            if self._greets:
                about = frames.told(frames.NOTE, 0, self._about)
                writer.write(self._before + greeting + about)
            self._ready.set()
            while data := await reader.read(65_536):
                for frame in decoder.feed(data):
                    if frame.kind == frames.PING and not self._mute:
                        writer.write(frames.frame(frames.PONG, 0, frame.payload))
                    self.heard.put_nowait(frame)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._ready.set()
            self.gone.set()
            writer.close()


@asynccontextmanager
async def impostor(
    *, greets: bool = True, before: bytes = b"", about: Mapping[str, object] | None = None
) -> AsyncIterator[Impostor]:
    with open_folder() as folder:
        says = about or {"version": frames.VERSION}
        guest = Impostor(folder / "port", greets=greets, before=before, about=says)
        server = await asyncio.start_unix_server(guest.serve, guest.path)
        async with server:
            yield guest
