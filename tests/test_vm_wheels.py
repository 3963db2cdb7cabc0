"""The packages of a guest: from what is installed here where that would run there, else from real wheels."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from org.errors import EnvironmentProblem
from org.sandbox.vm.wheels import Pin, Target, fetched, files_in, fits, installed, pinned, pins

ROOT = Path(__file__).parent.parent
TARGET = Target((3, 11, 2), "/usr/bin/python3", "x86_64", (2, 36))


def record(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def parts_of(tag: str, version: str = "1.0") -> dict[str, bytes]:
    """The files of a package called `thing`."""
    info = f"thing-{version}.dist-info"
    files = {
        "thing/__init__.py": b"answer = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    lines = "".join(record(name, data) for name, data in files.items())
    more = "../../bin/thing,,\nthing/__pycache__/__init__.cpython-311.pyc,,\n"
    return files | {f"{info}/RECORD": f"{lines}{info}/RECORD,,\n{more}".encode()}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which packages are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


def put(folder: Path, tag: str = "py3-none-any") -> None:
    for name, data in parts_of(tag).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def wheel(folder: Path, tag: str = "py3-none-any") -> str:
    """A wheel of `thing`; the sum of its file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"thing-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts_of(tag).items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(digest: str = "0" * 64) -> Pin:
    return Pin("thing", "1.0", f"thing==1.0 --hash=sha256:{digest}")


# -- pins


def test_what_is_packaged_is_what_the_set_up_installs() -> None:
    assert pinned() == (ROOT / "requirements/base.txt").read_text("utf-8")


def test_each_pin_has_a_version_and_sums() -> None:
    found = pins(pinned())
    assert len(found) == pinned().count("==")
    assert {"httptools", "starlette", "textual", "uvicorn"} <= {one.name for one in found}
    assert all(f"{one.name}=={one.version} --hash=sha256:" in " ".join(one.line.split()) for one in found)


@pytest.mark.parametrize("text", ["thing", "thing==1.0", "thing>=1 --hash=sha256:" + "0" * 64, "--pre"])
def test_what_is_no_pin_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no pin"):
        pins(text)


# -- what runs there


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-any",
        "py311-none-any",
        "cp311-cp311-manylinux_2_36_x86_64",
        "cp311-cp311-manylinux_2_5_x86_64",
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-cp311-manylinux1_x86_64",
        "cp39-abi3-manylinux_2_28_x86_64",
    ],
)
def test_what_runs_there(tag: str) -> None:
    assert fits(tag, TARGET)


@pytest.mark.parametrize(
    "tag",
    [
        "py2-none-any",
        "py312-none-any",
        "cp312-cp312-manylinux_2_17_x86_64",
        "cp312-abi3-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_39_x86_64",
        "cp311-cp311-manylinux_2_17_aarch64",
        "cp311-cp311-musllinux_1_2_x86_64",
        "cp311-cp311-macosx_11_0_arm64",
        "cp311-cp311-linux_x86_64",
        "pp311-pypy311_pp73-manylinux_2_17_x86_64",
    ],
)
def test_what_does_not(tag: str) -> None:
    assert not fits(tag, TARGET)


# -- what is installed


def test_an_installed_package_is_taken_as_it_was_recorded(site: Path) -> None:
    put(site)
    found = installed(pin(), TARGET)
    assert found is not None
    assert {file.name for file in found} == set(parts_of("py3-none-any"))
    assert all(file.path.read_bytes() == (site / file.name).read_bytes() for file in found)


def test_one_that_was_changed_is_not_taken(site: Path) -> None:
    put(site)
    (site / "thing/__init__.py").write_text("answer = 43\n")
    assert installed(pin(), TARGET) is None


def test_one_of_which_a_file_is_gone_is_not_taken(site: Path) -> None:
    put(site)
    (site / "thing/__init__.py").unlink()
    assert installed(pin(), TARGET) is None


def test_one_that_would_not_run_there_is_not_taken(site: Path) -> None:
    put(site, "cp312-cp312-manylinux_2_17_x86_64")
    assert installed(pin(), TARGET) is None


def test_another_version_is_not_taken(site: Path) -> None:
    put(site)
    assert installed(Pin("thing", "1.1", ""), TARGET) is None
    assert installed(Pin("nothing-of-the-kind", "1.0", ""), TARGET) is None


def test_all_packages_of_this_very_installation_are_found() -> None:
    here = Target((*sys.version_info[:2], 0), sys.executable, "x86_64", (2, 99))
    pure = [one for one in pins(pinned()) if one.name != "httptools"]
    assert [one.name for one in pure if installed(one, here) is None] == []


# -- what is fetched


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where an installer looks."""
    folder = tmp_path / "offered"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_missing_package_is_fetched_for_there(offered: Path, tmp_path: Path) -> None:
    digest = wheel(offered, "cp311-cp311-manylinux_2_36_x86_64")
    wheel(offered, "cp312-cp312-manylinux_2_36_x86_64")
    found = {file.name for file in fetched([pin(digest)], TARGET, tmp_path)}
    assert "thing/__init__.py" in found
    assert not any(name.endswith((".pyc", "INSTALLER")) for name in found)


def test_one_with_another_sum_is_refused(offered: Path, tmp_path: Path) -> None:
    wheel(offered)
    with pytest.raises(EnvironmentProblem, match="cannot be fetched \\(thing\\)"):
        fetched([pin("1" * 64)], TARGET, tmp_path)
    assert not (tmp_path / "site/thing").exists()


def test_one_that_is_not_for_there_is_not_fetched(offered: Path, tmp_path: Path) -> None:
    digest = wheel(offered, "cp311-cp311-manylinux_2_36_aarch64")
    with pytest.raises(EnvironmentProblem, match="cannot be fetched"):
        fetched([pin(digest)], TARGET, tmp_path)


def test_files_in_a_folder_without_what_an_installer_leaves(tmp_path: Path) -> None:
    for name in (
        "a/b.py",
        "a/__pycache__/b.pyc",
        "bin/a",
        "a-1.dist-info/INSTALLER",
        "a-1.dist-info/METADATA",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in files_in(tmp_path, "x/")] == ["x/a/b.py", "x/a-1.dist-info/METADATA"]
