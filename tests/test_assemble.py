from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.errors import OrgError, ServerRefused, StreamBroken
from org.llm.assemble import (
    DEPTH_LIMIT,
    Assembler,
    PairJoiner,
    error_message,
    parse_arguments,
    parse_json,
    whole,
)
from org.messages import Usage
from org.tooling import ToolCall
from replay import delta


def assembled(*events: object) -> Assembler:
    assembler = Assembler()
    for event in events:
        assembler.feed(json.dumps(event).encode())
    return assembler


def calls(*pieces: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, arguments or the error) of the calls that come of `pieces`, one in each delta."""
    numbers = count(1)
    found = assembled(*(delta(tool_calls=[piece]) for piece in pieces)).calls(lambda: str(next(numbers)))
    assert [call.id for call in found] == [str(n) for n in range(1, len(found) + 1)]
    assert all(call.origin.kind == "declared" for call in found)
    return [(call.name, call.error or dict(call.arguments)) for call in found]


Piece: TypeAlias = dict[str, Any]


def piece(index: int | None, call_id: object, name: str | None, arguments: object = None) -> Piece:
    """A part of a call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    outer = {"index": index, "id": call_id, "type": "function"}
    return {k: v for k, v in outer.items() if v is not None} | {
        "function": {k: v for k, v in function.items() if v is not None}
    }


def more(arguments: str, index: int = 0) -> Piece:
    return piece(index, None, None, arguments)


A, B = '{"a":1}', '{"b":2}'
TWO = [("f", {"a": 1}), ("g", {"b": 2})]
TWICE = [("f", {"a": 1}), ("f", {"a": 1})]
ONE = [("f", {"a": 1})]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # whole, by index
        ([piece(0, "x", "f", A), piece(1, "y", "g", B)], TWO),
        # in fragments that carry only the index
        ([piece(0, "x", "f", "{"), more('"a":'), more("1}")], ONE),
        # two calls whose fragments alternate
        ([piece(0, "x", "f", "{"), piece(1, "y", "g", "{"), more('"a":1}'), more('"b":2}', 1)], TWO),
        # index 0 for every call: another id is another call
        ([piece(0, "x", "f", A), piece(0, "y", "g", B)], TWO),
        ([piece(0, "x", "f", A), piece(0, "y", "f", A)], TWICE),
        ([piece(0, "x", "f", "{"), more('"a":1}'), piece(0, "y", "g", "{"), more('"b":2}')], TWO),
        # no index
        ([piece(None, "x", "f", A), piece(None, "y", "g", B)], TWO),
        ([piece(None, None, "f", A), piece(None, None, "g", B)], TWO),
        ([piece(None, "x", "f", "{"), piece(None, None, None, '"a":1}'), piece(None, "y", "g", B)], TWO),
        ([piece(None, "x", "f", "{"), piece(None, "x", None, '"a":1}'), piece(None, "y", "g", B)], TWO),
        # no id, index 0 for every call: a name after whole arguments begins another
        ([piece(0, None, "f", A), piece(0, None, "g", B)], TWO),
        ([piece(0, None, "f", A), piece(0, None, "f", A)], TWICE),
        # a name that comes late, or in pieces
        ([piece(0, "x", None, None), piece(0, None, "f", None), more(A)], ONE),
        ([piece(0, "x", "do_"), piece(0, None, "it"), more(A)], [("do_it", {"a": 1})]),
        ([piece(0, "x", None, A), piece(0, "x", "f", None)], ONE),
        # the same call named once more as it closes
        ([piece(0, "x", "f", A), piece(0, "x", "f", "")], ONE),
        ([piece(0, "x", "f", A), piece(0, "x", "f", A)], ONE),
        ([piece(0, "x", "f", "{"), piece(0, "x", "f", '"a":'), piece(0, "x", "f", "1}")], ONE),
        # an id of its own for every fragment
        ([piece(0, "x", "f", "{"), piece(0, "y", None, '"a":'), piece(0, "z", None, "1}")], ONE),
        # arguments as an object, encoded twice, none, blank
        ([piece(0, "x", "f", {"a": 1})], ONE),
        ([piece(0, "x", "f", json.dumps(A))], ONE),
        ([piece(0, "x", "f", json.dumps(json.dumps(A)))], ONE),
        ([piece(0, "x", "f", None)], [("f", {})]),
        ([piece(0, "x", "f", " \n")], [("f", {})]),
        ([piece(0, "x", "f", "{}")], [("f", {})]),
        ([piece(0, "x", "f", "null")], [("f", "the arguments are not a JSON object: null")]),
        # raw line ends in a string are what some models write
        ([piece(0, "x", "f", '{"a":"1\n2"}')], [("f", {"a": "1\n2"})]),
        ([piece(0, "x", " f ", A)], ONE),
        ([piece(0, 7, "f", A)], ONE),
        ([{"index": 0}, {"index": "0", "function": 5}, {"id": []}], []),
    ],
)  # fmt: skip
def test_pieces_of_calls_are_put_together(pieces: Sequence[dict[str, Any]], expected: list[Any]) -> None:
    assert calls(*pieces) == expected
    together = assembled(delta(tool_calls=list(pieces))).calls(str)
    assert [(c.name, c.error or c.arguments) for c in together] == expected


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("fg"), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_calls_in_any_fragments_are_the_calls(
    made: list[tuple[str, dict[str, int]]], data: st.DataObject
) -> None:
    """Ids, and fragments that only repeat the index, as llama.cpp and OpenAI send them."""
    zero = data.draw(st.booleans(), label="index always 0")
    pieces = []
    for number, (name, arguments) in enumerate(made):
        index = 0 if zero else number
        raw = json.dumps(arguments)
        points = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=3)))
        parts = [raw[a:b] for a, b in zip([0, *points], [*points, len(raw)], strict=True)]
        pieces += [piece(index, f"id{number}", name, parts[0])]
        pieces += [piece(index, None, None, part) for part in parts[1:]]
    assert calls(*pieces) == made


def test_the_old_form_of_a_call() -> None:
    assembler = assembled(
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": '{"a":'}),
        delta("function_call", function_call={"arguments": "1}"}),
    )
    assert assembler.calls(lambda: "n") == (ToolCall("n", "f", {"a": 1}),)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ('{"cmd": "rm -rf /srv', "the arguments are not JSON"),
        ("cmd=ls", "the arguments are not JSON"),
        ("[1]", "the arguments are not a JSON object: [1]"),
        ("5", "the arguments are not a JSON object: 5"),
        ('"five"', "the arguments are not JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is no JSON number"),
        ('{"a": ' + "9" * 5000 + "}", "the arguments are not JSON"),
        ("[" * 100_000, "the arguments are not JSON"),
        ('{"a":' * (DEPTH_LIMIT + 1) + "1" + "}" * (DEPTH_LIMIT + 1), "nested more than 100 levels deep"),
        ("\ud83d", "the arguments are not JSON"),
    ],
)
def test_broken_arguments_are_named_and_not_kept(raw: str, error: str) -> None:
    arguments, message = parse_arguments(raw)
    assert arguments == {}
    assert error in message
    assert len(message) < 400
    message.encode()


def test_halves_of_surrogate_pairs_are_replaced_in_arguments() -> None:
    arguments, error = parse_arguments('{"a\\ud800": ["\\uDFFF", "\\ud83d\\ude00", "x\ud83d"]}')
    assert (arguments, error) == ({"a\ufffd": ["\ufffd", "😀", "x\ufffd"]}, "")
    assert parse_arguments(json.dumps('{"a": "\\ud800"}')) == ({"a": "\ufffd"}, "")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=20), st.lists(st.integers(0, 40), max_size=5))
def test_halves_of_surrogate_pairs_are_joined_across_pieces(text: str, points: list[int]) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    halves = [units[n : n + 2].decode("utf-16-le", "surrogatepass") for n in range(0, len(units), 2)]
    joiner = PairJoiner()
    bounds = [0, *sorted(min(p, len(halves)) for p in points), len(halves)]
    pieces = ["".join(halves[a:b]) for a, b in pairwise(bounds)]
    joined = "".join([joiner.feed(one) for one in pieces]) + joiner.finish()
    assert joined == whole("".join(halves))
    assert joined == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    joined.encode()


# -- text, reasoning, usage, ends


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": "a"}, ("a", "")),
        ({"content": None, "reasoning": "b"}, ("", "b")),
        ({"content": "", "reasoning_content": "b"}, ("", "b")),
        ({"reasoning": "b", "reasoning_content": "b"}, ("", "b")),
        ({"reasoning": [{"text": "b"}]}, ("", "b")),
        ({"reasoning": {"text": "b"}}, ("", "")),
        ({"content": [{"type": "text", "text": "a"}, "b", {"text": 5}, 7, None]}, ("ab", "")),
        ({"content": {"text": "a"}}, ("", "")),
        ({"content": 5}, ("", "")),
        ({"role": "assistant"}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_text_and_reasoning_of_a_delta(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assembler = Assembler()
    assert assembler.feed(json.dumps(delta(**fields)).encode()) == expected
    whole_message = {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}
    assert assembler.feed(json.dumps(whole_message).encode()) == expected


def test_only_the_answer_that_was_asked_for_counts() -> None:
    assembler = Assembler()
    other = {"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}
    mine = {"index": 0, "delta": {"content": "yes"}}
    assert assembler.feed(json.dumps({"choices": [other]}).encode()) == ("", "")
    assert assembler.feed(json.dumps({"choices": [other, mine]}).encode()) == ("yes", "")
    assert not assembler.complete


def test_usage_comes_with_or_without_choices_and_the_last_one_counts() -> None:
    counted = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
    assert assembled({"choices": [], "usage": counted}).usage == Usage(7, 2, 5)
    assert assembled({"usage": counted}, delta(content="x")).usage == Usage(7, 2, 5)
    assert assembled({"usage": counted}, {"usage": None}, {"usage": []}).usage == Usage(7, 2, 5)
    odd = {"prompt_tokens": "7", "completion_tokens": -2, "prompt_tokens_details": [5]}
    assert assembled({"usage": odd}).usage == Usage()
    assert assembled({"usage": 5}).usage is None


def test_done_and_a_finish_reason_are_each_an_end() -> None:
    by_reason = assembled(delta("stop"))
    assert (by_reason.complete, by_reason.done, by_reason.finish) == (True, False, "stop")
    by_done = Assembler()
    assert by_done.feed(b"[DONE]") == ("", "")
    assert (by_done.complete, by_done.finish) == (True, "")
    assert not assembled(delta(content="x")).complete
    assert not assembled({"choices": [{"index": 0, "delta": {}, "finish_reason": {"a": 1}}]}).complete


def test_a_chunk_without_a_model_hides_an_error() -> None:
    assert assembled({"model": "", "choices": []}).swallowed
    assert not assembled({"model": "m", "choices": []}, {"choices": []}).swallowed


def test_events_on_consecutive_lines() -> None:
    one, two = (json.dumps(delta(content=text, reasoning=text.upper())).encode() for text in "ab")
    assembler = Assembler()
    assert assembler.feed(one + b"\n" + two + b"\n[DONE]") == ("ab", "AB")
    assert assembler.done


def test_one_event_on_several_lines() -> None:
    assert Assembler().feed(json.dumps(delta(content="a"), indent=1).encode()) == ("a", "")


# -- what is not as it should be


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not JSON: ``"),
        (b"{", "not JSON: `{`"),
        (b"[1]", "no object: `[1]`"),
        (b"5", "no object: `5`"),
        (b"x" * 500, "`" + "x" * 120 + "…`"),
        (b'{"a":' * 200_000, "not JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
def test_an_event_that_is_none_breaks_the_stream(payload: bytes, message: str) -> None:
    with pytest.raises(StreamBroken) as caught:
        Assembler().feed(payload)
    assert message in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"error": {"message": "no room", "code": 500}}, "no room"),
        ({"error": "no room"}, "no room"),
        ({"error": {"error": {"message": "no room"}}, "choices": []}, "no room"),
        ({"error": {"code": 5}}, "without a message"),
        ({"error": 5}, "without a message"),
    ],
)
def test_an_error_event_is_raised_with_its_message(event: object, message: str) -> None:
    with pytest.raises(ServerRefused) as caught:
        assembled(event)
    assert caught.value.message == f"the model server reported an error: {message}"
    assert caught.value.status == 0


def test_bytes_that_are_no_utf8_and_raw_control_characters_are_taken() -> None:
    payload = b'{"choices":[{"index":0,"delta":{"content":"a\xff\xed\xa0\x80\x01\tb"}}]}'
    assert Assembler().feed(payload) == ("a\ufffd\ufffd\ufffd\ufffd\x01\tb", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FUNCTION = st.fixed_dictionaries({}, optional={"name": JSON | st.text(), "arguments": JSON | st.text()})
CALL = st.fixed_dictionaries({}, optional={"index": JSON, "id": JSON, "function": JSON | FUNCTION})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "content": JSON,
        "reasoning": JSON,
        "reasoning_content": JSON,
        "tool_calls": JSON | st.lists(CALL),
        "function_call": JSON | FUNCTION,
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={"index": JSON, "delta": JSON | MESSAGE, "message": JSON | MESSAGE, "finish_reason": JSON},
)
EVENT = st.fixed_dictionaries(
    {}, optional={"choices": JSON | st.lists(CHOICE), "usage": JSON, "model": JSON, "error": JSON}
)


@settings(deadline=None, max_examples=200)
@given(st.lists(EVENT | JSON, max_size=5))
def test_any_types_anywhere_are_taken_or_refused(events: list[object]) -> None:
    assembler = Assembler()
    try:
        pieces = [assembler.feed(json.dumps(event).encode()) for event in events]
    except OrgError as error:
        error.message.encode()
        return
    assert all(isinstance(text, str) for pair in pieces for text in pair)
    for call in assembler.calls(lambda: "n"):
        assert isinstance(call.name, str)
        json.dumps([call.name, call.error, call.arguments], ensure_ascii=False, allow_nan=False).encode()
    assembler.finish.encode()
    assert assembler.usage is None or assembler.usage.total >= 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": " no room ", "type": "t"}}, "no room"),
        ({"error": "no room"}, "no room"),
        ({"message": "no room"}, "no room"),
        ({"detail": "no room"}, "no room"),
        ({"detail": [{"loc": ["a"], "msg": "no room"}]}, "no room"),
        ([{"error": {"message": "no room"}}], "no room"),
        ({"error": {"code": 5}, "message": "no room"}, "no room"),
        ("no room\n", "no room"),
        ("\ud800", "\ufffd"),
        ({"error": None}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_message_of_an_error_body(body: object, message: str) -> None:
    assert error_message(body) == message


def test_an_endless_nest_of_errors_has_no_message() -> None:
    nest: dict[str, object] = {}
    nest["error"] = nest
    assert error_message(nest) == ""


def test_json_that_is_too_deep_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(b"[" * 200_000 + b"]" * 200_000)
