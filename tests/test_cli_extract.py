"""`org extract`: calls, look-alikes with the reason, and the visible text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from org.cli import extract
from org.errors import UsageError

TEXT = (
    'Look: <tool_call>{"name": "sh", "arguments": {"cmd": "ls"}}</tool_call>'
    ' and `{"name": "sh", "arguments": {}}`.\n'
)


@pytest.fixture(autouse=True)
def _standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))


def test_it_shows_calls_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'call        6-71  hermes: sh {"cmd": "ls"}'
    assert lines[1] == 'refused     77-108  json: inline code: {"name": "sh", "arguments": {}}'
    assert lines[-2] == 'Look:  and `{"name": "sh", "arguments": {}}`.'


def test_json_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.run(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["calls"] == [
        {"name": "sh", "arguments": {"cmd": "ls"}, "grammar": "hermes", "span": [6, 71]}
    ]
    assert document["refused"] == [{"reason": "inline code", "grammar": "json", "span": [77, 108]}]
    assert document["incomplete"] == []


def test_the_tools_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tools.json").write_text('[{"type": "function", "function": {"name": "weather"}}]')
    (tmp_path / "text").write_text('{"name": "weather", "arguments": {"city": "Os')
    assert extract.run([str(tmp_path / "text"), "--tools", str(tmp_path / "tools.json")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "incomplete  0-45  json: weather"


def test_a_tool_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert extract.run(["--tool", "other"]) == 0
    assert "no tool is called `sh`" in capsys.readouterr().out


def test_a_text_without_calls_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello.\n"))
    assert extract.run([]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "no calls"


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_wrong_file_of_tools_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    with pytest.raises(UsageError, match=r"tools\.json"):
        extract.run(["--tools", str(tmp_path / "tools.json")])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match="/nowhere"):
        extract.run(["/nowhere"])
