"""Speech as it comes, cut where it turns to somebody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.chat.flow import Flow
from org.chat.routing import route
from org.messages import EVERYONE, Audience

NAMES = ("ada", "coder", "calc")


def heard(*pieces: str) -> list[tuple[str, str]]:
    """(audience, text) of what comes out, pieces to the same audience put together."""
    flow = Flow("coder", EVERYONE, NAMES)
    found: list[tuple[str, str]] = []
    for audience, text in [*(p for piece in pieces for p in flow.feed(piece)), *flow.finish()]:
        if audience is not None:
            found.append((str(audience), ""))
        found[-1] = (found[-1][0], found[-1][1] + text)
    return found


def test_text_before_an_address_is_for_the_standing_audience() -> None:
    assert heard("hello\n@ada for you\nmore\n#file:a.md x") == [
        ("group", "hello\n"),
        ("direct:ada", "for you\nmore\n"),
        ("file:a.md", "x"),
    ]


def test_what_only_looks_like_an_address_is_text() -> None:
    assert heard("@ada.b and @nobody-here\n#1") == [("group", "@ada.b and @nobody-here\n#1")]


def test_an_address_in_a_code_block_is_text() -> None:
    text = "```\n@ada x\n```\n@ada y"
    assert heard(text) == [("group", "```\n@ada x\n```\n"), ("direct:ada", "y")]


def test_nothing_is_held_back_once_the_address_is_clear() -> None:
    flow = Flow("coder", EVERYONE, NAMES)
    assert flow.feed("@ada") == []
    assert flow.feed(" @calc") == []
    assert flow.feed(" see") == [(Audience.only("ada", "calc"), "see")]
    assert flow.feed(" here") == [(None, " here")]


def test_a_plain_line_is_not_held_back() -> None:
    assert Flow("coder", EVERYONE, NAMES).feed("Wo") == [(EVERYONE, "Wo")]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_however_it_is_cut_the_same_comes_out(size: int) -> None:
    text = "hello\n@ada, x\n\n```py\n@calc\n```\n#file:a.md y\n@coder z\n@calc: w"
    assert heard(*[text[i : i + size] for i in range(0, len(text), size)]) == heard(text)


@given(st.lists(st.sampled_from(["@ada x", "@calc", "#file:a.md", "words", "```", "", "  @ada y", "@ada.z"])))
def test_audiences_are_those_of_the_whole_text(lines: list[str]) -> None:
    text = "\n".join(lines)
    said = [(audience, content) for audience, content in heard(text) if content.strip()]
    routed = [str(s.audience) for s in route(text, "coder", NAMES, EVERYONE).segments]
    assert [audience for audience, _ in said] == routed
