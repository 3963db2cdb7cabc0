"""A person with a machine of the cached image: `org vm` as they type it, and what runs then."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from command import ORG, Home
from guest import CACHE
from org.config import Settings, load
from org.sandbox.vm import saved
from org.sandbox.vm.layout import MachineFolder, StateFolder
from org.sandbox.vm.machine import Machine, machine_of

MEMORY = 256 * 1024**2
UP_S = 300.0


class Owner(Home):
    """A home whose images are those of the user who runs the tests."""

    def __init__(self, folder: Path, base_url: str = "", model: str = "") -> None:
        super().__init__(folder, base_url, model)
        self.env["XDG_CACHE_HOME"] = str(CACHE.parent)

    @property
    def machine(self) -> Machine:
        return machine_of(self.folder / "state" / "org")

    def vm(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`org vm WORDS`."""
        return subprocess.run(
            [*ORG, "vm", *words],
            input=stdin,
            capture_output=True,
            env=self.env,
            cwd=self.project,
            timeout=UP_S,
            check=False,
        )

    def up(self, *words: str) -> None:
        done = self.vm("up", "--memory", "512", *words)
        assert done.returncode == 0, done.stderr.decode()

    def doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`org doctor WORDS`, which proves a machine's walls, and may take its time."""
        command = [*ORG, "doctor", *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.env, cwd=self.project, timeout=UP_S, check=False
        )

    def settings(self, **flags: object) -> Settings:
        named = {name.replace("__", "."): value for name, value in flags.items()}
        return load(cwd=self.project, flags=named, env=self.env)


@contextmanager
def owning(folder: Path, base_url: str = "", *words: str) -> Iterator[Owner]:
    """With a machine that is up, by `org vm up WORDS`, and whatever becomes of it, leaves nothing."""
    owner = Owner(folder, base_url)
    owner.up(*words)
    try:
        yield owner
    finally:
        assert owner.vm("rm", "-y").returncode == 0
        assert processes_of(owner.machine) == []


def copy_suspended(source: MachineFolder, target: MachineFolder) -> None:
    """Make a machine that is woken as the one at `source` would be."""
    passing = shutil.ignore_patterns("ctl", "net", "qmp", "ctl.sock", "console*", "log*", "lock")
    shutil.copytree(source.path, target.path, ignore=passing, dirs_exist_ok=True)
    state = StateFolder(target.suspended)
    key = json.loads(state.manifest.read_text())["key"]
    state.manifest.unlink()
    saved.seal(state, key, target.overlay)


def two_ports() -> int:
    """The first of two neighbours at which nobody listens."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 1)):
                return port


def processes_of(machine: Machine) -> list[int]:
    """The QEMUs that run from the machine's folder, with what they run behind."""
    mark = os.fsencode(machine.folder.overlay)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
