"""How far the mains have drifted: the candidate is compared with an earlier generation as well. Pure.

Each candidate may seem a little worse than the one before it. The anchor is the last generation that was
found better than its current, or the first of all: what is much worse than that one does not pass, however
small the step to it was. What is known of it was found when it was current itself, by its self-test: the
scores with which it was found better are better than it is, or it would not have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Anchor:
    """`means` are its scores by the tasks' ids; {} when it is current itself, which is asked anyway."""

    commit: str
    means: Mapping[str, float] = field(default_factory=dict)


def find(promotes: Sequence[Mapping[str, Any] | None], main: str, suite: str, model: str) -> Anchor:
    """The anchor of a main, by the verdicts of the promotes that stand, oldest first.

    Scores of another suite or model say nothing here, so what is before those is left out.
    """
    chosen = Anchor(main)
    for verdict in reversed(promotes):
        if verdict is None or verdict.get("suite") != suite or verdict.get("model") != model:
            break
        if verdict.get("superior"):
            break
        if known := verdict.get("known"):  # no tasks may have been asked
            chosen = Anchor(str(verdict.get("main", "")), known)
    return chosen
