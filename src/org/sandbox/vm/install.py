"""This very version of the program, put into a machine that is up: nothing is fetched in there."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem, UsageError
from org.ports import Command, ExecResult
from org.sandbox.vm.bundle import ABOUT, HOME, archive_for, compiled, key_of
from org.sandbox.vm.channel import Channel, Surroundings
from org.sandbox.vm.image.recipe import DEBIAN_ARCH
from org.sandbox.vm.image.store import OnProgress, Progress
from org.sandbox.vm.machine import Machine
from org.sandbox.vm.place import memory_of
from org.sandbox.vm.wheels import Target
from org.wording import one_line

PROGRAM = "/usr/local/bin/org"
CURRENT = f"{HOME}/current"
_PIECE = 262_144
_SAID = 300
_SETTLE_S = 600.0
_OLDEST = (3, 11)
_GLIBC = re.compile(r"glibc (\d)\.(\d{1,2})(\..*)?")
_LOOK = """\
import json, os, platform, sys
libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
here = os.path.realpath("/opt/org/current")
print(json.dumps([sys.version_info[:3], sys.executable, platform.machine(), libc, os.path.basename(here)]))
"""
# Arguments: a folder to be made, and how many bytes are to go there; `tar` would go on to the end without
# room. What an attempt left that was cut off is removed; another one may be under way.
_MAKE_ROOM = f"""\
mkdir -p {HOME}
find {HOME} -mindepth 1 -maxdepth 1 -name '.*' -mmin +60 -exec rm -rf {{}} +
free=$(df --output=avail -B1 {HOME} | tail -n 1)
if [ "$free" -lt "$2" ]; then
    echo "No space left on device: {HOME} has $((free >> 20)) MiB, org needs $(($2 >> 20))"
    exit 1
fi
mkdir "$1"
"""
# Where bytecode was not made by the host, what a verb imports is compiled once, by the only one who may
# write there.
_COMPILE = "import org.cli.serve, org.cli.run, org.cli.chat, org.cli.doctor, org.cli.rooms"
_TRY = "import org"
_SETTLE = """\
set -e
cd /opt/org
"$1/bin/python" -I -c "$4"
ln -sfn "$1" current.new
mv -T current.new current
ln -sf /opt/org/current/bin/org "$2"
for other in */; do
    case "${other%/}" in "$1" | "$3" | current) continue ;; esac
    # What runs from there is left what it has not read yet.
    grep -qsF "/opt/org/${other%/}/" /proc/[0-9]*/cmdline /proc/[0-9]*/environ || rm -rf "$other"
done
sync -f .
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """`size` are the bytes that were sent; `already` says that this version was there before."""

    key: str
    size: int = 0
    already: bool = False


async def install(machine: Machine, cache: Path, on_progress: OnProgress) -> Installed:
    """Put this version of the program with its packages into the machine, as `/usr/local/bin/org`.

    Raises `SandboxGone` when it is not up, `EnvironmentProblem` when it cannot run there or be made.
    """
    memory = memory_of(await machine.up_or_gone())
    async with machine.channel(Surroundings("/", "root", memory=memory)) as channel:
        if known := await _known(channel):
            return known
        target, current = await _look(channel)
        key = await asyncio.to_thread(key_of, target)
        if key == current:
            return Installed(key, already=True)
        archive = await asyncio.to_thread(archive_for, target, key, cache, on_progress)
        await _send(channel, archive, key, on_progress)
        ready = compiled(target)
        on_progress(Progress("trying it in the machine" if ready else "compiling it in the machine"))
        code = _TRY if ready else _COMPILE
        await _done(channel, ["sh", "-c", _SETTLE, "sh", key, PROGRAM, current, code])
        return Installed(key, archive.stat().st_size)


async def _known(channel: Channel) -> Installed | None:
    """What is installed, when it is this version: told by a file, without a process in there."""
    try:
        told = json.loads(await channel.read_file(f"{CURRENT}/{ABOUT}".lstrip("/"), _SAID))
    except (UsageError, EnvironmentProblem, ValueError):
        return None
    match told:
        case [str(key), [int(), int(), int()] as python, str(program), str(arch), [int(), int()] as glibc]:
            target = Target((python[0], python[1], python[2]), program, arch, (glibc[0], glibc[1]))
            if await asyncio.to_thread(key_of, target) == key:
                return Installed(key, already=True)
        case _:
            pass
    return None


async def _look(channel: Channel) -> tuple[Target, str]:
    """What packages must run on there, and the key of what is installed. Raises `EnvironmentProblem`."""
    told = await _done(channel, ["python3", "-I", "-S", "-c", _LOOK])
    try:
        answer = json.loads(told.head)
    except ValueError:
        answer = None
    match answer:
        case [[int(major), int(minor), int(micro)], str(program), str(arch), str(libc), str(current)]:
            pass
        case _:
            raise EnvironmentProblem("the machine's Python does not say what it is")
    if (major, minor) < _OLDEST:
        raise EnvironmentProblem(
            f"the machine has Python {major}.{minor}; org needs {_OLDEST[0]}.{_OLDEST[1]} or newer",
            "`org vm import` takes another root file system",
        )
    if arch not in DEBIAN_ARCH:
        raise EnvironmentProblem(f"there are no packages for the machine's processor: {one_line(arch, 40)}")
    glibc = _GLIBC.fullmatch(libc)
    if glibc is None:
        raise EnvironmentProblem("the packages need the GNU C library, which the machine has not")
    return Target((major, minor, micro), program, arch, (int(glibc[1]), int(glibc[2]))), current


async def _send(channel: Channel, archive: Path, key: str, on_progress: OnProgress) -> None:
    """Unpack it beside its place, then put it there whole: what is in place is complete."""
    stage = f"{HOME}/.{secrets.token_hex(4)}"
    size = archive.stat().st_size
    await _done(channel, ["sh", "-c", _MAKE_ROOM, "sh", stage, str(size)])
    said = b""
    words = ["tar", "-x", "--no-same-owner", "--no-same-permissions", "-C", stage, "-f", "-"]
    async with channel.attached(words) as unpacking:
        with archive.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                await unpacking.write(piece)
                on_progress(Progress("putting it into the machine", file.tell(), size))
        unpacking.finish()
        while (more := await unpacking.next()) is not None:
            said = (said + more[1])[-2000:]
    if unpacking.code:
        raise _failed("unpack it", said)
    await _done(
        channel, ["sh", "-c", f"test -d {HOME}/{key} && rm -rf {stage} || mv -T {stage} {HOME}/{key}"]
    )


async def _done(channel: Channel, argv: list[str]) -> ExecResult:
    """Run a command as root. Raises `EnvironmentProblem` when it fails."""
    result = await channel.exec(Command(argv, timeout_s=_SETTLE_S))
    if result.exit_code:
        raise _failed(f"do `{argv[0]}`", result.head + result.tail)
    return result


def _failed(what: str, said: bytes) -> EnvironmentProblem:
    words = one_line(said.decode(errors="replace")[-_SAID:], _SAID)  # why it failed stands at the end
    return EnvironmentProblem(f"the machine cannot {what}: {words}", "`org vm shell --root` looks into it")
