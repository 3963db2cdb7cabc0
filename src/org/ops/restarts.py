"""When a generation that ended by itself is started again, and when the one before it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.5
LONGEST_S = 30.0
HEALTHY_S = 60.0
"""Whoever served for so long is well: what was before is forgotten."""
MOST_CRASHES = 3
"""After so many without a healthy minute in between, the generation before comes back."""


@dataclass(slots=True)
class Restarts:
    """`total` counts for as long as a commit is wanted, `crashes` since it was last well."""

    total: int = 0
    crashes: int = 0

    def crashed(self, served_s: float) -> None:
        """It ended by itself after so many seconds of service, 0 when it never served."""
        if served_s >= HEALTHY_S:
            self.crashes = 0
        self.crashes += 1
        self.total += 1

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start."""
        return min(LONGEST_S, FIRST_S * 2 ** min(self.crashes - 1, 16)) if self.crashes else 0.0

    @property
    def is_hopeless(self) -> bool:
        return self.crashes >= MOST_CRASHES
