"""Files, processes, privileges and limits: what a wall around a process must hold against.

What an attempt manages to create it removes again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder.basics import FELL, HELD, Finding, Given, opened, refused
else:  # sent along with this part
    from basics import FELL, HELD, Finding, Given, opened, refused

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_PTRACE_SEIZE = 0x4206


def _system(number: int) -> None:
    if number != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _open_device(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))


def home(given: Given) -> Finding:
    return refused({f"listed {path}": partial(os.listdir, path) for path in given["homes"]})


def secrets(given: Given) -> Finding:
    return refused({f"opened {path}": partial(opened, path) for path in given["secrets"]})


def outside(given: Given) -> Finding:
    """The canary is a file outside the workspace; the ways to it are its path and detours."""
    canary = given["canary"]
    link = f"intruder-{os.getpid()}"
    os.symlink(canary, link)
    ways = [canary, "../" * 20 + canary, f"/proc/1/root{canary}", f"/proc/self/root{canary}", link]
    try:
        return refused({f"opened {way} for writing": partial(opened, way, "r+b") for way in ways})
    finally:
        os.unlink(link)


def system(given: Given) -> Finding:
    def make(folder: str) -> None:
        path = f"{folder}/intruder-{os.getpid()}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)

    attempts: dict[str, Callable[[], object]] = {
        f"made a file in {folder}": partial(make, folder)
        for folder in ("/", "/usr", "/usr/bin", "/etc", "/var", "/var/tmp", "/dev", "/run")
    }
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        attempts[f"opened {path} for writing"] = partial(_open_device, path, os.O_WRONLY)
    return refused(attempts)


def _victims(given: Given) -> list[int]:
    """The processes that carry the token in their arguments, this one and its kind left out."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if file.read().split(b"\0")[-2:-1] == [given["token"].encode()]:
                    found.append(int(name))
        except OSError:
            continue
    return found


def _aims(given: Given) -> list[int]:
    """The processes that were found, or the number that one is known by where nothing shows it.

    A process of this place may have that number too; such a one is no aim.
    """
    if os.path.exists(f"/proc/{given['victim']}"):
        return _victims(given)
    return [given["victim"]]


def see(given: Given) -> Finding:
    found = _victims(given)
    if found:
        return FELL, f"saw process {found[0]} of the host"
    return HELD, "no process of the host in /proc"


def kill(given: Given) -> Finding:
    targets = _aims(given)
    return refused({f"could signal process {pid}": partial(os.kill, pid, 0) for pid in targets})


def trace(given: Given) -> Finding:
    def seize(pid: int) -> None:
        _system(_LIBC.ptrace(_PTRACE_SEIZE, pid, None, None))

    targets = _aims(given)
    attempts: dict[str, Callable[[], object]] = {}
    for pid in targets:
        attempts[f"traced process {pid}"] = partial(seize, pid)
        attempts[f"opened the memory of process {pid}"] = partial(opened, f"/proc/{pid}/mem", "r+b")
    return refused(attempts)


def privileges(given: Given) -> Finding:
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            return FELL, f"{name} is {status[name]}"
    if status["NoNewPrivs"].strip() != "1":
        return FELL, "programs may gain privileges by setuid"
    return refused(
        {
            "became root": lambda: os.setuid(0),
            "made a user namespace": lambda: _system(_LIBC.unshare(_NEW_USER)),
            "made a mount namespace": lambda: _system(_LIBC.unshare(_NEW_MOUNTS)),
            "mounted a file system": lambda: _system(_LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
        }
    )


def keys(given: Given) -> Finding:
    """The session keyring comes with the person who started all this, through every namespace."""
    number = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    if number is None:
        return FELL, "not known how to ask on this machine"

    def find_keyring() -> None:
        if _LIBC.syscall(number, 0, ctypes.c_long(-3), 0) == -1:
            _system(-1)

    return refused({"reached a keyring of the host": find_keyring})


def environment(given: Given) -> Finding:
    """No process that can be seen may have a variable beyond the few that every command gets."""
    allowed = set(given["variables"])
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                names = {part.partition(b"=")[0].decode() for part in file.read().split(b"\0") if part}
        except OSError:
            continue
        if names - allowed:
            return FELL, f"process {name} shows {sorted(names - allowed)[0]}"
    return HELD, "only " + ", ".join(sorted(allowed))


def terminal(given: Given) -> Finding:
    return refused({"opened the terminal": partial(_open_device, "/dev/tty", os.O_RDWR)})


def devices(given: Given) -> Finding:
    paths = ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun"]
    with open("/proc/partitions") as file:
        paths += [f"/dev/{line.split()[3]}" for line in file.readlines()[2:]]
    return refused({f"opened {path}": partial(_open_device, path, os.O_RDONLY) for path in paths})


def processes(given: Given) -> Finding:
    most = given["processes"]
    reading, writing = os.pipe()
    children: list[int] = []
    try:
        for _ in range(most + 1):
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)  # ends when the other side is closed
                os._exit(0)
            children.append(pid)
    except OSError as error:
        return HELD, f"after {len(children)} of {most} allowed: {error.strerror}"
    finally:
        os.close(writing)
        for pid in children:
            os.waitpid(pid, 0)
    return FELL, f"started {most + 1} processes, {most} are allowed"


def memory(given: Given) -> Finding:
    size = given["memory"]
    return refused({f"got {size} bytes of memory": lambda: mmap.mmap(-1, size).close()})


def file_size(given: Given) -> Finding:
    def grow() -> None:
        path = f"intruder-{os.getpid()}"
        with open(path, "wb", buffering=0) as file:
            os.unlink(path)
            file.seek(given["file_size"])
            file.write(b"x")

    return refused({f"wrote a file of {given['file_size'] + 1} bytes": grow})
