"""The pinned packages, and what `scripts/setup` does where something is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "requirements").glob("*.txt")}
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", name)[0]).lower()


def test_there_is_a_lock_for_each_use() -> None:
    assert set(LOCKS) == {"base", "embedded", "dev", "build"}


@pytest.mark.parametrize("name", ["base", "embedded", "dev", "build"])
def test_every_pin_has_a_hash_and_no_host(name: str) -> None:
    text = LOCKS[name]
    assert "://" not in text
    assert "-url" not in text
    entries = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert entries
    for entry in entries:
        assert PIN.match(entry)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry)


def test_the_locks_agree_on_every_version() -> None:
    versions: dict[str, set[str]] = {}
    for text in LOCKS.values():
        for name, version in PIN.findall(text):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_whatever_pyproject_asks_for_is_pinned() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    asked = {
        "base": project["dependencies"],
        "embedded": project["dependencies"] + project["optional-dependencies"]["embedded"],
        "build": document["build-system"]["requires"],
    }
    for lock, requirements in asked.items():
        pinned = {_normal(name) for name, _ in PIN.findall(LOCKS[lock])}
        assert {_normal(requirement) for requirement in requirements} <= pinned


def test_a_missing_system_package_ends_with_the_line_to_type_and_nothing_done(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", checkout / "scripts")
    commands = tmp_path / "bin"
    commands.mkdir()
    for command in ("bash", "dirname", "sed", "git"):
        (commands / command).symlink_to(_path_of(command))
    for command, text in {"id": "echo 1000", "apt-get": "echo ran >ran"}.items():
        (commands / command).write_text(f"#!{_path_of('bash')}\n{text}\n")
        (commands / command).chmod(0o755)

    result = subprocess.run(
        ["scripts/setup", "demo"],
        cwd=checkout,
        env={"PATH": str(commands)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 7
    assert result.stderr.splitlines() == [
        "setup: not installed: bubblewrap",
        "       sudo apt-get install -y bubblewrap",
    ]
    assert [path.name for path in checkout.iterdir()] == ["scripts"]


def _path_of(command: str) -> str:
    path = shutil.which(command)
    assert path is not None
    return path
