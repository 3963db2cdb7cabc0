"""Events as JSON: every event comes back as it was, and what is no event is named."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.encoding import VERSION, decode, encode, from_json, to_json, type_name
from org.events import CallFinished, Event, Left, Posted, Stepped
from org.messages import EVERYONE, Audience, Message, Usage
from org.tooling import Origin, ToolCall, ToolError, ToolResult

EVENT_TYPES: tuple[type, ...] = get_args(Event)

# Every code point, surrogates and NUL with them, in any order.
TEXT = st.text(st.sampled_from('a\0\ud83d\ude00\udfff\n\u2028é😀`"\\') | st.integers(0, 0x10FFFF).map(chr))
NUMBER = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field of that type."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(
            hint, **{field.name: values(hints[field.name]) for field in dataclasses.fields(hint)}
        )
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is ...:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if origin in (Union, UnionType):
        return st.one_of(*map(values, args))
    if origin is Mapping:
        return st.dictionaries(TEXT, JSON, max_size=3)
    return {str: TEXT, int: st.integers(), float: NUMBER, NoneType: st.none()}[hint]


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_every_event_comes_back_as_it_was(kind: type) -> None:
    @settings(max_examples=60, deadline=None)
    @given(values(kind))
    def check(event: Event) -> None:
        data = to_json(event)
        assert from_json(data) == event
        assert decode(encode(event)) == event
        # What others are sent is plain JSON: lists for tuples, objects for what is nested.
        assert json.loads(encode(event)) == data

    check()


def test_a_posted_message_as_it_is_written() -> None:
    message = Message(3, "coder", "model", Audience.only("ada", "bob"), "hé\0\ud83d", 12.5, cause=2, hop=1)
    expected = {
        "v": 1,
        "type": "posted",
        "message": {
            "id": 3,
            "sender": "coder",
            "role": "model",
            "audience": {"kind": "direct", "names": ["ada", "bob"], "path": ""},
            "content": "hé\0\ud83d",
            "at": 12.5,
            "cause": 2,
            "hop": 1,
        },
        "key": "k-1",
        "digest": "d",
    }
    assert to_json(Posted(message, "k-1", "d")) == expected
    assert encode(Posted(message)).startswith(b'{"v":1,"type":"posted","message":{"id":3,')


def test_a_finished_call_as_it_is_written() -> None:
    call = ToolCall("c1", "sh", {"cmd": "ls"}, Origin("embedded", "hermes", (3, 9)))
    result = ToolResult("c1", "out", ToolError("failed", "no"), -9, 0.25)
    assert to_json(CallFinished("coder", 4, call, result)) == {
        "v": 1,
        "type": "call_finished",
        "participant": "coder",
        "turn": 4,
        "call": {
            "id": "c1",
            "name": "sh",
            "arguments": {"cmd": "ls"},
            "origin": {"kind": "embedded", "grammar": "hermes", "span": [3, 9]},
            "error": "",
        },
        "result": {
            "call_id": "c1",
            "output": "out",
            "error": {"kind": "failed", "message": "no"},
            "exit_code": -9,
            "seconds": 0.25,
        },
    }


def test_types_have_names_of_their_own() -> None:
    names = {type_name(kind) for kind in EVENT_TYPES}
    assert len(names) == len(EVENT_TYPES) == 21
    assert {"posted", "call_finished", "turn_ended", "mode_changed"} < names


def test_what_is_made_shares_nothing_with_the_event() -> None:
    arguments = {"cmd": "ls"}
    data = to_json(Stepped("coder", 1, "", (ToolCall("c1", "sh", arguments),)))
    data["calls"][0]["arguments"]["cmd"] = "rm"
    assert arguments == {"cmd": "ls"}


def test_what_is_unknown_is_ignored_and_what_has_a_default_may_be_missing() -> None:
    data = {"v": VERSION, "type": "stepped", "participant": "coder", "turn": 1, "text": "", "mood": "good"}
    assert from_json(data) == Stepped("coder", 1, "")
    assert from_json(data | {"usage": {"prompt": 3, "colour": 1}}) == Stepped("coder", 1, "", usage=Usage(3))


def test_a_whole_number_is_a_time_too() -> None:
    data = to_json(Posted(Message(1, "ada", "person", EVERYONE, "", 5.0)))
    data["message"]["at"] = 5
    assert from_json(data) == Posted(Message(1, "ada", "person", EVERYONE, "", 5.0))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"type": "exploded"}, "unknown type of event: 'exploded'"),
        ({"type": ["posted"]}, "unknown type of event: ['posted']"),
        ({"type": None}, "missing field: type"),
        ({"v": None}, "missing field: v"),
        ({"v": 2}, "unknown version of an event: 2 (this is version 1)"),
        ({"turn": None}, "call_finished: missing field: turn"),
        ({"turn": "4"}, "call_finished.turn: expected a whole number, got text"),
        ({"turn": True}, "call_finished.turn: expected a whole number, got true or false"),
        ({"turn": 4.0}, "call_finished.turn: expected a whole number, got a number"),
        ({"participant": 5}, "call_finished.participant: expected text, got a whole number"),
        ({"call": []}, "call_finished.call: expected an object, got a list"),
        ({"call.name": None}, "call_finished.call: missing field: name"),
        ({"call.arguments": "{}"}, "call_finished.call.arguments: expected an object, got text"),
        (
            {"call.origin.kind": "x"},
            "call_finished.call.origin.kind: expected one of declared, embedded; got 'x'",
        ),
        ({"call.origin.span": [1]}, "call_finished.call.origin.span: expected a list of 2, got a list"),
        ({"call.origin.span": [1, "2"]}, "call_finished.call.origin.span: expected a whole number, got text"),
        ({"result.seconds": "1"}, "call_finished.result.seconds: expected a number, got text"),
        ({"result.error.kind": "odd"}, "call_finished.result.error.kind: expected one of unknown_tool, "),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], problem: str) -> None:
    call = ToolCall("c1", "sh", {}, Origin("embedded", "hermes", (3, 9)))
    data = to_json(CallFinished("coder", 4, call, ToolResult("c1", "", ToolError("failed", ""))))
    ((path, value),) = change.items()
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(ValueError, match="^" + re.escape(problem)):
        from_json(data)


@pytest.mark.parametrize("data", [b"[]", b"{", b"", b"\xff", b'"posted"'])
def test_what_is_no_object_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"event|JSON|Expecting|codec"):
        decode(data)
    assert decode(encode(Left("ada"))) == Left("ada")
