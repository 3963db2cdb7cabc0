"""`org rooms` and `org rooms rm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_kit import Desk
from org.cli.rooms import as_text
from org.cli.style import Style
from org.errors import ExitCode
from org.journal import RoomInfo
from org.journal.folder import FolderLock


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_without_rooms_it_says_how_to_open_one(desk: Desk) -> None:
    assert desk.org("rooms") == (0, "No rooms yet. `org` opens one.\n", "")
    assert json.loads(desk.org("rooms", "--json").out) == {"version": 1, "rooms": []}


def test_the_table() -> None:
    now = 1_000_000.0
    rooms = [
        RoomInfo("room-12", now - 7200, now - 90, 14, ("ada", "coder"), "pid 7"),
        RoomInfo("a", now - 200_000, now - 200_000, 0, ("ada",)),
        RoomInfo("broken", problem="the journal is \x1b[31mdamaged"),
    ]
    assert as_text(rooms, now, Style(False)).splitlines() == [
        "ROOM     CREATED  LAST USED  MESSAGES  PARTICIPANTS  OPEN IN",
        "room-12  2 h ago  1 min ago  14        ada coder     pid 7",
        "a        2 d ago  2 d ago    0         ada",
        "broken cannot be read: the journal is [31mdamaged",
        "",
        "`org show room-12` prints one, `org chat --resume room-12` goes on in it",
    ]


def test_without_an_open_room_nothing_is_said_of_that() -> None:
    assert "OPEN IN" not in as_text([RoomInfo("a")], 0.0, Style(False))


def test_rooms_as_json(desk: Desk) -> None:
    desk.room("talk")
    (room,) = json.loads(desk.org("rooms", "--json").out)["rooms"]
    assert room["created"] <= room["last"]
    assert room | {"created": 0, "last": 0} == {
        "id": "talk",
        "created": 0,
        "last": 0,
        "messages": 2,
        "participants": ["ada", "coder"],
        "busy": None,
        "problem": None,
    }


def test_a_broken_settings_file_hides_no_rooms(desk: Desk) -> None:
    desk.room("talk")
    (desk.home.project / "org.toml").write_text("what?")
    assert desk.org("rooms").code == ExitCode.DONE


def test_removing(desk: Desk) -> None:
    gone, kept = desk.room("one"), desk.room("two")
    assert desk.org("rooms", "rm", "one", "one", "-y") == (0, "removed: one\n", "")
    assert not gone.exists()
    assert kept.is_dir()


def test_without_a_terminal_nothing_is_removed_unasked(desk: Desk) -> None:
    folder = desk.room("one")
    said = desk.org("rooms", "rm", "one")
    assert (said.code, said.out) == (ExitCode.DENIED, "")
    assert "`-y`" in said.err
    assert folder.is_dir()


@pytest.mark.parametrize("wrong", ["none", "../one", "One"])
def test_when_one_is_not_there_none_is_removed(desk: Desk, wrong: str) -> None:
    folder = desk.room("one")
    assert desk.org("rooms", "rm", "one", wrong, "-y").code == ExitCode.USAGE
    assert folder.is_dir()


def test_when_one_is_open_none_is_removed(desk: Desk) -> None:
    folders = desk.room("one"), desk.room("two")
    lock = FolderLock(folders[1], "http://127.0.0.1:7001")
    said = desk.org("rooms", "rm", "one", "two", "-y")
    assert said.code == ExitCode.BUSY
    assert "http://127.0.0.1:7001" in said.err
    assert "http://127.0.0.1:7001" in desk.org("rooms").out
    lock.release()
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_in_a_terminal_it_asks(desk: Desk, answer: str, removed: bool) -> None:
    folder = desk.room("one")
    with desk.home.terminal("rooms", "rm", "one") as terminal:
        assert "one: 2 messages" in terminal.wait_for("[y/N] ")
        terminal.type(answer)
        terminal.wait_for("removed: one" if removed else "nothing was removed")
        assert terminal.exit_code() == ExitCode.DONE
    assert folder.exists() is not removed
