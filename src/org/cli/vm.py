"""`org vm`: the machine in which the models' commands run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from org.cli.options import Parser
from org.cli.style import Style
from org.config import Settings, load
from org.errors import Busy, Denied, ExitCode, SandboxGone, UsageError
from org.sandbox.vm.channel import Attached, Surroundings
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.image import Image, Progress, build_image, import_image
from org.sandbox.vm.machine import Machine, Status, machine_of
from org.sandbox.vm.place import WORKSPACES, memory_of
from org.wording import ago, clean, duration

JSON_VERSION = 1
MEMORY_MIB = 1024
_MOST_CPUS = 2
_READ = 65_536
_ABOUT = {
    "up": "start it; the first time its image is made",
    "status": "what it is and what it reaches",
    "exec": "run a command in it",
    "shell": "a shell in it",
    "down": "end it; its disk stays",
    "reset": "start it anew with an empty disk",
    "rm": "remove it with its disk",
    "logs": "what its process and its console said",
    "import": "make it of a root file system of yours",
}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org vm",
        description="A machine of your own for the models' commands. It has no network device: all that it "
        "reaches is the model server's API. While it is up, `org chat` and `org run` run tools in it.",
    )
    verbs = made.add_subparsers(prog="org vm", dest="verb", metavar="VERB", required=True)
    made_of = {name: verbs.add_parser(name, description=about, help=about) for name, about in _ABOUT.items()}
    for name in ("up", "reset"):
        made_of[name].add_argument("--memory", metavar="MIB", type=int, default=MEMORY_MIB, help="its memory")
        made_of[name].add_argument("--base", metavar="URL", help="the model server that it reaches")
    made_of["up"].add_argument("--mirror", metavar="URL", help="the Debian archive to make the image from")
    made_of["status"].add_argument("--json", action="store_true", help="print one JSON object")
    for name in ("exec", "shell"):
        made_of[name].add_argument("--room", metavar="ROOM", default="work", help="in this room's workspace")
        made_of[name].add_argument("--root", action="store_true", help="as the machine's root")
    made_of["exec"].add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER)
    made_of["down"].add_argument("--hard", action="store_true", help="at once, as pulling the plug would")
    for name in ("reset", "rm"):
        made_of[name].add_argument("-y", "--yes", action="store_true", help="do not ask")
    made_of["logs"].add_argument("--console", action="store_true", help="what the kernel in it said")
    made_of["import"].add_argument(
        "file", metavar="FILE", type=Path, help="a tar, ext4, or disk (raw, qcow2)"
    )
    return made


def run(argv: list[str]) -> int:
    """Do one thing with the machine; `exec` and `shell` end as what ran in it did."""
    args = parser().parse_args(argv)
    settings = load(cwd=Path(), flags={"base": getattr(args, "base", None)}, env=os.environ)
    return asyncio.run(_do(args, settings, machine_of(settings.places.state)))


async def _do(args: argparse.Namespace, settings: Settings, machine: Machine) -> int:
    match args.verb:
        case "up":
            await _up(machine, settings, args.memory, args.mirror)
        case "status":
            status = await machine.status()
            style = Style.for_stream(sys.stdout, os.environ)
            print(as_json(status) if args.json else as_text(status, time.time(), style))
        case "exec":
            words = args.command[1:] if args.command[:1] == ["--"] else args.command
            if not words:
                raise UsageError("there is no command", "`org vm exec -- uname -a`")
            return await _exec(machine, await _surroundings(machine, args), words)
        case "shell":
            return await _shell(machine, await _surroundings(machine, args))
        case "down":
            await _down(machine, hard=args.hard)
        case "reset":
            await _known(machine)
            _confirm("all that was written in the machine is forgotten", yes=args.yes)
            await machine.down()
            machine.reset()
            await _up(machine, settings, args.memory, None)
        case "rm":
            await _known(machine)
            _confirm("the machine is removed with its disk", yes=args.yes)
            await machine.down()
            machine.remove()
            print(f"removed: {machine.name}")
        case "logs":
            await _known(machine)
            path = machine.folder.console if args.console else machine.folder.log
            if path.exists():
                for line in path.read_text(errors="replace").splitlines():
                    print(clean(line))
        case "import":
            await _import(machine, settings, args.file)
    return ExitCode.DONE


# -- what is shown


def as_json(status: Status) -> str:
    document = {
        "version": JSON_VERSION,
        "name": status.name,
        "state": status.state,
        "pid": status.pid,
        **status.facts,
    }
    return json.dumps(document, indent=1)


def as_text(status: Status, now: float, style: Style) -> str:
    words = {
        "absent": "there is none; `org vm up` makes it",
        "down": "down; `org vm up` starts it",
        "starting": f"starting (process {status.pid})",
        "silent": f"it does not answer (process {status.pid}); `org vm down` ends it",
        "up": style.green("up") + f" (process {status.pid})",
    }
    lines = [f"machine  {status.name}: {words[status.state]}"]
    facts = status.facts
    if not facts:
        return lines[0]
    network, counts = facts["network"], facts["network"]["counts"]
    lines += [
        f"started  {ago(facts['started'], now)}, up after {duration(facts['boot_s'])}",
        f"walls    {' + '.join(facts['walls'])}",
        f"image    {facts['image']}, memory: {facts['memory_mib']} MiB",
        f"network  no device; the model server only: {network['model_server']}",
        f"         paths: {' '.join(network['paths'])}",
        f"         requests: {counts['requests']}, refused: {counts['refused']}, "
        f"bytes from the guest: {counts['received']:,}, to it: {counts['sent']:,}",
    ]
    for port, here in network["inbound"].items():
        held = network["serving"].get(port)
        state = "nothing serves it" if held is None else f"held here by {clean(held)}" if held else "served"
        lines.append(f"         port {port} of the guest at 127.0.0.1:{here}: {state}")
    lines += [style.yellow(f"missing  {clean(text)}") for text in facts["missing"]]
    return "\n".join(lines)


class _Steps:
    """Progress on a terminal's one line; elsewhere a line for each step."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._last = ""
        self._begun = time.monotonic()

    def step(self, text: str) -> None:
        self._show(text, text)

    def progress(self, progress: Progress) -> None:
        text = progress.what
        if progress.bytes_total:
            text += f" {progress.bytes_done / 1e6:.1f} of {progress.bytes_total / 1e6:.1f} MB"
        if progress.packages_total:
            text += f", packages: {progress.packages_done} of {progress.packages_total}"
        if progress.seconds_left is not None:
            text += f", {duration(progress.seconds_left)} left"
        self._show(progress.what, text)

    def _show(self, step: str, text: str) -> None:
        if self._live:
            room = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[K{clean(text)[:room]}")
            self._out.flush()
        elif step != self._last:
            self._out.write(f"{clean(step)}\n")
            self._out.flush()
        self._last = step

    def close(self) -> None:
        if self._live and self._last:
            self._out.write("\r\x1b[K")
            self._out.flush()


@contextmanager
def _steps() -> Iterator[_Steps]:
    steps = _Steps(sys.stderr)
    try:
        yield steps
    finally:
        steps.close()


# -- up and down


async def _up(machine: Machine, settings: Settings, memory_mib: int, mirror: str | None) -> None:
    if not 256 <= memory_mib <= 1_048_576:
        raise UsageError(f"a machine has 256 MiB of memory or more, not {memory_mib}")
    status = await machine.status()
    if status.state == "up":
        print(f"the machine `{machine.name}` is up")
        return
    if status.state == "silent":
        raise Busy(
            f"the machine `{machine.name}` runs and does not answer (process {status.pid})",
            "`org vm down` ends it",
        )
    cache = settings.places.cache
    with _steps() as steps:
        image = machine.image(cache)
        if image is None:
            image = await build_image(cache, mirror=mirror, on_progress=steps.progress)
            _say_unsigned(image)
            machine.make(image)
        cpus = min(_MOST_CPUS, os.cpu_count() or 1)
        upstream = _upstream(settings)
        seconds = await machine.up(image, cache, upstream, steps.step, memory_mib=memory_mib, cpus=cpus)
    walls = " + ".join((await machine.status()).facts.get("walls", ()))
    print(f"the machine `{machine.name}` is up after {duration(seconds)} ({walls})")


def _say_unsigned(image: Image) -> None:
    if not image.signed:
        sys.stderr.write("warning: the archive's signatures were not checked while the image was made\n")


def _upstream(settings: Settings) -> Upstream:
    parts = urlsplit(settings.base)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Upstream(parts.hostname or "", port, parts.path, tls, settings.api_key(settings.base))


async def _down(machine: Machine, *, hard: bool) -> None:
    if hard:
        await machine.kill()
    elif not await machine.down():
        print(f"the machine `{machine.name}` is down already")
        return
    print(f"the machine `{machine.name}` is down")


async def _import(machine: Machine, settings: Settings, path: Path) -> None:
    if (await machine.status()).state != "absent":
        raise UsageError(f"there is a machine `{machine.name}` already", "`org vm rm` removes it")
    cache = settings.places.cache
    with _steps() as steps:
        base = await build_image(cache, on_progress=steps.progress)
        image = await import_image(cache, path.absolute(), base=base, on_progress=steps.progress)
        machine.make(image)
    print(f"the machine `{machine.name}` is made of {path}; `org vm up` starts it")


async def _known(machine: Machine) -> None:
    if (await machine.status()).state == "absent":
        raise UsageError("there is no machine", "`org vm up` makes it")


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Denied(f"{what} only when somebody says yes", "say it with `-y`")
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Denied("nothing was done")


# -- commands


async def _surroundings(machine: Machine, args: argparse.Namespace) -> Surroundings:
    memory = memory_of(await machine.up_or_gone())
    if args.root:
        return Surroundings("/root", "root", memory=memory)
    if "/" in args.room or args.room.startswith("."):
        raise UsageError(f"no such room: {args.room}")
    return Surroundings(f"{WORKSPACES}/{args.room}", memory=memory)


async def _exec(machine: Machine, surroundings: Surroundings, words: Sequence[str]) -> int:
    async with machine.channel(surroundings) as channel, channel.attached(words) as attached:
        async with _fed(attached):
            await _shown(attached)
        return _exit_code(attached)


async def _shell(machine: Machine, surroundings: Surroundings) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("a shell needs a terminal", "`org vm exec -- COMMAND` does not")
    size = os.get_terminal_size()
    env = {"TERM": os.environ.get("TERM", "xterm")}
    async with (
        machine.channel(surroundings) as channel,
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
