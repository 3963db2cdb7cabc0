"""`org show`: a room to read in a terminal."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_kit import Desk, posted
from command import ORG
from org.cli.show import as_lines
from org.cli.style import Style
from org.errors import ExitCode
from org.events import (
    NO_SUMMARY,
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Invited,
    Joined,
    Left,
    ModeChanged,
    Stopped,
    TurnEnded,
    Undone,
)
from org.messages import EVERYONE, Audience
from org.tooling import ToolCall, ToolError, ToolResult

PLAIN = Style(False)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def called(cmd: str, output: str, **result: object) -> CallFinished:
    call = ToolCall("c1", "sh", {"cmd": cmd})
    return CallFinished("coder", 1, call, ToolResult("c1", output, **result))  # type: ignore[arg-type]


def shown(*events: Committed, tools: bool = False) -> list[str]:
    return list(as_lines(events, PLAIN, tools=tools))


def test_a_room() -> None:
    lines = shown(
        Joined("ada", "person"),
        Joined("coder", "model", "agent", "qwen3:8b", "You are..."),
        posted(1, "ada", "count\n\nthem", role="person"),
        Invited("coder", 1, (1,)),
        called("ls", "a\nb\n", exit_code=0, seconds=0.25),
        called("exit 3", "", exit_code=3, seconds=12.0, error=ToolError("failed", "exit code 3")),
        posted(2, "coder", "two", Audience.only("ada", "bob")),
        TurnEnded("coder", 1, "answered"),
        posted(3, "coder", "# Notes", Audience.file("notes/a.md")),
        posted(4, "room", "bob has left the room.", role="system"),
        ModeChanged("coder", Audience.only("ada")),
        ModeChanged("coder", EVERYONE),
        Compacted("coder", 12, "they counted"),
        Cleared(),
        Invited("coder", 2, (3,)),
        TurnEnded("coder", 2, "failed", detail="the server closed the stream", text="I think"),
        TurnEnded("coder", 3, "interrupted"),
        TurnEnded("coder", 4, "passed"),
        Left("coder"),
        Stopped("turns", "12 of 12"),
    )
    assert lines == [
        "ada entered",
        "coder entered (agent, qwen3:8b)",
        "",
        "-- Tuesday, 2023-11-14 --",
        "ada -> everyone  22:13",
        "  count",
        "",
        "  them",
        "",
        "* coder sh `ls` · 0.2 s · exit 0",
        "* coder sh `exit 3` · 12.0 s · exit 3 · failed: exit code 3",
        "",
        "coder -> @ada @bob (private)  22:13",
        "  two",
        "",
        "coder -> #file:notes/a.md  22:13",
        "  # Notes",
        "",
        "room: bob has left the room.",
        "coder now speaks to @ada",
        "coder now speaks to everyone",
        "coder now sees a summary of its first 12 entries",
        "everybody's view starts afresh",
        "coder's turn failed: the server closed the stream",
        "  I think",
        "coder was interrupted",
        "coder passes",
        "coder left",
        "-- stopped (turns: 12 of 12)",
    ]


@pytest.mark.parametrize("summary", ["", f"{NO_SUMMARY}\n\nThe newest you were told:\nme: go"])
def test_what_was_dropped_without_a_summary_is_no_summary(summary: str) -> None:
    assert shown(Compacted("coder", 12, summary)) == [
        "coder no longer sees its first 12 entries, and no summary of them"
    ]


def test_words_that_were_posted_are_not_shown_again_with_the_end_of_the_turn() -> None:
    """But those of somebody who was not heard any more are."""
    lines = shown(
        posted(1, "ada", "go", role="person"),
        Invited("coder", 1, (1,)),
        posted(2, "coder", "Looking."),
        called("ls", "a\n"),
        posted(3, "coder", "so far"),
        TurnEnded("coder", 1, "interrupted", text="so far"),
        Invited("coder", 2, ()),
        TurnEnded("coder", 2, "interrupted", text="sent out"),
    )
    assert lines.count("  so far") == lines.count("  sent out") == 1
    assert lines.index("  so far") < lines.index("coder was interrupted")


def test_what_is_undone_is_not_shown() -> None:
    assert shown(posted(1, "ada", "zebra"), Undone(1)) == []


def test_calls_with_all_they_were_given_and_gave() -> None:
    assert shown(called("ls\npwd", "a\n\nb\n", exit_code=0), called("true", ""), tools=True) == [
        "* coder sh · 0.0 s · exit 0",
        "  cmd:",
        "    ls",
        "    pwd",
        "  output:",
        "    a",
        "",
        "    b",
        "* coder sh · 0.0 s",
        "  cmd:",
        "    true",
    ]


@pytest.mark.parametrize("style", [PLAIN, Style(True)])
def test_no_text_drives_the_terminal_or_passes_for_another_speaker(style: Style) -> None:
    forged = "\x1b[2J\x1b]0;x\x07\rada -> everyone  22:13\n* coder sh `rm`\u202e"
    events = (
        posted(1, "coder", forged),
        called(forged, forged, error=ToolError("failed", forged)),
        Joined(forged, "model", forged, forged),
        TurnEnded("coder", 1, "failed", detail=forged, text=forged),
        Stopped("turns", forged),
    )
    for tools in (False, True):
        text = "\n".join(as_lines(events, style, tools=tools))
        for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[36m"):
            text = text.replace(colour, "")
        assert not set(text) & set("\x1b\x07\r\u202e")
        assert not [line for line in text.split("\n") if line.startswith(("ada ->", "* coder sh `rm`"))]


def test_as_json_each_event_is_a_line_with_its_version(desk: Desk) -> None:
    desk.room("talk")
    said = desk.org("show", "talk", "--json")
    events = [json.loads(line) for line in said.out.splitlines()]
    assert [(event["v"], event["type"]) for event in events] == [
        (1, "joined"),
        (1, "joined"),
        (1, "posted"),
        (1, "posted"),
    ]


def test_without_a_terminal_there_are_no_colours(desk: Desk) -> None:
    desk.room("talk")
    said = desk.org("show", "talk")
    assert "\ncoder -> everyone  22:13\n  Three zebras.\n" in said.out
    assert "\x1b" not in said.out


def test_lone_halves_of_characters_can_be_shown(desk: Desk) -> None:
    desk.room("talk", posted(1, "coder", "half \ud83d"))
    assert "  half \ufffd" in desk.org("show", "talk").out


@pytest.mark.parametrize("room", ["none", "../talk"])
def test_a_room_that_is_not_there(desk: Desk, room: str) -> None:
    desk.room("talk")
    said = desk.org("show", room)
    assert (said.code, said.out) == (ExitCode.USAGE, "")


def test_a_reader_that_leaves_early_is_no_error(desk: Desk) -> None:
    desk.room("long", *(posted(number, "coder", "word " * 1000) for number in range(1, 200)))
    with subprocess.Popen(
        [*ORG, "show", "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=desk.home.env,
        cwd=desk.home.project,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
