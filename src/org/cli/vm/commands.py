"""`org vm exec` and `org vm shell`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from org.cli.vm.jobs import detach
from org.cli.vm.shown import later
from org.cli.vm.verb import Call, Verb, room_of
from org.errors import SandboxGone, UsageError
from org.sandbox.vm.channel import Attached, Surroundings
from org.sandbox.vm.place import WORKSPACES, memory_of
from org.wording import clean

_READ = 65_536


def _place_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", metavar="ROOM", default="work", help="in this room's workspace")
    parser.add_argument("--root", action="store_true", help="as the machine's root")
    parser.add_argument("--user", metavar="USER", help="as this user of the machine, at home there")


def _exec_options(parser: argparse.ArgumentParser) -> None:
    _place_options(parser)
    parser.add_argument("--detach", action="store_true", help="let it go on; see `org vm jobs`")
    parser.add_argument("--job", metavar="JOB", default="", help="what a detached one is called (default: "
                        "as its program)")  # fmt: skip
    parser.add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER)


async def _surroundings(call: Call) -> Surroundings:
    args = call.args
    room_of(args)  # before anything is waited for
    with later(f"waiting for the machine `{call.machine.name}` to answer"):
        memory = memory_of(await call.machine.up_or_gone())
    if args.root or args.user == "root":
        return Surroundings("/root", "root", memory=memory)
    if args.user and args.user != "job":
        await _check_user(call, args.user)
        return Surroundings(f"/home/{args.user}", args.user, memory=memory)
    return Surroundings(f"{WORKSPACES}/{room_of(args)}", memory=memory)


async def _check_user(call: Call, user: str) -> None:
    """Raises `UsageError` for one that the machine does not have."""
    async with call.machine.channel(Surroundings("/", "root")) as channel:
        users = (await channel.read_file("etc/passwd")).decode(errors="replace").splitlines()
    names = [line.partition(":")[0] for line in users]
    if user not in names:
        raise UsageError(f"the machine has no user {user!r}", f"it has: {', '.join(map(clean, names))}"[:300])


async def _exec(call: Call) -> int:
    words = call.args.command[1:] if call.args.command[:1] == ["--"] else call.args.command
    if not words:
        raise UsageError("there is no command", "`org vm exec -- uname -a`")
    async with call.machine.channel(await _surroundings(call)) as channel:
        if call.args.detach:
            return await detach(channel, call.args.job, words)
        async with channel.attached(words) as attached:
            async with _fed(attached):
                await _shown(attached)
            return _exit_code(attached)


async def _shell(call: Call) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("a shell needs a terminal", "`org vm exec -- COMMAND` does not")
    surroundings = await _surroundings(call)
    size = os.get_terminal_size()
    env = {"TERM": os.environ.get("TERM", "xterm")}
    async with (
        call.machine.channel(surroundings) as channel,
        channel.attached(["bash", "-l"], env=env, terminal=(size.lines, size.columns)) as attached,
    ):
        with _raw(sys.stdin.fileno()), _resizing(attached):
            async with _fed(attached):
                await _shown(attached)
        return _exit_code(attached)


def _exit_code(attached: Attached) -> int:
    if attached.code is None:
        raise SandboxGone("the machine did not say how the command ended")
    return attached.code if attached.code >= 0 else 128 - attached.code


async def _shown(attached: Attached) -> None:
    """Pass on what the command says, as it is."""
    while (said := await attached.next()) is not None:
        stream, data = said
        out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
        out.write(data)
        out.flush()


@asynccontextmanager
async def _fed(attached: Attached) -> AsyncIterator[None]:
    """Standard input goes to the command for as long as the block."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()
    wanted = threading.Semaphore(1)

    def read() -> None:
        data = b"x"
        while data:
            wanted.acquire()
            data = os.read(0, _READ)
            # The loop ends with the command; this thread then still waits for somebody to type.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, data)

    async def feed() -> None:
        while data := await pieces.get():
            await attached.write(data)
            wanted.release()
        attached.finish()

    threading.Thread(target=read, daemon=True).start()
    feeding = loop.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _resizing(attached: Attached) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def resized() -> None:
        size = os.get_terminal_size()
        attached.resize(size.lines, size.columns)

    loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


VERBS = {
    "exec": Verb("run a command in it", _exec_options, _exec),
    "shell": Verb("a shell in it", _place_options, _shell),
}
