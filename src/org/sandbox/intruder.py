"""Tries to get out of the place it runs in, and writes what happened as JSON: {attempt: [held, detail]}.

This is a program for the sandbox, never imported; its one argument is a JSON object made by
`proof`. Each attempt runs in a process of its own, so that one that is killed costs only itself.
What it manages to create it removes again.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_PTRACE_SEIZE = 0x4206

Finding = tuple[bool, str]
Given = dict[str, Any]
Attempts = dict[str, Callable[[], object]]


def _refused(attempts: Attempts) -> Finding:
    """Held when each of the attempts is refused; the detail names the first that was not."""
    last = ""
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            last = f"{name}: {error.strerror or error}"
            continue
        return False, name
    return True, last


def _system(number: int) -> None:
    if number != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _open(path: str, mode: str = "rb") -> None:
    with open(path, mode):
        pass


def _open_device(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK))


def tcp(given: Given) -> Finding:
    def connect() -> None:
        socket.create_connection(("127.0.0.1", given["tcp"]), timeout=3).close()

    return _refused({f"connected to 127.0.0.1 port {given['tcp']}": connect})


def udp(given: Given) -> Finding:
    def ask(host: str, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0.5)
            sender.connect((host, port))
            sender.send(b"a question to a name server")
            sender.recv(100)

    def find_route() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("192.0.2.53", 53))  # sends nothing, but needs a way out

    return _refused(
        {
            f"asked 127.0.0.1 port {given['udp']}": partial(ask, "127.0.0.1", given["udp"]),
            "found a route out": find_route,
        }
    )


def unix(given: Given) -> Finding:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect("\0" + given["unix"])

    return _refused({"connected to an abstract socket of the machine": connect})


def home(given: Given) -> Finding:
    return _refused({f"listed {path}": partial(os.listdir, path) for path in given["homes"]})


def secrets(given: Given) -> Finding:
    return _refused({f"opened {path}": partial(_open, path) for path in given["secrets"]})


def outside(given: Given) -> Finding:
    """The canary is a file outside the workspace; the ways to it are its path and detours."""
    canary = given["canary"]
    link = f"intruder-{os.getpid()}"
    os.symlink(canary, link)
    ways = [canary, "../" * 20 + canary, f"/proc/1/root{canary}", f"/proc/self/root{canary}", link]
    try:
        return _refused({f"opened {way} for writing": partial(_open, way, "r+b") for way in ways})
    finally:
        os.unlink(link)


def system(given: Given) -> Finding:
    def make(folder: str) -> None:
        path = f"{folder}/intruder-{os.getpid()}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)

    attempts: Attempts = {
        f"made a file in {folder}": partial(make, folder)
        for folder in ("/", "/usr", "/usr/bin", "/etc", "/var", "/var/tmp", "/dev", "/run")
    }
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        attempts[f"opened {path} for writing"] = partial(_open_device, path, os.O_WRONLY)
    return _refused(attempts)


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
        return False, f"saw process {found[0]} of the machine"
    return True, "no process of the machine in /proc"


def kill(given: Given) -> Finding:
    targets = _aims(given)
    return _refused({f"could signal process {pid}": partial(os.kill, pid, 0) for pid in targets})


def trace(given: Given) -> Finding:
    def seize(pid: int) -> None:
        _system(_LIBC.ptrace(_PTRACE_SEIZE, pid, None, None))

    targets = _aims(given)
    attempts: Attempts = {}
    for pid in targets:
        attempts[f"traced process {pid}"] = partial(seize, pid)
        attempts[f"opened the memory of process {pid}"] = partial(_open, f"/proc/{pid}/mem", "r+b")
    return _refused(attempts)


def privileges(given: Given) -> Finding:
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            return False, f"{name} is {status[name]}"
    if status["NoNewPrivs"].strip() != "1":
        return False, "programs may gain privileges by setuid"
    return _refused(
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
        return False, "not known how to ask on this machine"

    def find_keyring() -> None:
        if _LIBC.syscall(number, 0, ctypes.c_long(-3), 0) == -1:
            _system(-1)

    return _refused({"reached a keyring of the machine": find_keyring})


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
            return False, f"process {name} shows {sorted(names - allowed)[0]}"
    return True, "only " + ", ".join(sorted(allowed))


def terminal(given: Given) -> Finding:
    return _refused({"opened the terminal": partial(_open_device, "/dev/tty", os.O_RDWR)})


def devices(given: Given) -> Finding:
    paths = ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun"]
    with open("/proc/partitions") as file:
        paths += [f"/dev/{line.split()[3]}" for line in file.readlines()[2:]]
    return _refused({f"opened {path}": partial(_open_device, path, os.O_RDONLY) for path in paths})


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
        return True, f"after {len(children)} of {most} allowed: {error.strerror}"
    finally:
        os.close(writing)
        for pid in children:
            os.waitpid(pid, 0)
    return False, f"started {most + 1} processes, {most} are allowed"


def memory(given: Given) -> Finding:
    size = given["memory"]
    return _refused({f"got {size} bytes of memory": lambda: mmap.mmap(-1, size).close()})


def file_size(given: Given) -> Finding:
    def grow() -> None:
        path = f"intruder-{os.getpid()}"
        with open(path, "wb", buffering=0) as file:
            os.unlink(path)
            file.seek(given["file_size"])
            file.write(b"x")

    return _refused({f"wrote a file of {given['file_size'] + 1} bytes": grow})


_ATTEMPTS = (
    tcp,
    udp,
    unix,
    home,
    secrets,
    outside,
    system,
    see,
    kill,
    trace,
    privileges,
    keys,
    environment,
    terminal,
    devices,
    processes,
    memory,
    file_size,
)


def _alone(attempt: Callable[[Given], Finding], given: Given) -> Finding:
    """The finding of one attempt, made in a child process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump(attempt(given), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    if not said:
        return False, f"the attempt itself failed (exit code {os.waitstatus_to_exitcode(status)})"
    held, detail = json.loads(said)
    return held, detail


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    json.dump({attempt.__name__: _alone(attempt, arguments) for attempt in _ATTEMPTS}, sys.stdout)
