from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from org.chat.context import REMARK, Estimate, Memory, as_text, clip, cut_point, render, result_text
from org.events import (
    CallFinished,
    Cleared,
    Compacted,
    Invited,
    Joined,
    Nudged,
    Stepped,
    TurnEnded,
    TurnStatus,
)
from org.messages import EVERYONE, Audience, Entry, Message
from org.tooling import ToolCall, ToolError, ToolResult


def message(content: str, sender: str = "me", audience: Audience = EVERYONE, role: str = "person") -> Message:
    return Message(1, sender, role, audience, content, 0.0)  # type: ignore[arg-type]


def test_each_reader_sees_who_spoke_to_whom() -> None:
    said = [
        message("all"),
        message("you", audience=Audience.only("ann")),
        message("both", audience=Audience.only("ann", "bob")),
        message("bob left", "room", role="system"),
    ]
    assert render(said, "ann") == (
        "me: all\n\nme (only to you): you\n\nme (only to you and bob): both\n\n[room] bob left"
    )


def test_results_as_text() -> None:
    assert result_text(ToolResult("x", "out")) == "out"
    assert result_text(ToolResult("x", "")) == "(no output)"
    failed = ToolResult("x", "out", ToolError("failed", "exit 1"))
    assert result_text(failed) == "error (failed): exit 1\nout"


def test_an_error_that_the_output_names_too_is_told_once() -> None:
    def told(output: str, message: str = "exit code 1") -> str:
        return result_text(ToolResult("x", output, ToolError("failed", message)))

    assert told("[exit code 1]") == told("exit code 1") == "error (failed): exit code 1"
    assert told("a\n[exit code 1]") == "error (failed): exit code 1\na"
    assert told("a\n[exit code 1]\n(again)") == "error (failed): exit code 1\na\n(again)"
    assert told("\n  a\nexit code 12\n[exit code 1]") == "error (failed): exit code 1\n\n  a\nexit code 12"


@given(st.text(), st.integers(1, 200))
def test_a_clipped_text_keeps_its_ends_and_says_what_is_missing(text: str, limit: int) -> None:
    clipped = clip(text * 9, limit)
    if len(text * 9) <= limit:
        assert clipped == text * 9
        return
    assert len(clipped) <= max(limit, REMARK)
    head, rest = clipped.rsplit("\n[… ", 1)
    said, tail = rest.split(" characters left out …]\n", 1)
    assert (text * 9).startswith(head) and (text * 9).endswith(tail)
    assert int(said) == len(text * 9) - len(head) - len(tail)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.integers(200, 4000))
def test_messages_fit_their_limit_the_short_ones_whole(sizes: list[int], limit: int) -> None:
    said = [message("x" * size) for size in sizes]
    shown = render(said, "ann", limit)
    assert len(shown) <= limit
    if sum(sizes) + 80 * len(sizes) <= limit:
        assert shown == render(said, "ann")


def test_a_long_message_does_not_hide_the_short_ones() -> None:
    shown = render([message("one"), message("x" * 9000), message("three")], "ann", 1000)
    assert shown.startswith("me: one\n\nme: xxx") and shown.endswith("xxx\n\nme: three")


def test_its_own_words_are_bounded_too() -> None:
    """Also where a server does not keep to `max_tokens`."""
    memory = Memory(Joined("ann", "model", system="S"))
    for event in (
        Invited("ann", 1, (), 500),
        Stepped("ann", 1, "x" * 9000),
        TurnEnded("ann", 1, "answered"),
        Invited("ann", 2, (), 500),
        TurnEnded("ann", 2, "interrupted", text="y" * 9000),
        Compacted("ann", 1, "z" * 9000),
    ):
        memory.apply(event)
    assert max(len(entry.content) for entry in memory.view) < 1020
    assert memory.view.since(-1)[0].content.endswith("yyy [interrupted]")


def roles(memory: Memory) -> str:
    return "".join(entry.role[0] for entry in memory.view)


def turn(memory: Memory, status: TurnStatus, *steps: object, text: str = "") -> list[Entry]:
    memory.apply(Invited("ann", 1, (1,)), [message("hello")])
    for step in steps:
        memory.apply(step)  # type: ignore[arg-type]
    memory.apply(TurnEnded("ann", 1, status, text=text))
    return list(memory.view)


CALL = ToolCall("c", "sh", {"cmd": "ls"})
STEP = Stepped("ann", 1, "looking", (CALL,))
DONE = CallFinished("ann", 1, CALL, ToolResult("c", "a"))


def test_a_turn_always_ends_with_an_answer() -> None:
    """Chat templates want users and assistants to take turns."""
    endings: list[tuple[TurnStatus, list[object], str]] = [
        ("answered", [Stepped("ann", 1, "hi")], ""),
        ("answered", [], "hi from one without steps"),
        ("passed", [Stepped("ann", 1, "PASS")], ""),
        ("passed", [], ""),
        ("failed", [], ""),
        ("failed", [STEP, DONE], ""),
        ("interrupted", [STEP], ""),
        ("interrupted", [STEP, DONE], "part"),
        ("interrupted", [Nudged("ann", 1, "go on")], ""),
    ]
    for status, steps, text in endings:
        memory = Memory(Joined("ann", "model", system="S"))
        entries = turn(memory, status, *steps, text=text)
        assert entries[-1].role == "assistant", (status, steps)
        assert text in entries[-1].content
        assert memory.open_turn == 0


def test_the_view_only_grows_until_it_is_compacted_or_cleared() -> None:
    memory = Memory(Joined("ann", "model", system="S"))
    view = memory.view
    turn(memory, "answered", STEP, DONE, Stepped("ann", 1, "it is a"))
    assert memory.view is view and roles(memory) == "suata"
    turn(memory, "answered", Stepped("ann", 1, "again"))
    memory.apply(Compacted("ann", 4, "they said hello"))
    assert memory.view is not view and roles(memory) == "suaua"
    assert "they said hello" in memory.view.since(1)[0].content
    memory.apply(Compacted("ann", 3, ""))
    assert roles(memory) == "sua" and "no summary" in memory.view.since(1)[0].content
    memory.apply(Cleared())
    assert roles(memory) == "s"


def test_a_compaction_within_a_turn_keeps_the_roles_alternating() -> None:
    memory = Memory(Joined("ann", "model", system="S"))
    memory.apply(Invited("ann", 1, (1,)), [message("hello")])
    for event in (STEP, DONE, STEP, DONE):
        memory.apply(event)
    memory.apply(Compacted("ann", 3, "so far"))
    assert roles(memory) == "suat"


# -- where to cut

BLOCK = st.lists(
    st.tuples(st.integers(1, 300), st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3)), max_size=4)),
    min_size=1,
    max_size=6,
)


def entries_of(blocks: list[tuple[int, list[tuple[int, int]]]]) -> list[Entry]:
    """Turns: a user's entry, then steps with their tool results."""
    entries = [Entry("system", "S")]
    for length, steps in blocks:
        entries.append(Entry("user", "u" * length))
        for size, calls in steps:
            made = tuple(ToolCall(f"{len(entries)}-{n}", "sh", {}) for n in range(calls))
            entries.append(Entry("assistant", "a" * size, made))
            entries += [Entry("tool", "t" * size, call_id=call.id) for call in made]
    return entries


@given(BLOCK, st.integers(0, 4000))
def test_what_stays_is_whole_and_fits_if_it_can(
    blocks: list[tuple[int, list[tuple[int, int]]]], keep: int
) -> None:
    entries = entries_of(blocks)
    cut = cut_point(entries, keep)
    kept = entries[1 + cut :]
    assert kept and kept[0].role in ("user", "assistant")
    ids = {call.id for entry in kept for call in entry.calls}
    assert {entry.call_id for entry in kept if entry.role == "tool"} == ids  # calls keep their results
    rests = [entries[place:] for place in range(1, len(entries)) if entries[place].role != "tool"]
    fitting = [rest for rest in rests if sum(entry.size for entry in rest) <= keep]
    turns = [rest for rest in fitting if rest[0].role == "user"]
    assert kept == (turns or fitting or [rests[-1]])[0]


def test_nothing_to_cut() -> None:
    assert cut_point([Entry("system", "S")], 10) == 0
    assert cut_point([Entry("system", "S"), Entry("user", "x" * 1000)], 10) == 0


@given(st.lists(st.text(max_size=200), max_size=10), st.integers(10, 500))
def test_text_to_summarise_is_bounded(texts: list[str], limit: int) -> None:
    entries = [Entry("assistant", text, (CALL,)) for text in texts]
    assert len(as_text(entries, limit)) <= limit + 60


# -- tokens


def test_the_estimate_follows_the_server() -> None:
    estimate = Estimate()
    assert estimate.tokens(1000) == 300
    assert not estimate.note(1000, 250)
    assert estimate.tokens(1000) == 250
    assert estimate.tokens(2000) == 500
    estimate.restart()
    assert estimate.tokens(2000) == 500  # the rate is the model's, whatever the view


@given(
    st.floats(0.1, 1.5),
    st.integers(0, 400),
    st.lists(st.integers(0, 5000), min_size=1, max_size=30),
)
def test_no_false_alarm_and_a_close_guess(rate: float, template: int, growth: list[int]) -> None:
    """A server that reads all: its count is at a rate of the model's own, plus what a template adds."""
    estimate = Estimate()
    size = 0
    for grown in growth:
        size += grown
        assert not estimate.note(size, template + max(1, round(rate * size)))
    expected = template + rate * (size + 1000)
    if max(growth) > 2000:
        assert abs(estimate.tokens(size + 1000) - expected) <= 0.35 * expected + 500 * rate


@given(st.floats(0.15, 1.0), st.integers(500, 5000))
def test_a_server_that_drops_the_oldest_is_noticed(rate: float, context: int) -> None:
    estimate = Estimate()
    size, alarms, over = 0, 0, 0
    while over < 6:
        size += 1500
        tokens = round(rate * size)
        over += tokens > context
        alarms += estimate.note(size, min(tokens, context - (size // 1500) % 3))
    assert alarms


def test_a_first_prompt_far_too_long_is_noticed() -> None:
    assert Estimate().note(60_000, 2051)
    assert not Estimate().note(60_000, 15_000)
    assert not Estimate().note(300, 8)
    assert not Estimate().note(60_000, 0)  # the server does not count
