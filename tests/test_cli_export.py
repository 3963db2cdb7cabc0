"""`org export`: where it writes; what it writes is tested with the transcript."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_kit import Desk
from org.errors import ExitCode


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    desk = Desk(tmp_path, monkeypatch, capsys)
    desk.room("talk")
    return desk


def test_markdown_on_standard_output(desk: Desk) -> None:
    said = desk.org("export", "talk")
    assert said.out.startswith("# talk\n")
    assert "> Three zebras.\n" in said.out
    assert said.err == ""


def test_json_has_one_event_a_line(desk: Desk) -> None:
    lines = desk.org("export", "talk", "--format", "json").out.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["joined", "joined", "posted", "posted"]


def test_a_file_is_overwritten_only_by_force(desk: Desk) -> None:
    file = desk.home.project / "talk.md"
    assert desk.org("export", "talk", "-o", "talk.md") == (0, "", "written: talk.md\n")
    text = file.read_text()
    assert "Three zebras." in text
    said = desk.org("export", "talk", "--format", "json", "-o", "talk.md")
    assert said.code == ExitCode.USAGE
    assert "--force" in said.err
    assert file.read_text() == text
    assert desk.org("export", "talk", "--format", "json", "-o", "talk.md", "--force").code == 0
    assert file.read_text().startswith('{"v": 1')


def test_where_nothing_can_be_written(desk: Desk) -> None:
    said = desk.org("export", "talk", "-o", "no/such/folder.md")
    assert said.code == ExitCode.ENVIRONMENT
    assert "no/such/folder.md" in said.err


@pytest.mark.parametrize("words", [["none"], ["talk", "--format", "pdf"], ["../talk"], []])
def test_words_that_are_off(desk: Desk, words: list[str]) -> None:
    said = desk.org("export", *words)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
