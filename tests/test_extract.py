"""Calls in text: the cases of `data/extract`, whole and in pieces, cut anywhere, and in random text.

A case of the data files holds a text, the calls in it, the names of calls that are cut off, and the
text that stays visible; a case without calls stays as it is.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.llm.extract import Extraction, ToolCallStream, extract_tool_calls
from org.llm.extract.formats import FORMATS

DATA = Path(__file__).parent / "data" / "extract"
TOOLS = json.loads((DATA / "tools.json").read_text())


def cases(*names: str) -> list[dict[str, Any]]:
    lines = [line for name in names for line in (DATA / f"{name}.jsonl").read_text("utf-8").split("\n")]
    return [json.loads(line) for line in lines if line]


ALL = cases("calls", "malformed", "incomplete", "negatives")
CALL = '<tool_call>\n{"name": "sh", "arguments": {"cmd": "ls"}}\n</tool_call>'


def found_in(extraction: Extraction) -> list[list[Any]]:
    return [[call.name, dict(call.arguments)] for call in extraction.calls]


def streamed(text: str, sizes: list[int]) -> tuple[Extraction, list[str]]:
    """The text fed in pieces of these sizes, again and again; what each feed showed."""
    stream, shown, at, step = ToolCallStream(TOOLS), [], 0, 0
    while at < len(text):
        size = sizes[step % len(sizes)]
        shown.append(stream.feed(text[at : at + size]))
        at, step = at + size, step + 1
    return stream.finish(), shown


def same(one: Extraction, other: Extraction) -> bool:
    return (one.calls, one.content, one.incomplete, one.refused) == (
        other.calls,
        other.content,
        other.incomplete,
        other.refused,
    )


# -- the corpus


@pytest.mark.parametrize("case", ALL, ids=lambda case: case["id"])
def test_the_calls_are_found_and_nothing_else_changes(case: dict[str, Any]) -> None:
    found = extract_tool_calls(case["text"], TOOLS)
    assert found_in(found) == case.get("calls", [])
    assert [cut.name for cut in found.incomplete] == case.get("incomplete", [])
    assert found.content == found.tail == case.get("visible", case["text"])


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_pieces_give_what_the_whole_gives(size: int) -> None:
    for case in ALL:
        whole = extract_tool_calls(case["text"], TOOLS)
        found, shown = streamed(case["text"], [size])
        assert same(found, whole), case["id"]
        assert "".join(shown) + found.tail == found.content, case["id"]


def test_the_corpus_is_large_enough() -> None:
    assert len(ALL) >= 300
    assert len(cases("negatives")) >= 100


def test_every_format_of_the_table_is_in_the_corpus() -> None:
    grammars = {
        call.origin.grammar
        for case in cases("calls", "malformed")
        for call in extract_tool_calls(case["text"], TOOLS).calls
    }
    assert grammars >= {format.name for format in FORMATS}


@pytest.mark.parametrize("case", cases("calls"), ids=lambda case: case["id"])
def test_half_a_call_is_never_another_call(case: dict[str, Any]) -> None:
    """Wherever the text stops: each call that is found is one of the whole text, or misses only
    arguments that its tool can do without."""
    if "Action Input: who" in case["text"] or "Action Input: ls" in case["text"]:
        return  # plain text has no end of its own
    if case["id"] == "a closing tag inside a value":
        return  # where it stops, it could be the end
    required = {tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in TOOLS}
    whole = case["calls"]
    for end in range(1, len(case["text"]), 3):
        for name, arguments in found_in(extract_tool_calls(case["text"][:end], TOOLS)):
            assert any(
                name == other and arguments.items() <= given.items() and set(required[name]) <= set(arguments)
                for other, given in whole
            ), (case["text"][:end], arguments)


# -- what a call carries


def test_a_call_carries_its_origin() -> None:
    text = f"Ok. {CALL} Done."
    (call,) = extract_tool_calls(text, TOOLS).calls
    assert (call.id, call.origin.kind, call.origin.grammar) == ("", "embedded", "hermes")
    assert call.origin.span is not None
    assert text[slice(*call.origin.span)] == CALL


def test_a_look_alike_carries_its_reason() -> None:
    text = f"Write `{CALL}` for that."
    (refused,) = extract_tool_calls(text, TOOLS).refused
    assert refused.reason == "inline code"
    assert text[slice(*refused.span)] == CALL


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<tool_call>{"name": "nope", "arguments": {}}</tool_call>', "no tool is called `nope`"),
        ('{"name": "nope", "arguments": {}}', "no tool is called `nope`"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant"}]', "a list of chat messages"),
        (f"Example: {CALL}", "presented as an example"),
        (f"<think>\n{CALL}\n</think>", "in closed thinking"),
        (f"{CALL}\n</think>", "in closed thinking"),
        (f"```\n{CALL}\nand text\n```", "in a block of code with other text"),
        (f"> {CALL}", "in a quotation"),
        (f"<example>{CALL}</example>", "inside `<example>`"),
        ('<tools>{"name": "sh", "parameters": {"properties": {}}}</tools>', "a tool's schema"),
        ('<tool_call>{"name": "sh", "arguments": {"cmd": "..."}}</tool_call>', "its arguments are stand-ins"),
        ('{"name": "sh", "arguments": {"cmd": "ls"}, "result": "a"}', "a record that holds more than a call"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    found = extract_tool_calls(text, TOOLS)
    assert (found.calls, found.content) == ((), text)
    assert [refused.reason for refused in found.refused] == ([reason])


def test_tools_may_be_bare_function_objects() -> None:
    assert extract_tool_calls(CALL, [tool["function"] for tool in TOOLS]).calls


def test_tools_may_have_an_input_schema() -> None:
    functions = [tool["function"] for tool in TOOLS]
    tools = [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
    text = "<function=sh><parameter=cmd>1</parameter><parameter=timeout_s>1</parameter></function>"
    assert found_in(extract_tool_calls(text, tools)) == [["sh", {"cmd": "1", "timeout_s": 1}]]


def test_without_tools_nothing_is_a_call() -> None:
    found = extract_tool_calls(CALL, [])
    assert (found.calls, found.content, found.refused) == ((), CALL, ())


def test_a_tool_with_a_broken_schema_can_be_called() -> None:
    broken: list[Any] = [None, [], "x", {"properties": [1], "required": "cmd"}, {"required": [1]}]
    for parameters in broken:
        assert extract_tool_calls(CALL, [{"function": {"name": "sh", "parameters": parameters}}]).calls
    assert extract_tool_calls(CALL, [{"function": "x"}, {"name": 1}, {}]).calls == ()


def test_a_tool_of_any_name_can_be_called() -> None:
    tools = [{"name": "a.b-c/d"}, {"name": "ls+"}, {"name": "名"}]
    for tool in tools:
        text = json.dumps({"name": tool["name"], "arguments": {"x": 1}}, ensure_ascii=False)
        assert [call.name for call in extract_tool_calls(text, tools).calls] == [tool["name"]]


# -- streams


def test_prose_comes_out_at_once() -> None:
    prose = 'A "quoted" word, (brackets), a < b, [a list], it\'s *fine* & e-mail a@b.c; 3 > 2.\n' * 20
    stream = ToolCallStream(TOOLS)
    shown = 0
    for fed, character in enumerate(prose, 1):
        shown += len(stream.feed(character))
        assert fed - shown <= 16
    assert stream.finish().content == prose


@pytest.mark.parametrize("case", cases("calls"), ids=lambda case: case["id"])
def test_a_call_is_never_shown_in_part(case: dict[str, Any]) -> None:
    _, shown = streamed(case["text"], [1])
    assert case["visible"].startswith("".join(shown))


def test_text_after_a_call_waits_for_the_end_of_thinking_that_may_come() -> None:
    stream = ToolCallStream(TOOLS)
    assert stream.feed(f"So: {CALL}\n\nNow") == "So: "
    assert stream.feed("</think>Done") == f"{CALL}\n\nNow</think>Done"
    assert stream.finish().calls == ()


def test_text_after_a_call_comes_out_at_once_when_thinking_is_over() -> None:
    stream = ToolCallStream(TOOLS)
    stream.feed(f"<think>so</think>{CALL}")
    assert stream.feed("\n\nNow") == "\n\nNow"


def test_an_empty_chunk_shows_nothing() -> None:
    stream = ToolCallStream(TOOLS)
    assert (stream.feed(""), stream.feed("a"), stream.feed("")) == ("", "a", "")
    assert stream.finish().content == "a"


# -- any text


MARKS = st.sampled_from(
    sorted(
        {opening.replace("{tool}", "sh") for format in FORMATS for opening in format.open}
        | {closer.replace("{tool}", "sh") for format in FORMATS for closer in format.closers}
        | {CALL, '{"name": "sh", "arguments": {"cmd": "ls"}}', "sh", "cmd", '"cmd": "ls"', '"ls"'}
        | {"```", "```json\n", "`", "<think>", "</think>", "\n", " ", '"', "'", "\\", "{", "}", "[", "]"}
        | {
            "(",
            ")",
            ":",
            ",",
            ";",
            "<",
            ">",
            "|",
            "For example: ",
            "call:sh",
            "<parameter=cmd>",
            "</parameter>",
        }
    )
)
TEXTS = st.lists(MARKS | st.text(max_size=8), max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_text_in_any_pieces(text: str, sizes: list[int]) -> None:
    whole = extract_tool_calls(text, TOOLS)
    found, shown = streamed(text, sizes)
    assert same(found, whole)
    assert "".join(shown) + found.tail == found.content
    if not whole.calls and not whole.incomplete:
        assert whole.content == text


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ALL), st.integers(0, 400), MARKS, st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_a_damaged_case_in_any_pieces(case: dict[str, Any], at: int, mark: str, sizes: list[int]) -> None:
    text = case["text"][:at] + mark + case["text"][at:]
    assert same(streamed(text, sizes)[0], extract_tool_calls(text, TOOLS))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
)
def test_any_arguments_come_back(arguments: dict[str, Any]) -> None:
    text = json.dumps({"name": "sh", "arguments": arguments}, ensure_ascii=False)
    (call,) = extract_tool_calls(f"<tool_call>{text}</tool_call>", [{"name": "sh"}]).calls
    assert call.arguments == arguments


# -- large texts

HOSTILE = [
    *(
        "{",
        "[",
        "<tool_call>",
        "`",
        "```\n",
        "\\",
        '{"name":',
        "<function=sh><parameter=cmd>",
        "[sh(",
        "Action:",
    ),
    '<tool_call>\n{"name": "sh", "arguments": {"cmd": "ls',
    "<function=sh><parameter=cmd>x</parameter> y ",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_memory_stays_within_four_times_the_text(unit: str) -> None:
    text = unit * ((1 << 18) // len(unit))
    streamed(text[:1000], [16])  # what is compiled once does not count
    tracemalloc.start()
    stream = ToolCallStream(TOOLS)
    for at in range(0, len(text), 16):
        stream.feed(text[at : at + 16])
    stream.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 4 * len(text)


def test_a_text_of_nothing_but_calls_is_given_up_on() -> None:
    found = extract_tool_calls(CALL * 3000, TOOLS)
    assert 900 < len(found.calls) < 1100
    assert CALL * 1000 in found.content
