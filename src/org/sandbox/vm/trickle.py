"""A log for the lines that a guest can cause: it cannot fill it, and push out what was there before."""

from __future__ import annotations

import time
from collections.abc import Callable

_BURST = 200
_PER_S = 2.0


class Trickle:
    """Passes lines on to `log`: many at first, then a few each second. How many were left out is said
    before the next that is not."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._at = clock()
        self._room = float(_BURST)
        self._left_out = 0

    def __call__(self, line: str) -> None:
        now = self._clock()
        self._room = min(_BURST, self._room + (now - self._at) * _PER_S)
        self._at = now
        if self._room < 1:
            self._left_out += 1
            return
        self._room -= 1
        self.tell()
        self._log(line)

    def tell(self) -> None:
        """Say now how many were left out, if any."""
        if self._left_out:
            self._log(f"lines left out, too many at once: {self._left_out}")
            self._left_out = 0
