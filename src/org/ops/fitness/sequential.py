"""When enough pairs were asked to decide: a group-sequential test of non-inferiority. Pure.

Of each pair there is a difference, the candidate's score less current's. The differences are looked at four
times, after each quarter of the pairs. With O'Brien and Fleming's bounds the four looks together let a
candidate that is worse by the whole margin pass with probability alpha at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

LOOKS = 4
MARGIN = 0.10
"""How much worse a candidate may seem."""
FEW, MARGIN_OF_FEW = 50, 0.15
"""Below so many pairs nothing smaller can be told apart."""
MARGIN_OF_ANCHOR = 0.125
"""Against a generation that is compared with by what is remembered of it: two tests of the same candidate
have to pass, and an equal one is to do so as often as it is worth."""
ALPHA = 0.05
CONSTANTS = (1.73310, 2.02430, 2.28936, 2.53401, 2.76215, 2.97660, 3.17944, 3.37230)
"""The bound at the last look, for alpha, half of it, a quarter, and so on: of the first attempt since the
last promote, the second, the third. Who tries again has had its chances to pass by luck. After so many the
alpha is 1/2500, and stays: nobody is refused for what others have tried."""
TIE_Z = 3.2905
"""Two-sided 0.001: two of the same are further apart once in a thousand times."""

Verdict: TypeAlias = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`pairs` are planned; `looks` are after how many of them is looked; `constant` is the last bound."""

    pairs: int
    looks: tuple[int, ...]
    margin: float
    constant: float

    def bound(self, number: int) -> float:
        """What the statistic has to exceed at a look, counted from 1."""
        return self.constant * math.sqrt(LOOKS / number)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of the differences and its standard error, both with two imagined pairs of unlike ends that
    keep few data from looking certain."""

    pairs: int
    mean: float
    error: float


@dataclass(frozen=True, slots=True)
class Look:
    """`above_margin` is the statistic that has to exceed `bound` to pass; `above_zero` fails below the
    negative bound, and tells a better candidate above the bound."""

    number: int
    estimate: Estimate
    bound: float
    above_margin: float
    above_zero: float

    @property
    def passes(self) -> bool:
        return self.above_margin > self.bound

    @property
    def fails(self) -> bool:
        return self.above_zero < -self.bound

    @property
    def is_better(self) -> bool:
        return self.above_zero > self.bound


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    looks: tuple[Look, ...]
    is_over: bool
    """Whether more pairs would change nothing."""


def plan(pairs: int, attempt: int = 1, margin: float = MARGIN) -> Rule:
    """The rule for so many pairs. Raises `ValueError` without pairs, or for no attempt."""
    if pairs < 1 or attempt < 1:
        raise ValueError(f"no rule for {pairs} pairs in attempt {attempt}")
    looks = tuple(math.ceil(pairs * number / LOOKS) for number in range(1, LOOKS + 1))
    return Rule(pairs, looks, MARGIN_OF_FEW if pairs < FEW else margin, _constant(attempt))


def pairs_for(pairs: int, attempt: int) -> int:
    """How many pairs an attempt takes for which the first takes so many: an equal candidate passes as often,
    though the bounds are further out. It is never fewer than with which one can pass."""
    return max(math.ceil(pairs * (_constant(attempt) / CONSTANTS[0]) ** 2), least_pairs(attempt))


def least_pairs(attempt: int = 1) -> int:
    """How many it takes that a candidate can pass at all, even one whose answers are all the same."""
    return math.floor(_constant(attempt) / MARGIN_OF_FEW) - 1


def alpha(attempt: int) -> float:
    return ALPHA / 2.0 ** (min(attempt, len(CONSTANTS)) - 1)


def _constant(attempt: int) -> float:
    return CONSTANTS[min(attempt, len(CONSTANTS)) - 1]


def estimate(differences: Sequence[float]) -> Estimate:
    """Raises `ValueError` for what is no number."""
    if not all(map(math.isfinite, differences)):
        raise ValueError("a difference is no number")
    count = len(differences) + 2
    mean = math.fsum(differences) / count
    squares = math.fsum(one * one for one in differences) + 1
    return Estimate(len(differences), mean, math.sqrt(squares - count * mean * mean) / count)


def decide(rule: Rule, differences: Sequence[float]) -> Decision:
    """What the differences so far decide, in the order in which they came; what came after the look that
    decided counts for nothing."""
    looks: list[Look] = []
    for number, pairs in enumerate(rule.looks, 1):
        if pairs > len(differences):
            return Decision("inconclusive", tuple(looks), is_over=False)
        looks.append(_look(rule, number, estimate(differences[:pairs])))
        if looks[-1].passes or looks[-1].fails:
            return Decision("pass" if looks[-1].passes else "fail", tuple(looks), is_over=True)
    return Decision("inconclusive", tuple(looks), is_over=True)


def ties(differences: Sequence[float]) -> bool:
    """Whether nothing tells two sides apart. Of nothing at all nothing can be said."""
    found = estimate(differences)
    return found.pairs > 0 and abs(found.mean) <= TIE_Z * found.error


def _look(rule: Rule, number: int, found: Estimate) -> Look:
    return Look(
        number,
        found,
        rule.bound(number),
        (found.mean + rule.margin) / found.error,
        found.mean / found.error,
    )
