from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.llm.think import BLANKS, ThinkSplitter


def split(*pieces: str) -> tuple[str, str, str]:
    """(said, thought, unclosed) of a whole text."""
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece) for piece in pieces]
    said, thought, unclosed = splitter.finish()
    return "".join(p[0] for p in parts) + said, "".join(p[1] for p in parts) + thought, unclosed


CASES = [
    ("plain", ("plain", "", "")),
    ("", ("", "", "")),
    ("<think>a</think>b", ("b", "a", "")),
    ("\n <think>\na\n</think>\n\n b", (" b", "\na\n", "")),
    ("<think></think>b", ("b", "", "")),
    ("<think>a", ("", "a", "a")),
    ("<think>a</thi", ("", "a</thi", "a</thi")),
    ("<think", ("<think", "", "")),
    ("<thinking>a", ("<thinking>a", "", "")),
    (" \n<", (" \n<", "", "")),
    (" \n", (" \n", "", "")),
    ("b <think>a</think>", ("b <think>a</think>", "", "")),
    ("<think>a<</think>b</think>c", ("b</think>c", "a<", "")),
    ("<think>a</think>\n\n", ("", "a", "")),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_thoughts_at_the_beginning_are_taken_out_however_the_text_is_cut(
    text: str, expected: tuple[str, str, str]
) -> None:
    assert split(text) == expected
    assert split(*text) == expected
    for at in range(len(text) + 1):
        assert split(text[:at], "", text[at:]) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think", "\n", " ", "x"])))
def test_any_text_gives_the_same_however_it_is_cut(parts: list[str]) -> None:
    text = "".join(parts)
    assert split(*parts) == split(text) == split(*text)


def test_only_what_may_become_a_tag_is_held_back() -> None:
    splitter = ThinkSplitter()
    assert splitter.feed(" " * BLANKS) == ("", "")
    assert splitter.feed(" ") == (" " * (BLANKS + 1), "")
    assert splitter.feed("<think>") == ("<think>", "")
    splitter = ThinkSplitter()
    assert splitter.feed("<think>abc</th") == ("", "abc")
    assert splitter.feed("x") == ("", "</thx")
