"""From a forked process to a command: into its cgroups, descriptors, folder and user, in this order.
Standard library only."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import resource
import signal
import termios
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS = 38
_MOST_FILES = 4096
_NOT_FOUND, _NOT_RUN = 127, 126


class Identity(NamedTuple):
    """Who a command runs as."""

    uid: int
    gid: int


class Plan(NamedTuple):
    """How a command starts. `stdio` are the descriptors to become 0, 1 and 2; `entrances` the open
    `cgroup.procs` files of its group; `terminal` says that they are a terminal, to be its own."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    identity: Identity
    stdio: tuple[int, int, int]
    entrances: Sequence[int]
    terminal: bool = False


def identity(user: str) -> Identity:
    """By name, or by number for both. Raises `KeyError` for a name that nobody has."""
    if user.isdigit():
        return Identity(int(user), int(user))
    entry = pwd.getpwnam(user)
    return Identity(entry.pw_uid, entry.pw_gid)


def become(plan: Plan) -> None:
    """Turn this process, freshly forked, into the one that `plan` describes, short of its program.
    Raises `OSError`."""
    os.setsid()
    for entrance in plan.entrances:
        os.write(entrance, b"0")
    # By copies, so that none of the three stands in the way of another.
    for number, fd in enumerate([os.dup(fd) for fd in plan.stdio]):
        os.dup2(fd, number)
    if plan.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("0")
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    os.umask(0o022)
    uid, gid = plan.identity
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if uid != 0:
        # No set-uid program lends it another user again.
        _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.chdir(plan.cwd)


def execute(plan: Plan) -> NoReturn:
    """In a freshly forked process: run the program of `plan`. Never returns.

    A program that cannot be started is said on its own output, as a shell would, with its exit code.
    """
    code = _NOT_RUN
    try:
        become(plan)
        os.execvpe(plan.argv[0], list(plan.argv), dict(plan.env))
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN
        os.write(2, f"{plan.argv[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(code)
