"""The way of the mean difference to its bounds: as numbers, and as characters for a terminal. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from org.ops.fitness import sequential

_WIDTH, _HEIGHT = 64, 13
_PATH, _PASS, _FAIL, _ZERO = "•", "▲", "▼", "·"


@dataclass(frozen=True, slots=True)
class Mark:
    """At a look the mean passes above `passes` and fails below `fails`. `seen` is whether one has looked."""

    pairs: int
    passes: float
    fails: float
    seen: bool


@dataclass(frozen=True, slots=True)
class Path:
    """`means` and `errors` are after one pair, two, and so on."""

    planned: int
    margin: float
    means: Sequence[float]
    errors: Sequence[float]
    marks: Sequence[Mark]


def path_of(verdict: Mapping[str, Any]) -> Path:
    """From a verdict with pairs. Bounds of looks to come are for a standard error that shrinks as it does."""
    differences = [
        pair["candidate"]["score"] - pair["current"]["score"]
        for pair in verdict["pairs"]
        if not pair["discarded"]
    ]
    found = [sequential.estimate(differences[: count + 1]) for count in range(len(differences))]
    errors = [one.error for one in found]
    marks = []
    for pairs, bound in verdict["bounds"]:
        seen = pairs <= len(found)
        if not found:
            continue
        error = errors[pairs - 1] if seen else errors[-1] * math.sqrt((len(found) + 2) / (pairs + 2))
        marks.append(Mark(pairs, bound * error - verdict["margin"], -bound * error, seen))
    return Path(verdict["planned"], verdict["margin"], [one.mean for one in found], errors, marks)


def reach(path: Path) -> float:
    """How far from zero the picture has to reach."""
    late = path.means[min(len(path.means) - 1, 4) :]
    ends = [*map(abs, late), *(abs(end) for mark in path.marks for end in (mark.passes, mark.fails))]
    return min(1.0, max([0.1, *ends]) * 1.1)


def draw(path: Path) -> list[str]:
    """Lines for a terminal: pairs to the right, the mean difference upwards."""
    most = reach(path)
    grid = [[" "] * (_WIDTH + 1) for _ in range(_HEIGHT)]

    def row(value: float) -> int:
        return round((_HEIGHT - 1) * (1 - (max(-most, min(most, value)) + most) / (2 * most)))

    def column(pairs: int) -> int:
        return round(_WIDTH * pairs / path.planned)

    for at in range(_WIDTH + 1):
        grid[row(0.0)][at] = _ZERO
    for mark in path.marks:
        at = column(mark.pairs)
        for up in range(row(mark.passes) + 1):
            grid[up][at] = "│"
        for down in range(row(mark.fails), _HEIGHT):
            grid[down][at] = "│"
        grid[row(mark.passes)][at], grid[row(mark.fails)][at] = _PASS, _FAIL
    for pairs, mean in enumerate(path.means, 1):
        grid[row(mean)][column(pairs)] = _PATH
    labels = {0: f"{most:+.2f}", row(0.0): "0", _HEIGHT - 1: f"{-most:+.2f}"}
    lines = [f"{labels.get(number, ''):>6} ┤{''.join(cells).rstrip()}" for number, cells in enumerate(grid)]
    return [
        *lines,
        _axis(path, column),
        f"{'':8}{_PATH} mean difference  {_PASS} passes above  {_FAIL} fails below",
    ]


def _axis(path: Path, column: Any) -> str:
    cells = [" "] * (_WIDTH + 6)
    for pairs in (0, *(mark.pairs for mark in path.marks)):
        for offset, letter in enumerate(str(pairs)):
            cells[column(pairs) + offset] = letter
    return f"{'':8}{''.join(cells).rstrip()} pairs"
