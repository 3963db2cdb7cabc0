"""The rule that decides: its bounds, its properties, and how often it errs, by simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.ops.fitness import sequential
from org.ops.fitness.sequential import CONSTANTS, Rule, decide, estimate, least_pairs, pairs_for, plan, ties

RUNS = 3000
scores = st.floats(-1, 1)


# -- the bounds


@pytest.mark.parametrize("attempt", range(1, len(CONSTANTS) + 1))
def test_the_looks_together_err_as_often_as_one_may(attempt: int) -> None:
    """The table holds what the integral over all paths says."""
    constant = CONSTANTS[attempt - 1]
    assert crossing(constant) == pytest.approx(sequential.alpha(attempt), rel=2e-3)
    assert crossing(constant - 0.01) > sequential.alpha(attempt) * 1.01
    assert crossing(constant + 0.01) < sequential.alpha(attempt) * 0.99


def crossing(constant: float, looks: int = 4, cells: int = 300) -> float:
    """How probable it is that a sum of standard normals exceeds the bound at one of the looks: at each look
    the density of the sums that have not is carried on, by Simpson's rule."""
    bound = constant * math.sqrt(looks)
    low = -7 * math.sqrt(looks)
    step = (bound - low) / cells
    at = [low + step * cell for cell in range(cells + 1)]
    weights = [step / 3 * (1 if cell in (0, cells) else 4 if cell % 2 else 2) for cell in range(cells + 1)]
    density = [normal(x) for x in at]
    crossed = tail(bound)
    for look in range(2, looks + 1):
        mass = [weight * value for weight, value in zip(weights, density, strict=True)]
        crossed += sum(one * tail(bound - x) for one, x in zip(mass, at, strict=True))
        if look < looks:
            density = [sum(one * normal(y - x) for one, x in zip(mass, at, strict=True)) for y in at]
    return crossed


def normal(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tail(x: float) -> float:
    return math.erfc(x / math.sqrt(2)) / 2


def test_a_hundred_pairs_are_looked_at_four_times() -> None:
    rule = plan(100)
    assert rule == Rule(100, (25, 50, 75, 100), 0.10, CONSTANTS[0])
    assert [round(rule.bound(number), 3) for number in (1, 2, 3, 4)] == [3.466, 2.451, 2.001, 1.733]


def test_few_pairs_have_a_wider_margin() -> None:
    assert (plan(49).margin, plan(50).margin) == (0.15, 0.10)
    assert plan(10).looks == (3, 5, 8, 10)


def test_there_is_no_rule_without_pairs_or_attempts() -> None:
    for pairs, attempt in ((0, 1), (-1, 1), (100, 0)):
        with pytest.raises(ValueError, match="no rule"):
            plan(pairs, attempt)


@pytest.mark.parametrize("attempt", [1, 2, 3, 4])
def test_the_least_that_can_pass(attempt: int) -> None:
    least = least_pairs(attempt)
    assert decide(plan(least, attempt), [0.0] * least).verdict == "pass"
    assert decide(plan(least - 1, attempt), [0.0] * (least - 1)).verdict == "inconclusive"


def test_all_attempts_together_err_hardly_more_than_two() -> None:
    """And nobody is refused: after the last of the table each costs 1/2500."""
    assert sum(map(sequential.alpha, range(1, 9))) < 0.1
    assert sequential.alpha(9) == sequential.alpha(8) < 1 / 2500
    assert plan(100, 9) == plan(100, 8)


def test_a_later_attempt_takes_more_pairs() -> None:
    assert [pairs_for(100, attempt) for attempt in range(1, 10)] == [
        *(100, 137, 175, 214, 255, 295, 337, 379),
        379,
    ]
    assert [pairs_for(1, attempt) for attempt in (1, 8)] == [least_pairs(1), least_pairs(8)]


@given(st.integers(1, 2000), st.integers(1, 12))
def test_as_many_pairs_as_an_attempt_takes_let_the_same_pass(pairs: int, attempt: int) -> None:
    wanted = pairs_for(pairs, attempt)
    assert wanted >= pairs
    assert decide(plan(wanted, attempt), [0.0] * wanted).verdict == "pass"


# -- what it never does


def test_nothing_never_passes() -> None:
    decision = decide(plan(100), [])
    assert (decision.verdict, decision.looks, decision.is_over) == ("inconclusive", (), False)
    assert not ties([])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_difference(bad: float) -> None:
    for differences in ([bad] * 25, [0.0] * 24 + [bad]):
        with pytest.raises(ValueError, match="no number"):
            decide(plan(100), differences)
        with pytest.raises(ValueError, match="no number"):
            ties(differences)


@given(st.lists(scores, min_size=1, max_size=120))
def test_an_estimate_is_never_certain(differences: list[float]) -> None:
    found = estimate(differences)
    assert found.error > 0
    assert abs(found.mean) <= max(map(abs, differences)) + 1e-12


@given(st.lists(scores, min_size=0, max_size=130), st.integers(1, 120), st.integers(1, 8))
def test_a_verdict_comes_from_its_last_look(differences: list[float], pairs: int, attempt: int) -> None:
    rule = plan(pairs, attempt)
    decision = decide(rule, differences)
    assert [look.estimate.pairs for look in decision.looks] == list(rule.looks[: len(decision.looks)])
    assert all(not (look.passes or look.fails) for look in decision.looks[:-1])
    if decision.verdict != "inconclusive":
        assert decision.is_over
        # What comes later changes nothing.
        assert decide(rule, [*differences, *[-1.0] * 50]) == decision
    else:
        assert decision.is_over == (len(differences) >= pairs)


@given(st.lists(scores, min_size=100, max_size=100), st.floats(0, 1))
def test_better_scores_do_no_harm(differences: list[float], more: float) -> None:
    """Who passes also passes when every answer is better by the same."""
    if decide(plan(100), differences).verdict == "pass":
        assert decide(plan(100), [one + more for one in differences]).verdict == "pass"


@given(st.lists(scores, min_size=100, max_size=100))
def test_a_later_attempt_is_no_easier(differences: list[float]) -> None:
    verdicts = [decide(plan(100, attempt), differences).verdict for attempt in range(1, 9)]
    if "pass" in verdicts[1:]:
        assert "fail" not in verdicts[: verdicts.index("pass")]


def test_much_worse_fails_at_the_first_look_and_much_better_passes() -> None:
    worse = decide(plan(100), [-1.0] * 25)
    better = decide(plan(100), [1.0] * 25)
    assert (worse.verdict, len(worse.looks)) == ("fail", 1)
    assert (better.verdict, len(better.looks), better.looks[0].is_better) == ("pass", 1, True)


# -- how often it errs


def shares(worse_by: float, seed: int, attempt: int = 1) -> tuple[float, float]:
    """(passed, failed) of simulated candidates. Tasks succeed with probabilities of mean 0.70 such that two
    of the same differ in 28 % of the pairs, the candidate's less by so much on average."""
    rng = random.Random(seed)
    rule = plan(100, attempt)
    passed = failed = 0
    for _ in range(RUNS):
        differences = [difference(rng, worse_by) for _ in range(100)]
        verdict = decide(rule, differences).verdict
        passed += verdict == "pass"
        failed += verdict == "fail"
    return passed / RUNS, failed / RUNS


def difference(rng: random.Random, worse_by: float) -> float:
    # Of Beta(a, b) with mean 0.7, twice E[p (1 - p)] is 0.28 when a + b = 2.
    current = rng.betavariate(1.4, 0.6)
    candidate = min(1.0, max(0.0, current - worse_by * spread(current, worse_by)))
    return float(rng.random() < candidate) - float(rng.random() < current)


def spread(current: float, worse_by: float) -> float:
    """So that the whole difference is there on average although probabilities end at 0 and 1."""
    return current / 0.7 if worse_by > 0 else (1 - current) / 0.3


def within(found: float, expected: float, deviations: float = 4) -> bool:
    return abs(found - expected) < deviations * math.sqrt(expected * (1 - expected) / RUNS)


def test_the_simulated_tasks_are_as_noisy_as_is_said() -> None:
    rng = random.Random(1)
    sample = [difference(rng, 0.0) for _ in range(20_000)]
    assert sum(one != 0 for one in sample) / len(sample) == pytest.approx(0.28, abs=0.01)
    worse = [difference(rng, 0.10) for _ in range(20_000)]
    assert sum(worse) / len(worse) == pytest.approx(-0.10, abs=0.015)


def test_an_equal_candidate_passes_mostly() -> None:
    passed, failed = shares(0.0, 2)
    assert passed >= 0.55
    assert within(passed, 0.60)
    assert failed <= 0.06


def test_a_candidate_that_is_worse_by_the_margin_hardly_ever_passes() -> None:
    passed, failed = shares(0.10, 3)
    assert passed <= 0.07
    assert within(passed, 0.055)
    assert failed > 0.5


def test_a_much_worse_candidate_passes_almost_never() -> None:
    passed, _ = shares(0.15, 4)
    assert passed <= 0.02


def test_a_better_candidate_passes_nearly_always() -> None:
    passed, _ = shares(-0.05, 5)
    assert within(passed, 0.88)


def test_the_second_attempt_errs_half_as_often() -> None:
    passed, _ = shares(0.10, 6, attempt=2)
    assert passed <= 0.04


@pytest.mark.parametrize("attempt", [2, 4, 8])
def test_an_equal_candidate_passes_as_often_at_a_later_attempt(attempt: int) -> None:
    rng = random.Random(attempt)
    wanted = pairs_for(100, attempt)
    passed = sum(passes(rng, 0.0, wanted, attempt) for _ in range(600))
    assert 0.55 <= passed / 600 <= 0.68


@pytest.mark.parametrize(("worse_by", "most"), [(0.10, 0.12), (0.15, 0.02)])
def test_who_tries_eight_times_passes_hardly_more_often(worse_by: float, most: float) -> None:
    """Whatever it is called, and whatever it changed in between."""
    rng = random.Random(8)
    lucky = sum(
        any(passes(rng, worse_by, pairs_for(100, attempt), attempt) for attempt in range(1, 9))
        for _ in range(400)
    )
    assert lucky / 400 <= most


def passes(rng: random.Random, worse_by: float, pairs: int, attempt: int) -> bool:
    differences = [difference(rng, worse_by) for _ in range(pairs)]
    return decide(plan(pairs, attempt), differences).verdict == "pass"


def test_two_of_the_same_tie() -> None:
    rng = random.Random(7)
    tied = sum(ties([difference(rng, 0.0) for _ in range(100)]) for _ in range(RUNS))
    assert tied / RUNS >= 0.995
    assert not ties([-0.5] * 100)
