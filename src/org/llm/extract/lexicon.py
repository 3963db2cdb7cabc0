"""The table of formats, made ready for one set of tool names: what triggers a closer look, and which
rows may begin there. Pure; kept for the sets of names that were used last."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from org.llm.extract.formats import END_TOKENS, FORMATS, THINKING, TOOL_CODE, Format
from org.llm.extract.patterns import (
    BLANK,
    Element,
    Part,
    Pattern,
    beginnings,
    either,
    full,
    lazy,
    partial,
    unnamed,
)

_PREFIX_LETTERS = "fdta"  # functions., default_api., tools., api.
_FEW = 6  # openings with the same first character that are told apart already by the trigger


_FENCE_END = Part(r"```(?![\w`])", beginnings("```"))  # with a language, it opens another block


@dataclass(frozen=True)
class Row:
    """A format with its patterns for one set of names."""

    format: Format
    names: tuple[str, ...]
    tool: str = ""  # whose name is in the opening itself

    @cached_property
    def head(self) -> Pattern:
        return Pattern(*_expanded(self.format.head, self.names))

    @cached_property
    def header(self) -> Pattern | None:
        return None if self.format.header is None else Pattern(*_expanded(self.format.header, self.names))

    @cached_property
    def parameter(self) -> Pattern:
        tags = self.format.tags
        assert tags is not None
        return Pattern(*tags.parameter)

    @cached_property
    def closer(self) -> Pattern:
        closers = [closer.replace("{tool}", self.tool) for closer in self.format.closers]
        return Pattern(BLANK, either(*(_FENCE_END if c == "```" else c for c in closers), *END_TOKENS))


@dataclass(frozen=True)
class Opening:
    """A literal of the table, and the rows that it may start."""

    literal: str
    rows: tuple[Row, ...]

    @cached_property
    def gate(self) -> Pattern:
        """Matches wherever the head of any of the rows does: most look-alikes fail here."""
        heads = (_expanded(row.format.head, row.names) for row in self.rows)
        return Pattern(either(*((Part(unnamed(full(*head)), partial(*head))) for head in heads)))


class Lexicon:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.trigger = re.compile(_trigger(names))
        self.tool_code = Opening("", (Row(TOOL_CODE, names),))

    @cached_property
    def _openings(self) -> dict[str, Opening]:
        rows: dict[str, list[Row]] = {}
        for format in FORMATS:
            row = Row(format, self.names)
            for opening in format.open:
                named = (
                    [Row(format, self.names, name) for name in self.names] if "{tool}" in opening else [row]
                )
                for one in named:
                    rows.setdefault(opening.replace("{tool}", one.tool), []).append(one)
        return {literal: Opening(literal, tuple(fitting)) for literal, fitting in rows.items()}

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        longest_first = sorted(self._openings, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._openings))

    @cached_property
    def _shorter(self) -> dict[str, tuple[Opening, ...]]:
        """For each literal, what may start there: itself, and those it begins with."""
        return {
            literal: tuple(
                self._openings[literal[:n]]
                for n in range(len(literal), 0, -1)
                if literal[:n] in self._openings
            )
            for literal in self._openings
        }

    def openings(self, text: str, at: int) -> tuple[Opening, ...]:
        """What of the table stands at `at`, the longest first."""
        found = self._opening.match(text, at)
        return () if found is None else self._shorter[found.group()]

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        return frozenset(literal[:n] for literal in self._openings for n in range(1, len(literal)))

    def may_open(self, text: str, at: int) -> bool:
        """Whether the text, which ends, could go on to one of the literals at `at`."""
        return len(text) - at < self._longest and text[at:] in self._prefixes

    @cached_property
    def _called(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.names, key=len, reverse=True))))

    def name_in(self, text: str) -> str:
        """The first declared name in `text`, or empty."""
        found = self._called.search(text)
        return found.group() if found else ""

    def begins_name(self, text: str) -> bool:
        """Whether `text` ends in a quoted value that is the beginning of a declared name."""
        found = lazy(_NAME_VALUE).search(text)
        return found is not None and any(name.startswith(found[1]) for name in self.names)


_NAME_VALUE = r""":\s*\\?["'“](?:functions\.)?([\w.\-]+)\Z"""


@lru_cache(maxsize=32)
def lexicon(names: tuple[str, ...]) -> Lexicon:
    return Lexicon(names)


def _expanded(elements: tuple[Element, ...], names: tuple[str, ...]) -> tuple[Element, ...]:
    tool = either(*sorted(names, key=len, reverse=True))
    expanded: list[Element] = []
    for element in elements:
        if isinstance(element, Part):
            element = Part(
                element.full.replace("{tool}", f"(?P<name>{tool.full})"),
                element.partial.replace("{tool}", tool.full).replace("{tool-begins}", tool.partial),
            )
        expanded.append(element)
    return tuple(expanded)


def _trigger(names: tuple[str, ...]) -> str:
    """Where a call, thinking, a block of code or other data may begin. Each branch starts with a
    literal character, which lets `re` skip everything else at the speed of a table look-up."""
    marks = {mark for row in THINKING for mark in row}
    marks |= {literal.replace("{tool}", name) for f in FORMATS for literal in f.open for name in names}
    by_first: dict[str, set[str]] = {}
    for mark in marks:
        by_first.setdefault(mark[0], set()).add(mark[1:])
    seconds = _seconds(by_first.pop("[")) | {name[0] for name in names} | set(_PREFIX_LETTERS) | {"{", '"'}
    branches = [
        _object_start(by_first.pop("{")),
        rf"\[(?=\s{{0,40}}(?:{_one_of(seconds)}|\Z))",
        r"`(?=``|`?\Z)",
        r"~(?=~~|~?\Z)",
    ]
    for first, rests in sorted(by_first.items()):
        if len(rests) > _FEW:
            branches.append(f"{re.escape(first)}(?={_one_of(_seconds(rests))}|\\Z)")
        else:
            branches += [
                f"{re.escape(first)}(?={re.escape(rest)}|{beginnings(rest)}\\Z)" for rest in sorted(rests)
            ]
    return "|".join(branches)


def _object_start(rests: set[str]) -> str:
    """An opening brace before a quoted key, one of the usual keys, or another brace of the table."""
    keys = r"name\b|tool|function|action\b|arguments\b|parameters\b|type\b|[a-z_]{0,12}\Z"
    doubled = r"|\{(?:[\"'\\]|\Z)" if "{" in rests else ""
    return rf"\{{(?=\s{{0,40}}(?:[\"'“‘\\]{{1,3}}(?:[\w$]|\Z)|{keys}{doubled}|/(?:[/*]|\Z)|#))"


def _seconds(rests: set[str]) -> set[str]:
    return {rest[0] for rest in rests if rest}


def _one_of(characters: set[str]) -> str:
    return "[" + "".join(map(re.escape, sorted(characters))) + "]"
