from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.llm import wire
from org.llm.wire import UNANSWERED, EncodedView
from org.messages import ChatRequest, Entry, View
from org.tooling import ToolCall, ToolSpec

SYSTEM = Entry("system", "You help.")


def call(call_id: str, name: str = "sh", **arguments: Any) -> ToolCall:
    return ToolCall(call_id, name, arguments)


def said(*calls: ToolCall, text: str = "") -> Entry:
    return Entry("assistant", text, calls)


def result(call_id: str, text: str = "ok") -> Entry:
    return Entry("tool", text, call_id=call_id)


def messages(*entries: Entry) -> list[Mapping[str, Any]]:
    decoded: list[Mapping[str, Any]] = json.loads(b"[%b]" % EncodedView().of(View(entries)))
    return decoded


def outline(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Roles in short: `a2` is an assistant message with two calls."""
    return [m["role"][0] + str(len(m.get("tool_calls", ())) or "") for m in found]


def test_a_call_and_its_result() -> None:
    found = messages(SYSTEM, said(call("x", cmd="echo “hi”"), text="Look:"), result("x", "hi\n"))
    assert found == [
        {"role": "system", "content": "You help."},
        {
            "role": "assistant",
            "content": "Look:",
            "tool_calls": [
                {
                    "id": "c00000001",
                    "type": "function",
                    "function": {"name": "sh", "arguments": '{"cmd": "echo “hi”"}'},
                }
            ],
        },
        {"role": "tool", "content": "hi\n", "tool_call_id": "c00000001"},
    ]


def test_results_stand_after_their_calls_in_the_order_of_the_calls() -> None:
    found = messages(said(call("x"), call("y")), result("y", "2"), result("x", "1"), Entry("user", "and?"))
    assert outline(found) == ["a2", "t", "t", "u"]
    assert [m["content"] for m in found[1:3]] == ["1", "2"]


@pytest.mark.parametrize(
    "entries",
    [
        [said(call("x"), call("y")), result("y", "2")],
        [said(call("x"), call("y")), result("y", "2"), Entry("user", "and?")],
        [said(call("x"), call("y")), result("y", "2"), said(text="so")],
    ],
)
def test_a_call_without_a_result_is_told_to_be_one(entries: list[Entry]) -> None:
    found = messages(*entries)
    assert [m["content"] for m in found[1:3]] == [UNANSWERED, "2"]


def test_a_result_without_its_call_is_left_out() -> None:
    entries = [result("x"), said(call("x")), result("z"), result("x", "1"), result("x", "2"), result("x")]
    assert [m["content"] for m in messages(SYSTEM, *entries)] == ["You help.", "", "1"]


def test_two_calls_of_one_id_get_a_result_each() -> None:
    found = messages(said(call("x"), call("x")), result("x", "1"), result("x", "2"), result("x", "3"))
    assert [m["content"] for m in found[1:]] == ["1", "2"]
    assert len({m["tool_call_id"] for m in found[1:]}) == 2


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({}, "{}"),
        ({"a": float("nan"), "b": [float("inf"), 1.5]}, '{"a": null, "b": [null, 1.5]}'),
        ({"a": "é\u2028"}, '{"a": "é\u2028"}'),
        ({"a": "\ud800"}, '{"a": "?"}'),
    ],
)
def test_arguments_are_sent_as_the_text_of_an_object(arguments: dict[str, Any], sent: str) -> None:
    (message,) = messages(said(ToolCall("x", "sh", arguments)))[:1]
    assert message["tool_calls"][0]["function"]["arguments"] == sent


ANY_TEXT = st.text(alphabet=st.characters(), max_size=8)
IDS = st.sampled_from(["x", "y", "abcdefghi", "", "c00000001", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ANY_TEXT, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.builds(ToolCall, IDS, ANY_TEXT, st.dictionaries(ANY_TEXT, VALUES, max_size=2))
ENTRIES = st.one_of(
    st.builds(Entry, st.sampled_from(["system", "user", "assistant"]), ANY_TEXT),
    st.builds(
        Entry,
        st.sampled_from(["assistant", "assistant", "user"]),
        ANY_TEXT,
        st.lists(CALLS, max_size=3).map(tuple),
    ),
    st.builds(Entry, st.just("tool"), ANY_TEXT, call_id=IDS),
)


def check(found: Sequence[Mapping[str, Any]]) -> None:
    """What the strictest servers demand of a history."""
    open_ids: list[str] = []
    seen: set[str] = set()
    for message in found:
        assert isinstance(message["content"], str)
        if message["role"] == "tool":
            assert open_ids.pop(0) == message["tool_call_id"]
            continue
        assert not open_ids, "calls without results"
        assert message["role"] == "assistant" or "tool_calls" not in message
        assert message.get("tool_calls") != []
        for made in message.get("tool_calls", ()):
            assert len(made["id"]) == 9 and made["id"].isascii() and made["id"].isalnum()
            assert made["id"] not in seen
            seen.add(made["id"])
            open_ids.append(made["id"])
            assert isinstance(made["function"]["name"], str)
            arguments = made["function"]["arguments"]
            assert isinstance(json.loads(arguments, parse_constant=pytest.fail), dict)
    assert not open_ids


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=12))
def test_any_history_is_one_that_servers_take_and_only_grows(entries: list[Entry]) -> None:
    view, grown = View(), EncodedView()
    settled = b""
    for number, entry in enumerate(entries, 1):
        view.append(entry)
        encoded = grown.of(view)
        assert encoded == EncodedView().of(View(entries[:number])), "grown or at once: the same"
        check(json.loads(b"[%b]" % encoded))
        assert encoded.startswith(settled), "what was settled changed"
        pending = entry.role == "tool" or entry.calls
        settled = settled if pending else encoded


def test_a_view_that_grows_by_whole_steps_only_grows_at_its_end() -> None:
    view, encoded = View([SYSTEM]), EncodedView()
    before = encoded.of(view)
    for step in range(20):
        ids = [f"{step}-{n}" for n in range(step % 4)]
        for entry in (said(*map(call, ids)), *map(result, ids), Entry("user", "on")):
            view.append(entry)
        after = encoded.of(view)
        assert after.startswith(before + b",")
        before = after


def test_each_entry_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded_texts: list[str] = []
    encode = json.dumps

    def counting(value: Any, **options: Any) -> str:
        encoded_texts.append(str(value))
        return encode(value, **options)

    monkeypatch.setattr(json, "dumps", counting)
    view, encoded = View(), EncodedView()
    for number in range(50):
        for entry in (Entry("user", f"q{number}"), said(call("x", n=number)), result("x", f"r{number}")):
            view.append(entry)
        encoded.of(view)
    assert len(encoded_texts) == 50 * 4  # a question, arguments, the message around them, a result


def test_an_entry_that_cannot_be_encoded_does_not_repeat_those_before_it() -> None:
    view, encoded = (
        View([SYSTEM, Entry("user", "a"), said(ToolCall("x", "sh", {"a": object()}))]),
        EncodedView(),
    )
    for _ in range(2):
        with pytest.raises(TypeError):
            encoded.of(view)
    assert encoded._bytes.count(b"You help.") == 1


# -- bodies


REQUEST = ChatRequest("m", View(), temperature=0.5, top_p=0.9, max_tokens=7)


def test_a_body_says_everything_that_servers_would_otherwise_guess() -> None:
    assert json.loads(wire.body(REQUEST, b'{"role":"user","content":"x"}')) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "x"}],
    }


def test_a_body_with_tools_seed_and_stops_not_streamed() -> None:
    tool = ToolSpec("sh", "Run “it”", {"type": "object", "properties": {}})
    body = json.loads(wire.body(replace(REQUEST, tools=(tool,), seed=0, stop=("\n\n",)), b"", stream=False))
    assert (body["stream"], body["seed"], body["stop"]) == (False, 0, ["\n\n"])
    assert "stream_options" not in body
    assert body["messages"] == []
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "sh",
                "description": "Run “it”",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


def test_the_same_view_has_the_same_beginning_in_two_bodies() -> None:
    view, encoded = View([SYSTEM, Entry("user", "a")]), EncodedView()
    first = wire.body(REQUEST, encoded.of(view))
    view.append(said(text="b"))
    second = wire.body(REQUEST, encoded.of(view))
    assert second.startswith(first.removesuffix(b"]}"))
