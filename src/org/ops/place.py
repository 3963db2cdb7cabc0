"""Where the verbs of generations act: in the machine when one is up on this host, else here.

What makes machines is no part of the rescue path: it is asked as another process, and `--here` goes
without. In a machine the verbs know by `ORG_OUTSIDE` how what they name is reached from its host.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from org.errors import Busy, UsageError
from org.ops import ours
from org.ops.layout import state_folder
from org.ops.waiting import waiting

OUTSIDE = "ORG_OUTSIDE"
"""JSON in the environment: `ports` of the machine and where they are on its host, `files` in it and where
they are to be there, and `merge`, what is typed there to get a commit."""
_GUEST = Path("/run/org-guest")
_ONLY_HERE = ("foreground", "systemd", "tmux")
_MOST_WAIT_S = 300.0


def act_there(name: str, args: Namespace, words: list[str]) -> NoReturn:
    """Become the process that carries a verb out in the machine, which is up."""
    for option in _ONLY_HERE:
        if getattr(args, option, False):
            raise UsageError(
                f"`--{option}` is of this host, and a machine is up", f"`org {name} --here …` acts here"
            )
    _become("vm", "generation", name, *words)


def _become(*words: str) -> NoReturn:
    sys.stdout.flush()
    there = ours.words("org", *words)
    os.execve(there[0], there, ours.environment(os.environ))


def in_guest() -> bool:
    """Whether this is a machine of ours."""
    return _GUEST.exists()


def is_carried_in() -> bool:
    """Whether the verb was typed on the host of this machine."""
    return OUTSIDE in os.environ


def machine_is_up(env: Mapping[str, str]) -> bool:
    """Whether the machine that verbs use is up on this host: its process holds the lock and listens. One
    that is starting or ending is waited for. Raises `Busy` when that lasts."""
    folder = _machine(env)
    with waiting("the machine `default`, which is starting or ending", _MOST_WAIT_S) as look:
        while _is_held(folder / "lock"):
            if (folder / "ctl.sock").exists():
                return True
            if not look():
                raise Busy(
                    "the machine `default` is starting or ending, and does not get done with it",
                    "`org vm status` says more; `--here` after the verb acts on this host",
                )
    return False


def _is_held(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def has_machine(env: Mapping[str, str]) -> bool:
    """Whether there is such a machine on this host, up or down."""
    return (_machine(env) / "image").exists()


def was_given(env: Mapping[str, str], program: str) -> bool:
    """Whether the machine was given the program whose folder is called so."""
    return (state_folder(env) / "fetched" / "default" / "programs" / f"{program}.git").is_dir()


def _machine(env: Mapping[str, str]) -> Path:
    return state_folder(env) / "machines" / "default"


def where(env: Mapping[str, str]) -> str:
    """The place in words, where there are two that could be meant."""
    if in_guest():
        return "in the machine; the addresses are this host's"
    return "on this host, not in the machine `default`" if has_machine(env) else ""


def name() -> str:
    return "guest" if in_guest() else "host"


def other_place() -> str:
    """The end of a hint to who finds nothing here: it may be on the other side."""
    return "; this is the machine, `--here` acts on your host" if in_guest() else ""


def known_as(repository: Path) -> Path:
    """What a person calls a program by its repository here; what a host sent says where the host has it."""
    if in_guest():
        return Path(os.fsdecode((repository / "description").read_bytes()).strip())
    return repository.parent if repository.name == ".git" else repository


# -- what a host says of itself


def seen(url: str) -> str:
    """Where what is at `url` here is for whoever typed the verb."""
    port = urlsplit(url).port
    outside = _outside().get("ports", {}).get(str(port))
    return f"http://127.0.0.1:{int(outside)}" if outside else url


def merge() -> str:
    """What is typed outside before a commit to get it; nothing when this is not a machine's business."""
    return str(_outside().get("merge", ""))


def ports(configured: Sequence[int]) -> tuple[int, int]:
    """Where current and the candidate are served: a machine passes these two on, and no others."""
    current, candidate = (7001, 7002) if in_guest() else configured
    return current, candidate


def called(path: str) -> str:
    """The name of a file here for whoever typed the verb."""
    return str(_outside().get("files", {}).get(path, path))


def _outside() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(os.environ.get(OUTSIDE, "{}"))
    return told
