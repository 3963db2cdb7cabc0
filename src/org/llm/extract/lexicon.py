"""The table of formats, made ready for one set of tool names: what triggers a closer look, and which
rows may begin there. Pure; kept for the sets of names that were used last."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from org.llm.extract.formats import END_TOKENS, FORMATS, TOOL_CODE, Format
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
        return Pattern(BLANK, either(*closers, *END_TOKENS))


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
    """Where a call, a block of code or other data may begin. Each branch starts with a literal
    character, which lets `re` skip everything else at the speed of a table look-up."""

    def word(text: str) -> str:
        return f"{re.escape(text[0])}(?={re.escape(text[1:])}|{beginnings(text[1:])}\\Z)"

    letters = re.escape("".join(sorted({name[0] for name in names} | set(_PREFIX_LETTERS))))
    called = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return "|".join(
        (
            r"""\{(?=\s{0,40}(?:["'“‘\\]{1,3}(?:[\w$]|\Z)|\{(?:["'\\]|\Z)|name\b|tool|function|action\b|arguments\b|parameters\b|type\b|[a-z_]{0,12}\Z))""",
            rf"""\[(?=\s{{0,40}}(?:[{{"T/{letters}]|\Z))""",
            r"<(?=[A-Za-z/]|[|｜](?:[A-Za-z]|\Z)|\Z)",
            r"`(?=``|`?\Z)",
            r"~(?=~~|~?\Z)",
            word('"tool_calls"'),
            word("'tool_calls'"),
            word("Action:"),
            word("**Action:"),
            word("functools"),
            word(">>>"),
            rf"@(?=(?:{called})|[\w.\-]{{0,{max(map(len, names))}}}\Z)",
        )
    )
