"""What somebody who waits sees: a line on standard error that is written over, or one for each look."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from org.ops.fitness.pairs import Pair
from org.ops.fitness.sequential import Decision


class Progress:
    """`stream` defaults to standard error as it is now."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._over = sys.stderr.isatty()
        self._looks = 0
        self._shown = False

    def step(self, words: str) -> None:
        """Something else begins."""
        self.end()
        self._looks = 0
        self._stream.write(f"org: {words}\n")
        self._stream.flush()

    def pairs(self, pairs: Sequence[Pair], decision: Decision, left_s: float) -> None:
        """One more pair was asked."""
        looks = decision.looks
        counted = [pair for pair in pairs if not pair.discarded]
        mean = sum(pair.difference for pair in counted) / len(counted) if counted else 0.0
        line = f"{len(pairs)} pairs, {mean:+.3f} a pair, about {_for(left_s)} left at most"
        if self._over:
            self._stream.write(f"\r\x1b[2Korg: {line}")
            self._shown = True
        elif len(looks) > self._looks:
            self._stream.write(f"org: {line}\n")
        self._looks = len(looks)
        self._stream.flush()

    def end(self) -> None:
        """Leave the last line as it is."""
        if self._shown:
            self._stream.write("\n")
            self._shown = False


def _for(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
