import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import org
from org.errors import EnvironmentProblem
from org.ports import Command, ExecResult, Sandbox
from org.sandbox import bubblewrap
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.limits import Limits
from org.sandbox.local import Local
from org.sandbox.proof import Probe, prove

LIMITS = Limits(processes=32, memory=512 * 1024**2)
WALLS = {"network", "files", "system", "processes", "privileges", "environment", "limits"}


def fell(probes: tuple[Probe, ...]) -> set[str]:
    return {probe.name for probe in probes if not probe.held}


@pytest.mark.sandbox
async def test_bubblewrap_holds_against_everything(tmp_path: Path) -> None:
    probes = await prove(Bubblewrap(tmp_path, LIMITS), LIMITS)
    assert [probe for probe in probes if not probe.held] == []
    assert {probe.wall for probe in probes} == WALLS
    assert os.listdir(tmp_path) == []


async def test_without_walls_the_attempts_get_through(tmp_path: Path) -> None:
    probes = await prove(Local(tmp_path, LIMITS, unsafe=True), LIMITS)
    by_name = {probe.name: probe for probe in probes}
    always = {
        "tcp",
        "udp",
        "unix",
        "outside",
        "system",
        "see",
        "kill",
        "processes",
        "privileges",
        "home",
        "keys",
    }
    assert always <= fell(probes)
    if os.geteuid() == 0:
        assert {"secrets", "trace"} <= fell(probes)
    assert by_name["tcp"].detail == "a connection arrived outside"
    assert "of the machine" in by_name["see"].detail
    assert by_name["memory"].held  # the limits are the same without walls
    assert by_name["file_size"].held
    assert os.listdir(tmp_path) == []


async def test_missing_limits_are_noticed(tmp_path: Path) -> None:
    place = Local(tmp_path, Limits(memory=64 * 1024**3, file_size=64 * 1024**3), unsafe=True)
    assert {"memory", "file_size"} <= fell(await prove(place, LIMITS))


# In front of the real one: puts its own options behind those that were given.
WEAKER = """#!/bin/bash
given=()
while [ "$1" != -- ]; do given+=("$1"); shift; done
exec {bwrap} "${{given[@]}}" {options} "$@"
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("options", "fallen"),
    [
        ("--share-net", {"tcp", "udp", "unix"}),
        ("--bind /tmp /tmp", {"outside"}),
        ("--ro-bind /etc /etc", {"secrets"}),
        ("--tmpfs /etc", {"system"}),
        ("--dev-bind /dev /dev", {"devices"}),
        ("--ro-bind /proc /proc", {"see"}),
        ("--setenv API_KEY secret", {"environment"}),
    ],
)
async def test_a_hole_in_a_wall_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, fallen: set[str]
) -> None:
    wrapper, work = tmp_path / "bin" / "bwrap", tmp_path / "work"
    wrapper.parent.mkdir()
    work.mkdir()
    wrapper.write_text(WEAKER.format(bwrap=shutil.which("bwrap"), options=options))
    wrapper.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_OUTER", {"PATH": f"{wrapper.parent}:/usr/bin:/bin"})
    found = fell(await prove(Bubblewrap(work, LIMITS), LIMITS))
    if os.geteuid() != 0:  # what only root could have reached is out of reach without the wall, too
        fallen = fallen - {"devices"}
    assert fallen <= found


class _Changed:
    """A place whose first argument is replaced, to see what becomes of a program that fails."""

    def __init__(self, place: Sandbox, argv: list[str]) -> None:
        self._place = place
        self._argv = argv

    async def exec(self, command: Command, on_output: object = None) -> ExecResult:
        return await self._place.exec(Command(self._argv, stdin=command.stdin))

    async def read_file(self, path: str, limit: int = 0) -> bytes:
        raise NotImplementedError

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("argv", "said"), [(["no-such-python"], "not found"), (["sh", "-c", "exit 7"], "exit code 7")]
)
async def test_a_place_that_cannot_be_tried(tmp_path: Path, argv: list[str], said: str) -> None:
    with pytest.raises(EnvironmentProblem, match=said):
        await prove(_Changed(Local(tmp_path, unsafe=True), argv), LIMITS)


# Started as root, so that it can read its own interpreter wherever that lies; then a user like any.
AS_USER = """
import asyncio, os, sys
from importlib.resources import files
from pathlib import Path
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.limits import Limits
from org.sandbox.proof import prove

folder, uid = Path(sys.argv[1]), int(sys.argv[2])
files("org.sandbox")  # imports what it needs
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
limits = Limits(processes=32, memory=512 * 1024**2)
probes = asyncio.run(prove(Bubblewrap(folder, limits), limits))
print(os.geteuid(), len(probes), [probe for probe in probes if not probe.held])
"""


@pytest.mark.sandbox
def test_it_holds_for_an_ordinary_user_too() -> None:
    uid = os.geteuid() or 65_534
    folder = Path(tempfile.mkdtemp(prefix="org-test-"))
    try:
        shutil.copytree(Path(org.__file__).parent, folder / "org")
        os.chown(folder, uid, uid)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "HOME": str(folder)}
        run = subprocess.run(
            [sys.executable, "-c", AS_USER, str(folder), str(uid)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(folder)
    assert (run.stdout, run.stderr) == (f"{uid} 18 []\n", "")
