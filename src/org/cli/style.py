"""How text looks in a terminal: colours only where they belong. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO


class Style:
    """Colours, or none. Each method takes text that is clean already."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    @classmethod
    def for_stream(cls, stream: TextIO, env: Mapping[str, str]) -> Style:
        """Colours on a terminal that has them, unless `NO_COLOR` is set."""
        return cls(stream.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb")

    @staticmethod
    def is_live(stream: TextIO, env: Mapping[str, str]) -> bool:
        """Whether a line on it can be drawn over, with or without colours."""
        return stream.isatty() and env.get("TERM", "dumb") != "dumb"

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


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    """Columns as wide as their widest cell, two blanks between them, nothing at the end of a line."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join((style.bold(lines[0]), *lines[1:]))
