"""Patterns that wait: every beginning of a match asks for more, and nothing else does."""

from __future__ import annotations

import pytest

from org.llm.extract.patterns import BLANK, MORE, Pattern, ahead, capture, chars, either, maybe

CALL = Pattern(
    "<call", BLANK, capture("name", chars(r"\w", 1, 8)), either(">", "/>"), maybe("{", "}"), ahead("x")
)


@pytest.mark.parametrize("text", ["<call a>x", "<calla/>{}x", "<call   abcdefgh>x"])
def test_a_match_waits_for_all_of_it(text: str) -> None:
    for end in range(len(text)):
        assert CALL.match(text[:end], 0, final=False) is MORE, text[:end]
    found = CALL.match(text + "y", 0, final=False)
    assert found is not None and found is not MORE
    assert found.end() == len(text) - 1


@pytest.mark.parametrize("text", ["<kall", "<call ,", "<call abcdefghi>", "<call a>{]", "<call a>y"])
def test_what_cannot_match_does_not_wait(text: str) -> None:
    assert CALL.match(text, 0, final=False) is None


def test_nothing_waits_at_the_end() -> None:
    assert CALL.match("<call a", 0, final=True) is None
