from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.chat.participant import Sampling
from org.messages import Usage
from org.serve.completions import GO_ON, Asked, Heading, Said, models, read_asked
from org.serve.refusal import Refusal

HI = [{"role": "user", "content": "hi"}]
ROOM = {"room": "main"}


def asked(**body: Any) -> Asked:
    return read_asked(json.dumps({"model": "org/main", "messages": HI} | body).encode())


def test_a_plain_request() -> None:
    assert asked() == Asked("org/main", "", (Said("user", "hi"),))
    assert asked(model="org/main/coder").participant == "coder"


def test_a_full_request() -> None:
    found = asked(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "c", "name": "bob"},
        ],
        stream=True,
        stream_options={"include_usage": True},
        metadata={"room": "main", "other": 1},
        seed=-5,
        stop="x",
        max_tokens=9,
        max_completion_tokens=7,
        tools=[],
        n=1,
        response_format={"type": "text"},
        logprobs=True,
    )
    assert found.said == (Said("user", "ab"), Said("assistant", ""), Said("user", "c"))
    assert found.system == "Be brief.\n\nBe kind."
    assert (found.stream, found.usage, found.room) == (True, True, "main")
    assert (found.seed, found.stop, found.max_tokens) == (-5, ("x",), 7)


def test_what_is_asked_for_goes_before_what_is_usual() -> None:
    usual = Sampling(temperature=0.5, top_p=0.9, max_tokens=100, context_tokens=777)
    assert asked().sampling(usual) == usual
    wanted = asked(temperature=0, top_p=1, max_tokens=10, seed=0, stop=["a", "b"]).sampling(usual)
    assert wanted == Sampling(0, 1, 10, 777, seed=0, stop=("a", "b"))
    assert asked(max_tokens=300).sampling(usual).max_tokens == 300
    assert asked(max_tokens=1000).sampling(usual).max_tokens == usual.longest == 388


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "be brief"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": " \n"}],
        [{"role": "assistant", "content": ""}],
    ],
)
def test_where_nothing_is_said_there_is_something_to_answer(messages: list[Any]) -> None:
    for model in ("org/main", "org/main/coder"):
        assert asked(model=model, messages=messages).said == (Said("user", GO_ON),)


def test_an_assistants_words_are_gone_on_with() -> None:
    parts = [{"type": "refusal", "refusal": "I will not."}, {"type": "text", "text": " Or will I?"}]
    said = asked(messages=[*HI, {"role": "assistant", "content": parts}]).said
    assert said[1:] == (Said("assistant", "I will not. Or will I?"), Said("user", GO_ON))


@pytest.mark.parametrize(("tools", "choice"), [("tools", "tool_choice"), ("functions", "function_call")])
def test_tools_that_are_not_to_be_called_are_no_matter(tools: str, choice: str) -> None:
    assert asked(**{tools: [{}], choice: "none"}) == asked()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": None}, 404, "model"),
        ({"model": 5}, 400, "model"),
        ({"model": "org/mainer"}, 404, "model"),
        ({"model": "org/main/"}, 404, "model"),
        ({"messages": None}, 400, "messages"),
        ({"messages": {}}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": ["hi"]}, 400, "messages[0]"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}], "metadata": ROOM}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}], "metadata": ROOM}, 400, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, 400, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content[0].text"),
        ({"messages": [*HI, {"role": "tool", "content": "x"}]}, 400, "messages[1]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}, *HI]}, 400, "messages[0]"),
        ({"functions": [{}]}, 400, "functions"),
        ({"tools": [{}], "function_call": "none"}, 400, "tools"),
        ({"tools": [{}], "tool_choice": "auto"}, 400, "tools"),
        ({"n": 0}, 400, "n"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stream_options": {"include_usage": 1}}, 400, "stream_options.include_usage"),
        ({"temperature": True}, 400, "temperature"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"top_p": 1.1}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"seed": 2**63}, 400, "seed"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": 5}, 400, "stop"),
        ({"metadata": {"room": 5}}, 400, "metadata.room"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
    ],
)
def test_what_is_off_is_named(body: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises(Refusal) as raised:
        asked(**body)
    assert (raised.value.status, raised.value.param) == (status, param)


KEYS = (
    "messages",
    "model",
    "stream",
    "stop",
    "n",
    "seed",
    "metadata",
    "tools",
    "temperature",
    "content",
    "role",
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(KEYS)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=12
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_anything_is_read_or_refused(body: object) -> None:
    if isinstance(body, dict):
        body = {"model": "org/main", "messages": HI} | body
    with suppress(Refusal):
        read_asked(json.dumps(body).encode())


@given(st.binary())
def test_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        read_asked(body)


def test_an_answer_in_its_forms() -> None:
    heading = Heading("id", 5, "org/main")
    usage = Usage(3, 4, 1)
    whole = heading.whole("yes", "", "stop", usage)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "yes", "refusal": None}
    assert whole["usage"]["total_tokens"] == 7
    frame = heading.chunk({"content": "\ud800\u2028"}, with_usage=True)
    assert frame.isascii()
    chunk = json.loads(frame.removeprefix(b"data: "))
    assert (chunk["choices"][0]["delta"]["content"], chunk["usage"]) == ("\ud800\u2028", None)
    last = json.loads(heading.usage(usage).removeprefix(b"data: "))
    assert (last["choices"], last["usage"]["prompt_tokens_details"]) == ([], {"cached_tokens": 1})
    assert [model["id"] for model in models(["coder"], 5)] == ["org/main", "org/main/coder"]
