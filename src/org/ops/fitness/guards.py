"""What the answers cost, beside how good they were: errors, time and tokens. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from org.ops.fitness.pairs import Half, Pair

MOST_ERRORS = 0.02
"""The share of answers that a candidate may owe, and one more."""
SLOWER, SLACK_S = 1.5, 0.25
"""How many times as long as current it may take in the middle, and how many seconds on top of that."""
WORDIER, SLACK_TOKENS, SLACK_LENGTH = 1.5, 20.0, 80.0
"""The same of tokens, as it says itself, and of characters, which are counted here."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of all pairs that count: what was owed, how often the candidate alone did not say what it took, and the
    medians where both answered."""

    errors: int
    silent: int
    seconds: tuple[float, float]
    tokens: tuple[float, float]
    length: tuple[float, float]


def costs(pairs: Sequence[Pair]) -> Costs:
    counted = [pair for pair in pairs if not pair.discarded]
    errors = sum(bool(pair.candidate.error) for pair in counted)
    silent = sum(
        _whole(pair) and pair.current.tokens is not None and pair.candidate.tokens is None for pair in counted
    )
    return Costs(
        errors,
        silent,
        _medians(counted, lambda half: half.seconds),
        _medians(counted, lambda half: half.tokens),
        _medians(counted, lambda half: half.length),
    )


def findings(pairs: Sequence[Pair]) -> list[str]:
    """What is too much, a line each."""
    found, counted = costs(pairs), sum(not pair.discarded for pair in pairs)
    wrong = []
    if found.errors > MOST_ERRORS * counted + 1:
        first = next(pair.candidate.error for pair in pairs if pair.candidate.error)
        wrong.append(f"{found.errors} of {counted} answers are missing: {first}")
    if found.silent > MOST_ERRORS * counted + 1:
        wrong.append(
            f"{found.silent} of {counted} answers do not say how many tokens they took, current's do"
        )
    current, candidate = found.seconds
    if candidate > SLOWER * current + SLACK_S:
        wrong.append(f"an answer takes {candidate:.2f} s, current's {current:.2f} s")
    current, candidate = found.tokens
    if candidate > WORDIER * current + SLACK_TOKENS:
        wrong.append(f"an answer takes {candidate:.0f} tokens, current's {current:.0f}")
    current, candidate = found.length
    if candidate > WORDIER * current + SLACK_LENGTH:
        wrong.append(f"an answer has {candidate:.0f} characters, current's {current:.0f}")
    return wrong


def _medians(pairs: Sequence[Pair], of: Callable[[Half], float | None]) -> tuple[float, float]:
    """(current's, the candidate's), of the pairs in which both said it; 0 without any."""
    both = [(of(pair.current), of(pair.candidate)) for pair in pairs if _whole(pair)]
    known = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    if not known:
        return 0.0, 0.0
    ours, theirs = zip(*known, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def _whole(pair: Pair) -> bool:
    return not (pair.current.error or pair.candidate.error)
