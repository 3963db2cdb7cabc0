"""Where words stand in the transcript."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from textual.strip import Strip

from org.tui.rows import Rows
from org.tui.scene import Block

MARGIN = 2
"""Characters at the beginning of a row that belong to nobody's words."""


class Search:
    """The places at which `needle` stands, and at which of them one is. An empty needle stands nowhere."""

    def __init__(self, needle: str = "") -> None:
        self.needle = needle
        self.marks: dict[int, list[tuple[int, int]]] = {}
        """By row, the characters of it that were found: from, to."""
        self._hits: list[int] = []  # the rows at which the places begin
        self._at = -1

    @property
    def place(self) -> tuple[int, int]:
        """(the number of the place where one is, from 1; how many there are)."""
        return (self._at + 1, len(self._hits)) if self._hits else (0, 0)

    def is_hidden_in(self, block: Block) -> bool:
        """Whether a block is folded and would show the needle if it were not."""
        return bool(self.needle and block.folded) and self.needle.lower() in _hidden(block).lower()

    def update(self, rows: Rows) -> None:
        """Look through the rows as they are now."""
        self._hits, self.marks = [], {}
        if not self.needle:
            return
        for item in rows.items:
            for row, start, length in _places(item.strips, self.needle):
                self._hits.append(item.top + row)
                while length > 0 and row < len(item.strips):
                    end = min(start + length, len(item.strips[row].text))
                    self.marks.setdefault(item.top + row, []).append((start, end))
                    length -= end - start + 1
                    row, start = row + 1, MARGIN

    def go(self, direction: int) -> int | None:
        """Go on to a place, first to the newest; its row, or None when there is none."""
        if not self._hits:
            return None
        self._at = len(self._hits) - 1 if self._at < 0 else (self._at + direction) % len(self._hits)
        return self._hits[self._at]


def _places(strips: Sequence[Strip], needle: str) -> Iterator[tuple[int, int, int]]:
    """(row, character of it, length) of each place at which `needle` stands, across the ends of rows too."""
    starts, parts, wanted = [], [], needle.lower()
    length = 0
    for strip in strips:
        part = strip.text[MARGIN:].rstrip() + " "
        lowered = part.lower()
        parts.append(lowered if len(lowered) == len(part) else part)
        starts.append(length)
        length += len(part)
    text = "".join(parts)
    place = text.find(wanted)
    while place >= 0:
        row = bisect_right(starts, place) - 1
        yield row, place - starts[row] + MARGIN, len(wanted)
        place = text.find(wanted, place + len(wanted))


def _hidden(block: Block) -> str:
    """What a folded block does not show."""
    if block.call is None:
        return block.text
    arguments = "\n".join(str(value) for value in block.call.call.arguments.values())
    return f"{arguments}\n{block.call.result.output}"
