"""`org vm up`, `status`, `down`, `reset`, `rm`, `logs` and `import`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from org.cli.style import Style
from org.cli.vm.shown import HOW, as_json, as_text, later, steps_shown
from org.cli.vm.verb import Call, Verb, known
from org.config import Settings, load
from org.config.urls import base_url
from org.errors import Busy, Denied, ExitCode, UsageError
from org.sandbox.vm import accel, box, programs
from org.sandbox.vm.console import older
from org.sandbox.vm.gate import Upstream
from org.sandbox.vm.image import Image, build_image, import_image
from org.sandbox.vm.machine import Machine, Status, machine_of, machines_of
from org.wording import clean, duration

MEMORY_MIB = 1024
PORT = 7001
_MOST_CPUS = 2
_MOST = 32  # machines that one call starts
_AT_A_TIME = 2


def _start_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory", metavar="MIB", type=int, help=f"its memory ({MEMORY_MIB}, or what it had)"
    )
    parser.add_argument(
        "--base", metavar="URL", help="the model server that it reaches (the settings', or what it had)"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        help=f"where its ports appear here: 7001 at N, 7002 next ({PORT}, or where they did)",
    )


def _up_options(parser: argparse.ArgumentParser) -> None:
    _start_options(parser)
    parser.add_argument("--count", metavar="N", type=int, default=1, help="so many, NAME, NAME-2 and so on")
    _mirror_option(parser)


def _mirror_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mirror", metavar="URL", help="the Debian archive to make the image from")


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _down_options(parser: argparse.ArgumentParser) -> None:
    _all_option(parser)
    parser.add_argument("--hard", action="store_true", help="at once, as pulling the plug would")


def _all_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="all machines")


def _rm_options(parser: argparse.ArgumentParser) -> None:
    _all_option(parser)
    _yes_option(parser)


def _yes_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _reset_options(parser: argparse.ArgumentParser) -> None:
    _start_options(parser)
    _yes_option(parser)


def _logs_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--console", action="store_true", help="what the kernel in it said")


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a tar, ext4, or disk (raw, qcow2)")
    _mirror_option(parser)


async def _up_verb(call: Call) -> int:
    if not 1 <= call.args.count <= _MOST:
        raise UsageError(f"1 to {_MOST} machines can be started, not {call.args.count}")
    _warn(call.settings)
    first = call.machine.name
    names = [first, *(f"{first}-{number}" for number in range(2, call.args.count + 1))]
    await _up_all([machine_of(call.settings.places.state, name) for name in names], call)
    return ExitCode.DONE


async def _status(call: Call) -> int:
    with later(f"waiting for the machine `{call.machine.name}` to answer"):
        status = await call.machine.status()
    others = [one for one in machines_of(call.settings.places.state) if one.name != status.name]
    also = await asyncio.gather(*(one.status() for one in others))
    style = Style.for_stream(sys.stdout, os.environ)
    print(as_json(status, also) if call.args.json else as_text(status, also, time.time(), style))
    return ExitCode.DONE


async def _reset(call: Call) -> int:
    await known(call.machine)
    _confirm("all that was written in the machine is forgotten", yes=call.args.yes)
    await call.machine.kill()
    await call.machine.reset()
    await _up(call.machine, call)
    return ExitCode.DONE


async def _rm(call: Call) -> int:
    machines = await _meant(call)
    if not machines:
        print("there is no machine")
        return ExitCode.DONE
    names = ", ".join(machine.name for machine in machines)
    _confirm(f"removed with all that was written in it: {names}", yes=call.args.yes)
    for machine in machines:
        await machine.kill()
        await machine.remove()
        print(f"removed: {machine.name}")
    return ExitCode.DONE


async def _meant(call: Call) -> list[Machine]:
    """The machine that is named, or all there are."""
    if call.args.all:
        return machines_of(call.settings.places.state)
    await known(call.machine)
    return [call.machine]


async def _logs(call: Call) -> int:
    await known(call.machine)
    folder = call.machine.folder
    newest = folder.console if call.args.console else folder.log
    for path in filter(Path.exists, (older(newest), newest)):
        for line in path.read_text(errors="replace").splitlines():
            print(clean(line))
    return ExitCode.DONE


async def _up_all(machines: Sequence[Machine], call: Call) -> None:
    """Start them: the first saves what the others are forked from, several at a time."""
    first, *others = machines
    await _up(first, call)
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def one(number: int, machine: Machine) -> None:
        async with turns:
            await _up(machine, call, number)

    await asyncio.gather(*(one(number, machine) for number, machine in enumerate(others, 1)))


async def _up(machine: Machine, call: Call, number: int = 0) -> None:
    """Start it, as the one with that number of several, each of which has its own ports here."""
    memory_mib = call.args.memory or machine.memory() or MEMORY_MIB
    if not 256 <= memory_mib <= 1_048_576:
        raise UsageError(f"a machine has 256 MiB of memory or more, not {memory_mib}")
    if call.args.port is None and not number:
        port = machine.port() or PORT
    else:
        port = (call.args.port or PORT) + 2 * number
    if not 1024 <= port < 65535:
        raise UsageError(f"no port for a machine: {port}", "1024 to 65534")
    settings, base = call.settings, machine.base()
    if call.args.base is None and base is not None:
        settings = load(cwd=Path(), flags={"base": base}, env=os.environ)
    with later(f"waiting for the machine `{machine.name}` to answer"):
        status = await machine.status()
    if status.state == "up":
        _check_same(status, call.args, port, settings.base)
        print(f"the machine `{machine.name}` is up")
        return
    if status.state == "silent":
        raise Busy(
            f"the machine `{machine.name}` runs and does not answer (process {status.pid})",
            "`org vm down` ends it",
        )
    cache = call.settings.places.cache
    with steps_shown() as steps:
        image = machine.image(cache)
        if image is None:
            machine.check_path()
            await accel.check_programs(os.uname().machine)
            image = await build_image(cache, mirror=call.settings.vm.mirror, on_progress=steps.progress)
            _say_unsigned(image)
            if not machine.make(image):  # somebody else did meanwhile
                image = machine.image(cache) or image
        cpus = min(_MOST_CPUS, os.cpu_count() or 1)
        started = await machine.up(
            image,
            cache,
            _upstream(settings),
            steps.step,
            memory_mib=memory_mib,
            cpus=cpus,
            port=port,
            base=None if call.args.base is None else settings.base,
        )
    for note in started.notes:
        sys.stderr.write(f"{clean(note)}\n")
    if started.way == "boot" and await programs.ended(machine.channel):
        sys.stderr.write("what it served has ended: `org start current` serves again\n")
    found = (await machine.status()).facts.get("walls", ())
    if found and (lacks := box.lacking(found)):
        sys.stderr.write(f"warning: the machine lacks {lacks}; `apt-get install bubblewrap`\n")
    walls = " + ".join(found)
    seconds = duration(started.seconds)
    print(f"the machine `{machine.name}` is up after {seconds}{HOW[started.way]} ({walls})")


def _check_same(status: Status, args: argparse.Namespace, port: int, base: str) -> None:
    """Raises `UsageError` when a machine that is up is not as it is asked for now; a model server that
    nobody named is warned of."""
    network = status.facts["network"]
    has = {
        "--memory": (args.memory, status.facts["memory_mib"]),
        "--port": (args.port and port, network["inbound"]["7001"]),
        "--base": (args.base and base, base_url(network["model_server"])),
    }
    differs = [f"{name} {is_now}" for name, (wanted, is_now) in has.items() if wanted not in (None, is_now)]
    hint = "`org vm down` first, then `org vm up` with what it is to have"
    if differs:
        raise UsageError(f"the machine `{status.name}` is up with {', '.join(differs)}", hint)
    if has["--base"][1] != base:
        sys.stderr.write(f"warning: it reaches {has['--base'][1]}, the settings say {base}: {hint}\n")


def _warn(settings: Settings) -> None:
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {clean(warning)}\n")


def _say_unsigned(image: Image) -> None:
    if not image.signed:
        sys.stderr.write("warning: the archive's signatures were not checked while the image was made\n")


def _upstream(settings: Settings) -> Upstream:
    parts = urlsplit(settings.base)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Upstream(parts.hostname or "", port, parts.path, tls, settings.api_key(settings.base))


async def _down(call: Call) -> int:
    machines = machines_of(call.settings.places.state) if call.args.all else [call.machine]
    await asyncio.gather(*(_end(machine, hard=call.args.hard) for machine in machines))
    return ExitCode.DONE


async def _end(machine: Machine, *, hard: bool) -> None:
    if hard:
        await machine.kill()
    else:
        with later(f"the machine `{machine.name}` is being saved"):
            went = await machine.down()
        if not went:
            print(f"the machine `{machine.name}` is down already")
            return
        if why := machine.unsaved():
            sys.stderr.write(f"warning: `{machine.name}` could not be suspended: {clean(why)}\n")
    words = (
        "suspended; `org vm up` wakes it"
        if (await machine.status()).suspended
        else "down; `org vm up` starts it"
    )
    print(f"the machine `{machine.name}` is {words}")


async def _import(call: Call) -> int:
    machine, path = call.machine, call.args.file
    if (await machine.status()).state != "absent":
        raise _there(machine)
    machine.check_path()
    await accel.check_programs(os.uname().machine)
    _warn(call.settings)
    cache = call.settings.places.cache
    with steps_shown() as steps:
        base = await build_image(cache, mirror=call.settings.vm.mirror, on_progress=steps.progress)
        image = await import_image(cache, path.absolute(), base=base, on_progress=steps.progress)
        if not machine.make(image):
            raise _there(machine)
    print(f"the machine `{machine.name}` is made of {path}; `org vm up` starts it")
    return ExitCode.DONE


def _there(machine: Machine) -> UsageError:
    return UsageError(f"there is a machine `{machine.name}` already", "`org vm rm` removes it")


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Denied(f"{what} only when somebody says yes", "say it with `-y`")
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Denied("nothing was done")


VERBS = {
    "up": Verb("start it; the first time its image is made", _up_options, _up_verb),
    "status": Verb("what it is and what it reaches", _status_options, _status),
    "down": Verb("suspend it; `up` wakes it where it was", _down_options, _down),
    "reset": Verb("start it anew with an empty disk", _reset_options, _reset),
    "rm": Verb("remove it with its disk", _rm_options, _rm),
    "logs": Verb("what its process and its console said", _logs_options, _logs),
    "import": Verb("make it of a root file system of yours", _import_options, _import),
}
