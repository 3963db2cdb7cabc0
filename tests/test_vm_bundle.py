"""The archive that `org vm install` unpacks in a guest, made for the Python of this very host."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tarfile
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from org import __version__
from org.sandbox.vm import bundle
from org.sandbox.vm.bundle import archive_for, compiled, key_of
from org.sandbox.vm.image.recipe import MTIME
from org.sandbox.vm.image.store import Progress
from org.sandbox.vm.wheels import Target

HERE = Target(
    (sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
    os.path.realpath(sys.executable),
    platform.machine(),
    (2, 99),
)
OTHER = Target((3, 99, 0), HERE.program, HERE.arch, HERE.glibc)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def archive(cache: Path) -> Path:
    return archive_for(HERE, "key", cache, lambda progress: None)


def test_it_is_an_environment_that_runs_the_program(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="tar")
    done = subprocess.run(
        [
            tmp_path / "bin/python",
            "-I",
            "-c",
            "import org.cli.serve, sys; print(org.__version__, org.__file__)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    version, path = done.stdout.split()
    assert version == __version__
    assert Path(path).is_relative_to(tmp_path)
    assert (tmp_path / "bin/org").read_text().startswith(f"#!{bundle.HOME}/key/bin/python -I\n")


def test_nothing_in_it_belongs_to_anybody_but_root(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, MTIME)}
    assert not [member.name for member in members if member.isfile() and member.mode & 0o022]
    assert not [
        member.name for member in members if member.name.startswith(("/", "..")) or "/../" in member.name
    ]
    assert [member.name for member in members if member.mode & 0o111 and member.isfile()] == ["bin/org"]


def test_nothing_that_an_installer_noted_is_in_it(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.endswith(("direct_url.json", "INSTALLER"))]


def test_bytecode_is_in_it_that_knows_of_no_place_here(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        made = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".pyc")}
        modules = [name for name in tar.getnames() if name.endswith(".py") and "/org/" in name]
        assert {cache_from_source(name) for name in modules} <= set(made)
        here = os.fsencode(Path(bundle.__file__).parents[2])
        for file in made.values():
            assert file is not None
            assert here not in file.read()


def test_the_bytecode_is_what_runs(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="tar")
    (module,) = tmp_path.glob("lib/*/site-packages/org/errors.py")
    module.write_text("raise SystemExit('compiled again')\n")
    words = [str(tmp_path / "bin/python"), "-I", "-c", "import org.errors; print('as it was')"]
    assert subprocess.run(words, capture_output=True, text=True, check=False).stdout == "as it was\n"


def test_for_another_python_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compiled(OTHER)
    monkeypatch.setattr(bundle, "compiled", lambda target: False)
    with tarfile.open(archive_for(HERE, "other", tmp_path, lambda progress: None)) as tar:
        assert not [name for name in tar.getnames() if name.endswith(".pyc")]


def test_it_is_made_once(archive: Path, cache: Path) -> None:
    said: list[Progress] = []
    before = archive.stat().st_ino
    assert archive_for(HERE, "key", cache, said.append) == archive
    assert archive.stat().st_ino == before
    assert said == []


def test_equal_inputs_make_equal_archives(archive: Path, tmp_path: Path) -> None:
    assert archive_for(HERE, "key", tmp_path, lambda progress: None).read_bytes() == archive.read_bytes()


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "guest-org"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.tar").touch()
        os.utime(folder / f"{number}.tar", (number, number))
    archive_for(HERE, "new", tmp_path, lambda progress: None)
    assert sorted(path.name for path in folder.iterdir()) == ["3.tar", "4.tar", "new.tar"]


def test_another_guest_or_another_version_is_another_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key_of(HERE), key_of(HERE), key_of(OTHER)]
    monkeypatch.setattr(bundle, "own_files", list)
    assert keys[0] == keys[1]
    assert len({*keys, key_of(HERE)}) == 3
