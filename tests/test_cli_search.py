"""`org search`: what it prints; what it finds is tested with the journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_kit import NOON, Desk, posted
from org.cli.search import as_text
from org.cli.style import Style
from org.errors import ExitCode
from org.journal import Found, Hit


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_the_list() -> None:
    hits = (
        Hit("one", 3, "coder", NOON, "three\n\x1b[31m[zebras]"),
        Hit("two", 1, "ada", NOON - 9000, "[zebra]"),
    )
    assert as_text(Found(hits), NOON + 60, Style(False)).splitlines() == [
        "one  coder  1 min ago",
        "  three [31m[zebras]",
        "two  ada  2 h ago",
        "  [zebra]",
    ]


def test_all_words_must_be_there_in_any_order(desk: Desk) -> None:
    desk.room("one")
    desk.room("two", posted(1, "ada", "zebras? many, many"))
    said = desk.org("search", "many", "zebras")
    assert "\n  How [many] [zebras]?\n" in said.out
    assert "two  ada" in said.out
    assert desk.org("search", "three", "many").out == ""


def test_as_json(desk: Desk) -> None:
    desk.room("one")
    document = json.loads(desk.org("search", "three", "--json").out)
    assert document == {
        "version": 1,
        "hits": [{"room": "one", "seq": 4, "sender": "coder", "at": NOON, "snippet": "[Three] zebras."}],
        "skipped": [],
    }


def test_at_most_so_many(desk: Desk) -> None:
    for name in ("one", "two", "three"):
        desk.room(name)
    assert len(json.loads(desk.org("search", "three", "--json", "--limit", "2").out)["hits"]) == 2


def test_finding_nothing_says_so_beside_the_output(desk: Desk) -> None:
    assert desk.org("search", "gnu") == (ExitCode.DONE, "", "nothing found: gnu\n")


def test_a_room_that_cannot_be_read_is_named(desk: Desk) -> None:
    desk.room("good")
    (desk.room("bad") / "journal.sqlite").write_bytes(b"no journal at all" * 100)
    said = desk.org("search", "zebras")
    assert "org: not searched: bad: the journal is damaged" in said.err
    assert "good" in said.out


@pytest.mark.parametrize("words", [["--limit", "0", "x"], ["--limit", "some", "x"], ["!!"], []])
def test_words_that_are_off(desk: Desk, words: list[str]) -> None:
    said = desk.org("search", *words)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
