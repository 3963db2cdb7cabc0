"""Fetching from a server on loopback that is odd in every way that was met."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_kit import DATA, Server, serving
from org.errors import EnvironmentProblem
from org.sandbox.vm.image.fetch import Stopped, Wanted, fetch_all, fetch_text, opener

DIRECT = opener()


class Counter:
    def __init__(self) -> None:
        self.bytes = 0
        self.files = 0

    def __call__(self, size: int, whole: bool) -> None:
        self.bytes += size
        self.files += whole


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def fetch(*wanted: Wanted) -> Counter:
    counter = Counter()
    fetch_all(wanted, DIRECT, counter, threading.Event())
    return counter


def test_files_are_fetched_and_counted(server: Server, tmp_path: Path) -> None:
    server.files = {str(number): DATA[number:] for number in range(9)}
    wanted = [server.wanted(name, tmp_path / name, data) for name, data in server.files.items()]
    counter = fetch(*wanted)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == server.files
    assert (counter.bytes, counter.files) == (sum(map(len, server.files.values())), 9)


def test_what_is_there_is_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    counter = fetch(server.wanted("a", tmp_path / "a"))
    assert server.asked == []
    assert (counter.bytes, counter.files) == (len(DATA), 1)


def test_what_is_there_but_wrong_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files = {"a": DATA}
    (tmp_path / "a").write_bytes(DATA[:-1] + b"!")
    fetch(server.wanted("a", tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_answer_is_continued(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.files, server.cut, server.ranges = {"a": DATA}, [100_000], ranges
    counter = fetch(server.wanted("a", tmp_path / "a"))
    assert [asked for _, asked in server.asked] == ["", "bytes=100000-"]
    assert (tmp_path / "a").read_bytes() == DATA
    assert counter.bytes == len(DATA)


def test_an_interrupted_call_is_continued_by_the_next(server: Server, tmp_path: Path) -> None:
    server.files, server.cut = {"a": DATA}, [10_000, 0, 0]
    with pytest.raises(EnvironmentProblem, match="ended it early"):
        fetch(server.wanted("a", tmp_path / "a"))
    server.asked.clear()
    counter = fetch(server.wanted("a", tmp_path / "a"))
    assert server.asked == [("/a", "bytes=10000-")]
    assert counter.bytes == len(DATA)


@pytest.mark.parametrize("served", [DATA[:-1] + b"!", DATA + b"more", b""])
def test_something_else_is_refused_and_not_kept(server: Server, tmp_path: Path, served: bytes) -> None:
    server.files = {"a": served}
    with pytest.raises(EnvironmentProblem):
        fetch(server.wanted("a", tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    server.files = {"a": DATA}
    fetch(server.wanted("a", tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_missing_file_is_named_and_asked_for_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"/gone: .*404"):
        fetch(server.wanted("gone", tmp_path / "gone"))
    assert len(server.asked) == 1


def test_a_stop_ends_it_soon(server: Server, tmp_path: Path) -> None:
    server.files = {"a": DATA}
    stop = threading.Event()
    with pytest.raises(Stopped):
        fetch_all([server.wanted("a", tmp_path / "a")], DIRECT, lambda size, whole: stop.set(), stop)
    assert not (tmp_path / "a").exists()


def test_a_small_file_comes_whole(server: Server) -> None:
    server.files = {"a": b"x"}
    assert fetch_text(f"{server.address}/a", DIRECT) == b"x"


def test_nobody_there_is_an_expected_error() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot fetch"):
        fetch_text("http://127.0.0.1:1/x", DIRECT)


def test_a_proxy_is_asked_for_the_whole_address(server: Server) -> None:
    server.files = {"/elsewhere.invalid/a": b"x"}
    through = opener({"http": server.address})
    with pytest.raises(EnvironmentProblem, match="404"):
        fetch_text("http://elsewhere.invalid/a", through)
    assert [path for path, _ in server.asked] == ["http://elsewhere.invalid/a"]
