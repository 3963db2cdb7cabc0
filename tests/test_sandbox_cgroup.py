import errno
from pathlib import Path

import pytest

from org.sandbox.cgroup import cgroup
from org.sandbox.limits import Limits

LIMITS = Limits(processes=9, memory=4096)


def tree(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)


def content(folder: Path) -> dict[str, str]:
    """The files of a folder, removed as the kernel removes those of a cgroup with its folder."""
    found = {file.name: file.read_text() for file in folder.iterdir()}
    for name in found:
        (folder / name).unlink()
    return found


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own"
    file.write_text(text)
    return file


def test_version_1_nests_below_the_own_cgroups(tmp_path: Path) -> None:
    tree(tmp_path, "pids", "memory/a/b", "cpu")
    text = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b\n2:cpu:/\n0::/\n"
    with cgroup(LIMITS, [], tmp_path, own(tmp_path, text)) as groups:
        assert [group.parent for group in groups] == [tmp_path / "pids", tmp_path / "memory/a/b"]
        assert [content(group) for group in groups] == [
            {"pids.max": "9"},
            {"memory.limit_in_bytes": "4096"},
        ]
    assert not any(group.exists() for group in groups)


def test_version_2_stands_beside_the_own_cgroup(tmp_path: Path) -> None:
    tree(tmp_path, "user/session")
    (tmp_path / "user/cgroup.subtree_control").write_text("cpu memory pids\n")
    with cgroup(LIMITS, [], tmp_path, own(tmp_path, "0::/user/session\n")) as groups:
        assert [group.parent for group in groups] == [tmp_path / "user"]
        assert content(groups[0]) == {"pids.max": "9", "memory.max": "4096"}


@pytest.mark.parametrize("enabled", ["", "cpu\n", None])
def test_version_2_without_the_controllers(tmp_path: Path, enabled: str | None) -> None:
    tree(tmp_path, "user/session")
    if enabled is not None:
        (tmp_path / "user/cgroup.subtree_control").write_text(enabled)
    with cgroup(LIMITS, [], tmp_path, own(tmp_path, "0::/user/session\n")) as groups:
        assert groups == []


def test_where_none_can_be_made(tmp_path: Path) -> None:
    with cgroup(LIMITS, [], tmp_path / "none", own(tmp_path, "8:pids:/\n4:memory:/a\n")) as groups:
        assert groups == []


def test_one_that_is_busy_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "pids")
    stale: list[Path] = []
    file = own(tmp_path, "8:pids:/\n")
    rmdir = Path.rmdir

    def busy(folder: Path) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "rmdir", busy)
    with cgroup(LIMITS, stale, tmp_path, file) as first:
        content(first[0])
    assert stale == first
    monkeypatch.setattr(Path, "rmdir", rmdir)
    with cgroup(LIMITS, stale, tmp_path, file) as second:
        content(second[0])
        assert not first[0].exists()
    assert stale == []
    assert not second[0].exists()
