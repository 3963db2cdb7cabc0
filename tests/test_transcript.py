"""A room's events as Markdown and as JSON lines."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from org.encoding import from_json
from org.events import (
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Invited,
    Joined,
    Left,
    ModeChanged,
    Nudged,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    Undone,
    counting,
)
from org.messages import EVERYONE, Audience, Message
from org.tooling import ToolCall, ToolError, ToolResult
from org.transcript import to_json_lines, to_markdown


def posted(id: int, sender: str, content: str, audience: Audience = EVERYONE) -> Posted:
    return Posted(Message(id, sender, "model", audience, content, 1_700_000_000.0))


def called(output: str, arguments: dict[str, object] | None = None, **result: object) -> CallFinished:
    call = ToolCall("c1", "sh", arguments or {"cmd": "ls"})
    return CallFinished("coder", 1, call, ToolResult("c1", output, **result))  # type: ignore[arg-type]


def test_a_room_as_markdown() -> None:
    events: list[Committed] = [
        Joined("ada", "person"),
        Joined("coder", "model", "agent", "qwen3:8b", "You are..."),
        posted(1, "ada", "count\n\nthem"),
        Invited("coder", 1, (1,)),
        Stepped("coder", 1, "", (ToolCall("c1", "sh", {"cmd": "ls"}),)),
        called("a\nb\n", {"cmd": "ls | sort", "timeout_s": 5}, exit_code=0, seconds=0.25),
        Nudged("coder", 1, "go on"),
        posted(2, "coder", "two", Audience.only("ada", "bob")),
        TurnEnded("coder", 1, "answered"),
        posted(3, "coder", "# Notes", Audience.file("notes/a.md")),
        ModeChanged("coder", Audience.only("ada")),
        Compacted("coder", 12, "they counted"),
        Cleared(),
        Invited("coder", 2, (3,)),
        TurnEnded("coder", 2, "failed", detail="the server closed the stream", text="I think"),
        TurnEnded("coder", 3, "interrupted"),
        TurnEnded("coder", 4, "passed"),
        Left("coder"),
        Stopped("turns", "12 of 12"),
    ]
    assert to_markdown(events, "demo") == (
        """# demo

*ada entered (person)*

*coder entered (model, agent, qwen3:8b)*

### ada → everyone · 2023-11-14 22:13:20

> count
>
> them

#### coder called sh

cmd:

```text
ls | sort
```

timeout\\_s:

```text
5
```

exit code 0, 0.2 s:

```text
a
b
```

### coder → ada, bob (private) · 2023-11-14 22:13:20

> two

### coder → file notes/a.md · 2023-11-14 22:13:20

> # Notes

*coder now speaks to ada (private)*

*coder now sees a summary of its first 12 entries*

*everybody's view starts afresh*

*coder's turn failed: the server closed the stream*

> I think

*coder's turn was interrupted*

*coder left*

*stopped: turns: 12 of 12*
"""
    )


def test_what_was_dropped_without_a_summary_is_no_summary() -> None:
    text = to_markdown([Compacted("coder", 12, "")])
    assert text == "*coder no longer sees its first 12 entries, and no summary of them*\n"


def test_words_that_were_posted_are_not_repeated_with_the_end_of_the_turn() -> None:
    events: list[Committed] = [
        Invited("coder", 1, (1,)),
        posted(2, "coder", "Looking."),
        called("a"),
        TurnEnded("coder", 1, "failed", text="not heard"),
        Invited("coder", 2, (1,)),
        posted(3, "coder", "heard"),
        posted(4, "bob", "hm"),
        TurnEnded("coder", 2, "interrupted", text="heard"),
    ]
    text = to_markdown(events)
    assert text.count("> heard") == text.count("> not heard") == 1


def test_an_error_of_a_tool_and_no_output() -> None:
    text = to_markdown([called("", {}, error=ToolError("timeout", "longer than *5* s"), seconds=5.0)])
    assert (
        text == "#### coder called sh\n\ncmd:\n\n```text\nls\n```\n\ntimeout: longer than \\*5\\* s, 5.0 s\n"
    )


@given(st.text(st.sampled_from("`~ \na"), max_size=60))
def test_a_fence_is_longer_than_any_inside(output: str) -> None:
    lines = to_markdown([called(output)]).split("\n")
    opening = max(place for place, line in enumerate(lines) if line.endswith("`text"))
    fence = lines[opening].removesuffix("text")
    if output:
        assert lines[-2] == fence and len(fence) >= 3
        assert all(fence not in line for line in lines[opening + 1 : -2])
        assert "\n".join(lines[opening + 1 : -2]) == output.removesuffix("\n")


@given(st.text(st.characters() | st.sampled_from("\r\n`#>\0\ud83d\ude00")))
def test_a_message_stays_inside_its_quote_and_any_file_takes_it(content: str) -> None:
    text = to_markdown([posted(1, "ada", content), Stopped("quiet")])
    assert "\0" not in text and "\r" not in text
    text.encode()
    heading, blank, *quote, empty, stop, end = text.split("\n")
    assert (heading[:4], blank, empty, stop, end) == ("### ", "", "", "*stopped: quiet*", "")
    assert quote and all(line.startswith(">") for line in quote)


def test_halves_of_a_character_are_joined_and_a_lone_one_replaced() -> None:
    assert "> 😀 \ufffd \ufffd" in to_markdown([posted(1, "ada", "\ud83d\ude00 \ud83d \0")])


def test_a_name_cannot_be_markup() -> None:
    assert "\\*\\*bold\\*\\* \\<b\\> entered" in to_markdown([Joined("**bold**\n<b>", "person")])


def test_what_was_undone_is_left_out() -> None:
    events: list[Committed] = [
        posted(1, "ada", "one"),
        called("kept"),
        posted(2, "coder", "two"),
        Joined("bob", "person"),
        called("dropped"),
        posted(3, "ada", "three"),
        Undone(2),
        posted(4, "ada", "four"),
        Undone(9),
    ]
    assert counting(events) == [events[0], events[1], events[3], events[7]]
    text = to_markdown(events)
    assert "one" in text and "kept" in text and "four" in text and "bob" in text
    assert "two" not in text and "dropped" not in text and "three" not in text
    assert counting([*events, Undone(1)]) == [events[3]]


def test_json_lines_are_events_again() -> None:
    events: list[Committed] = [
        posted(1, "ada", "é\n\ud83d\u2028"),
        posted(2, "coder", "x"),
        Undone(2),
        called("y"),
    ]
    lines = list(to_json_lines(events))
    assert [from_json(json.loads(line)) for line in lines] == [events[0], events[3]]
    assert all(line.isascii() and "\n" not in line for line in lines)
