"""How far the mains have drifted: the candidate is compared with an earlier generation as well. Pure.

Each candidate may seem a little worse than the one before it. The anchor is the last generation that was
found better than its current, or the first of all: what is much worse than that one does not pass, however
small the step to it was.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Anchor:
    """`means` are its scores by the tasks' ids; {} when it is current itself, which is asked anyway."""

    commit: str
    means: Mapping[str, float] = field(default_factory=dict)


def find(
    promotes: Sequence[tuple[str, Mapping[str, Any] | None]], main: str, suite: str, model: str
) -> Anchor:
    """The anchor of a main; `promotes` are those that stand, oldest first: the commit and its verdict.

    Scores of another suite or model say nothing here, so what is before those is left out.
    """
    chosen = Anchor(main)
    for commit, verdict in reversed(promotes):
        if verdict is None or verdict.get("suite") != suite or verdict.get("model") != model:
            break
        if verdict.get("superior"):
            return Anchor(commit, {} if commit == main else means(verdict, "candidate"))
        chosen = Anchor(str(verdict.get("main", "")), means(verdict, "current"))
    return chosen


def means(verdict: Mapping[str, Any], side: str) -> dict[str, float]:
    """The mean score of a side of a verdict's pairs at each task."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for pair in verdict.get("pairs", ()):
        if not pair["discarded"]:
            scores[pair["task"]].append(float(pair[side]["score"]))
    return {task: statistics.fmean(found) for task, found in scores.items()}
