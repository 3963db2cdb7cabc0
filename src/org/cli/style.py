"""How text looks in a terminal: colours only where they belong, and nothing that could drive it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TextIO

# C0 but newline and tab, DEL, C1; marks that turn the writing direction; line and paragraph separators.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def clean(text: str) -> str:
    """The text without characters that move the cursor, colour, or turn the writing direction.

    Newlines and tabs stay; a carriage return becomes a newline. What is left of an escape sequence
    is its visible rest. Half a surrogate pair, which no terminal can be sent, becomes U+FFFD.
    """
    return _HALF.sub("\ufffd", _UNSAFE.sub("", _LINE_END.sub("\n", text)))


def one_line(text: str, width: int) -> str:
    """The text on one line of at most `width` characters, with `…` where it was cut."""
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


class Style:
    """Colours, or none. Each method takes text that is clean already."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    @classmethod
    def for_stream(cls, stream: TextIO, env: Mapping[str, str]) -> Style:
        """Colours on a terminal that has them, unless `NO_COLOR` is set."""
        return cls(stream.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb")

    def bold(self, text: str) -> str:
        return self._paint(text, 1)

    def dim(self, text: str) -> str:
        return self._paint(text, 2)

    def red(self, text: str) -> str:
        return self._paint(text, 31)

    def green(self, text: str) -> str:
        return self._paint(text, 32)

    def yellow(self, text: str) -> str:
        return self._paint(text, 33)

    def cyan(self, text: str) -> str:
        return self._paint(text, 36)

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled and text else text


def ago(then: float, now: float) -> str:
    """How long before `now` (both Unix seconds), in the largest unit that fits: `3 h ago`."""
    gone = now - then
    for unit, seconds in _UNITS:
        if gone >= seconds:
            return f"{int(gone // seconds)} {unit} ago"
    return "just now"


def duration(seconds: float) -> str:
    """`0.2 s`, `12 s`, `3 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    """Columns as wide as their widest cell, two blanks between them, nothing at the end of a line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join((style.bold(lines[0]), *lines[1:]))
