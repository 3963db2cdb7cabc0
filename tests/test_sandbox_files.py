import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.errors import SandboxGone, UsageError
from org.sandbox import files


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    work = tmp_path / "space"
    work.mkdir()
    (work / "inside").mkdir()
    (work / "inside" / "file").write_bytes(b"text")
    return work


def both(workspace: Path, path: str) -> list[str]:
    """What reading and writing say of a path that neither may take."""
    said = []
    with pytest.raises(UsageError) as caught:
        files.read(workspace, path, 100)
    said.append(caught.value.message)
    for append in (False, True):
        with pytest.raises(UsageError) as caught:
            files.write(workspace, path, b"evil", append=append)
        said.append(caught.value.message)
    return said


def test_write_makes_folders_replaces_and_appends(workspace: Path) -> None:
    files.write(workspace, "new/folders/file", b"a long first text", append=False)
    files.write(workspace, "new/folders/file", b"short", append=False)
    files.write(workspace, "./new//folders/file", b" and more", append=True)
    assert files.read(workspace, "new/folders/file", 100) == b"short and more"
    assert files.read(workspace, "new/folders/file", 4) == b"shor"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside/secret", "`..`"),
        ("inside/../../outside/secret", "`..`"),
        ("inside/..", "`..`"),
        ("/etc/passwd", "absolute"),
        ("a\0b", "zero byte"),
        ("\ud800", "no valid text"),
        ("", "names no file"),
        (".", "names no file"),
        ("inside/", "names no file"),
        ("inside/file/", "names no file"),
        ("inside/.", "names no file"),
    ],
)
def test_paths_that_are_refused_as_they_stand(workspace: Path, path: str, why: str) -> None:
    for said in both(workspace, path):
        assert why in said
        assert "\n" not in said


def test_what_cannot_be_a_file(workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workspace / "socket"))
        for path in ("fifo", "socket", "inside", "inside/file/more", "x" * 300, "x/" * 65 + "y", "x" * 2000):
            for said in both(workspace, path):
                assert said.startswith(f"`{path[:100]}")
                assert len(said) < 250


def test_a_fifo_with_somebody_at_its_other_end(workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    fd = os.open(workspace / "fifo", os.O_RDWR)
    assert all("no regular file" in said for said in both(workspace, "fifo"))
    os.close(fd)


def test_a_file_that_is_not_there(workspace: Path) -> None:
    with pytest.raises(UsageError, match="`inside/none` cannot be opened: No such file"):
        files.read(workspace, "inside/none", 100)
    with pytest.raises(UsageError, match="`none/file` cannot be opened: No such file"):
        files.read(workspace, "none/file", 100)
    assert not (workspace / "none").exists()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("../outside/secret", "link"),
        ("../outside", "link/secret"),
        ("inside/../../outside", "link/secret"),
        ("..", "link/outside/secret"),
        ("{work}/inside/file", "link"),
        ("/", "link/etc/passwd"),
        ("link", "link"),
        ("inside", "link"),
        (".", "link"),
    ],
)
def test_links_that_lead_out_or_nowhere(workspace: Path, target: str, path: str) -> None:
    (workspace / "link").symlink_to(target.format(work=workspace))
    both(workspace, path)
    assert (workspace.parent / "outside" / "secret").read_bytes() == b"secret"
    assert os.listdir(workspace.parent / "outside") == ["secret"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("inside/file", "link"),
        ("inside", "link/file"),
        ("./inside/../inside//file", "link"),
        ("../space/inside/file", None),
    ],
)
def test_links_that_stay_inside(workspace: Path, target: str, path: str | None) -> None:
    (workspace / "link").symlink_to(target)
    if path is None:  # it comes back, but by way of the outside
        both(workspace, "link")
        return
    assert files.read(workspace, path, 100) == b"text"
    files.write(workspace, path, b"!", append=True)
    assert (workspace / "inside" / "file").read_bytes() == b"text!"


def test_a_link_to_what_is_not_there_yet(workspace: Path) -> None:
    (workspace / "link").symlink_to("inside/new")
    files.write(workspace, "link", b"x", append=False)
    assert (workspace / "inside" / "new").read_bytes() == b"x"


@pytest.mark.parametrize("when", ["folder", "file"])
def test_a_component_that_turns_into_a_link_meanwhile(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The instant between looking at a component and opening it is the one that an attacker wants."""
    real = os.readlink

    def readlink(part: str, *, dir_fd: int) -> str:
        try:
            return real(part, dir_fd=dir_fd)
        finally:
            if when == "folder" and part == "inside":
                (workspace / "inside").rename(workspace / "moved")
                (workspace / "inside").symlink_to("../outside")
            if when == "file" and part == "secret":
                (workspace / "inside" / "secret").symlink_to("../../outside/secret")

    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(UsageError):
        files.write(workspace, "inside/secret", b"evil", append=False)
    assert (workspace.parent / "outside" / "secret").read_bytes() == b"secret"


def test_a_workspace_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SandboxGone, match="gone"):
        files.read(tmp_path / "none", "file", 100)


def test_descriptors_are_closed(workspace: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files.write(workspace, "a/b/c", b"x", append=False)
    files.read(workspace, "a/b/c", 1)
    both(workspace, "a/b")
    assert len(os.listdir("/proc/self/fd")) == before


PARTS = st.lists(st.sampled_from(["..", ".", "", "inside", "file", "out", "round", "new"]), max_size=6)


@given(PARTS)
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("any")
    work = root / "space"
    (work / "inside").mkdir(parents=True)
    (work / "out").symlink_to("..")
    (work / "inside" / "round").symlink_to("../inside/out")
    (work / "inside" / "out").symlink_to("../..")
    (root / "file").write_bytes(b"outside")
    with suppress(UsageError):
        files.write(work, "/".join(parts), b"evil", append=False)
    assert sorted(os.listdir(root)) == ["file", "space"]
    assert (root / "file").read_bytes() == b"outside"
