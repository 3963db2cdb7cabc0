"""Patterns that know when they have not seen enough: written as a row of parts, matched against a
text that may go on. Pure.

`re` cannot say "this could still match if more came". A `Pattern` is compiled twice: once to match
all of its parts, once to match any beginning of them that reaches the end of the text. Every part
is bounded in length, so that retrying a match as the text grows stays cheap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Final, TypeAlias


class More(Enum):
    """The answer of everything that has to wait for more text."""

    MORE = "more"


MORE: Final = More.MORE


@dataclass(frozen=True, slots=True)
class Part:
    """A regular expression, and one for each beginning of what it matches (the empty one too)."""

    full: str
    partial: str


Element: TypeAlias = str | Part  # a plain string stands for itself


@cache
def lazy(expression: str, flags: int = 0) -> re.Pattern[str]:
    """A regular expression that is compiled when it is first needed: most texts hold no call."""
    return re.compile(expression, flags)


def beginnings(literal: str) -> str:
    """A regular expression for every beginning of `literal`, the empty one and itself included."""
    expression = ""
    for character in reversed(literal):
        expression = f"(?:{re.escape(character)}{expression})?"
    return expression


def full(*elements: Element) -> str:
    return "".join(re.escape(e) if isinstance(e, str) else e.full for e in elements)


def partial(*elements: Element) -> str:
    expression = ""
    for element in reversed(elements):
        start = beginnings(element) if isinstance(element, str) else element.partial
        whole = full(element)
        expression = f"(?:{whole}{expression}|{start})" if expression else start
    return expression


def unnamed(expression: str) -> str:
    """Without the names of its groups, so that it can stand several times in another."""
    return re.sub(r"\(\?P<\w+>", "(?:", expression)


def either(*options: Element | tuple[Element, ...]) -> Part:
    """The first of the options that matches; an option may be several elements in a row."""
    rows = [option if isinstance(option, tuple) else (option,) for option in options]
    return Part(
        "(?:" + "|".join(full(*row) for row in rows) + ")",
        "(?:" + "|".join(partial(*row) for row in rows) + ")",
    )


def maybe(*elements: Element) -> Part:
    return Part(f"(?:{full(*elements)})?", partial(*elements))


def capture(group: str, part: Part) -> Part:
    return Part(f"(?P<{group}>{part.full})", part.partial)


def chars(allowed: str, least: int, most: int) -> Part:
    """Between `least` and `most` of a character class, as in `[allowed]{least,most}`."""
    return Part(f"[{allowed}]{{{least},{most}}}", f"[{allowed}]{{0,{most}}}")


def ahead(allowed: str) -> Part:
    """The next character is one of the class; it is not consumed."""
    return Part(f"(?=[{allowed}])", "")


BLANK: Final = chars(r"\s", 0, 64)


class Pattern:
    """Elements in a row, to be matched at a position of a text that may go on."""

    def __init__(self, *elements: Element) -> None:
        self._elements = elements

    @cached_property
    def _full(self) -> re.Pattern[str]:
        return re.compile(full(*self._elements))

    @cached_property
    def _partial(self) -> re.Pattern[str]:
        return re.compile(f"(?:{unnamed(partial(*self._elements))})\\Z")

    def match(self, text: str, at: int, final: bool) -> re.Match[str] | More | None:
        """The match at `at`; `MORE` when it may still come or grow; None when it cannot.

        With `final`, the text ends where it ends.
        """
        found = self._full.match(text, at)
        if found is not None and (final or found.end() < len(text)):
            return found
        if not final and self._partial.match(text, at):
            return MORE
        return found
