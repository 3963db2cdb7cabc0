"""How well current does at a suite, as it was once found; and whether it still does. Pure.

A suite that is broken, or a model server that answers nonsense, makes both sides the same, and who is the
same passes. So current itself has to do as well as it is known to.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z = 3.2905
"""Two-sided 0.001."""


@dataclass(frozen=True, slots=True)
class Band:
    """The mean of so many scores, and how far they spread."""

    count: int
    mean: float
    spread: float

    def holds(self, scores: Sequence[float]) -> bool:
        """Whether the mean of these is no surprise. None at all are one."""
        if not scores:
            return False
        error = self.spread * math.sqrt(1 / self.count + 1 / len(scores))
        return abs(statistics.fmean(scores) - self.mean) <= Z * error


def band(scores: Sequence[float]) -> Band:
    """Raises `ValueError` without scores."""
    if not scores:
        raise ValueError("no scores")
    mean = statistics.fmean(scores)
    # As if one more had been half a point off: what never varied may still.
    squares = math.fsum((score - mean) ** 2 for score in scores) + 0.25
    return Band(len(scores), mean, math.sqrt(squares / len(scores)))
