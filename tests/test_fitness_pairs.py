"""Pairs against servers that answer as they like: what counts, what is lost, and when it is over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitness_kit import TASKS, Stub, answer, completion, doubles
from org.errors import Inconclusive
from org.ops.fitness import guards, selftest, tasks
from org.ops.fitness.band import Band, band
from org.ops.fitness.pairs import Half, Match, Pair, draw, play
from org.ops.fitness.rules import Budget
from org.ops.fitness.sequential import estimate, plan
from org.ops.fitness.tasks import Suite, Task

SUITE = tasks.read(TASKS)
DOWN = b'{"error": {"message": "the model server is down"}}'
Reply = Callable[[str, int], tuple[int, bytes]]


@pytest.fixture
def stub() -> Iterator[Callable[[Reply], Stub]]:
    made: list[Stub] = []

    def make(reply: Reply) -> Stub:
        made.append(Stub(reply))
        return made[-1]

    yield make
    for one in made:
        one.close()


def match(pairs: int = 24, suite: Suite = SUITE, **more: object) -> Match:
    drawn = draw(suite.tasks, pairs, random.Random(1))
    made = Match(suite, plan(len(drawn)), drawn, Budget(pairs, 100, 100_000))
    return replace(made, **more)  # type: ignore[arg-type]


def quiet(*args: object) -> None:
    pass


def wrong(prompt: str, seed: int) -> tuple[int, bytes]:
    return 200, completion("no idea")


# -- what is drawn


def test_as_many_of_each_task_as_of_any_other() -> None:
    drawn = draw(SUITE.tasks, 36, random.Random(1))
    assert set(Counter(one.task.id for one in drawn).values()) == {3}
    assert len({one.seed for one in drawn}) == 36
    assert 8 < sum(one.candidate_first for one in drawn) < 28
    assert drawn == draw(SUITE.tasks, 36, random.Random(1)) != draw(SUITE.tasks, 36, random.Random(2))


@given(st.lists(st.floats(1e-300, 10), min_size=1, max_size=30), st.integers(1, 200), st.integers(0, 2**32))
def test_each_task_is_drawn_as_often_as_it_weighs(weights: list[float], pairs: int, seed: int) -> None:
    tasks = [Task(f"{n}", "p", "number", "1", weight=weight) for n, weight in enumerate(weights)]
    drawn = Counter(int(one.task.id) for one in draw(tasks, pairs, random.Random(seed)))
    assert drawn.total() == pairs
    for number, weight in enumerate(weights):
        assert abs(drawn[number] - pairs * weight / sum(weights)) < 1.001


def test_what_is_drawn_once_too_often_is_so_by_chance() -> None:
    """Of three tasks that weigh the same two are drawn, and each as often as the others."""
    found = Counter(
        one.task.id for seed in range(600) for one in draw(SUITE.tasks[:3], 2, random.Random(seed))
    )
    assert sorted(found.values()) == pytest.approx([400] * 3, abs=60)


def test_fewer_pairs_than_tasks_are_of_some_tasks() -> None:
    assert len({one.task.id for one in draw(SUITE.tasks, 5, random.Random(1))}) == 5


# -- what is decided


async def test_equals_pass_and_both_are_asked_the_same(stub: Callable[[Reply], Stub]) -> None:
    heard: dict[str, list[tuple[str, int]]] = {"current": [], "candidate": []}

    def hearing(name: str) -> Reply:
        def reply(prompt: str, seed: int) -> tuple[int, bytes]:
            heard[name].append((prompt, seed))
            return doubles(prompt, seed)

        return reply

    game = match()
    outcome = await play(game, stub(hearing("current")), stub(hearing("candidate")), quiet)
    assert (outcome.verdict, len(outcome.counted)) == ("pass", 18)  # at the third look
    assert heard["current"] == heard["candidate"] == [(d.task.prompt, d.seed) for d in game.drawn[:18]]
    assert guards.findings(outcome.pairs) == []


async def test_worse_fails_and_the_end_can_be_wanted(stub: Callable[[Reply], Stub]) -> None:
    current, candidate = stub(doubles), stub(wrong)
    outcome = await play(match(), current, candidate, quiet)
    assert (outcome.verdict, len(outcome.pairs)) == ("fail", 6)
    outcome = await play(match(to_the_end=True), current, candidate, quiet)
    assert (outcome.verdict, len(outcome.pairs)) == ("fail", 24)
    assert "below current" in outcome.why


async def test_a_heavy_task_counts_for_more(stub: Callable[[Reply], Stub]) -> None:
    heavy = tasks.read(TASKS.replace("timeout = 20", "timeout = 20\nweight = 10", 1))

    def but_the_first(prompt: str, seed: int) -> tuple[int, bytes]:
        return wrong(prompt, seed) if prompt == "double 1" else doubles(prompt, seed)

    outcome = await play(match(42, heavy, to_the_end=True), stub(doubles), stub(but_the_first), quiet)
    assert Counter(pair.task for pair in outcome.pairs) == {
        task.id: 2 * round(task.weight) for task in heavy.tasks
    }
    assert (outcome.verdict, sum(pair.difference for pair in outcome.pairs)) == ("fail", -20)


async def test_the_anchor_is_a_second_test(stub: Callable[[Reply], Stub]) -> None:
    """As good as current, and both much worse than what was once."""
    once = {task.id: 1.0 for task in SUITE.tasks}
    outcome = await play(match(anchor=once, anchor_rule=plan(24)), stub(wrong), stub(wrong), quiet)
    assert (outcome.verdict, outcome.decision.verdict) == ("fail", "inconclusive")
    assert "below the anchor" in outcome.why
    as_ever = {task.id: 0.0 for task in SUITE.tasks}
    outcome = await play(match(anchor=as_ever, anchor_rule=plan(24)), stub(wrong), stub(wrong), quiet)
    assert outcome.verdict == "pass"


async def test_what_is_not_known_of_the_anchor_tells_nothing(stub: Callable[[Reply], Stub]) -> None:
    """It is looked at after each quarter of what is known, and what is not does not make it seem less."""
    half = {task.id: 1.0 for task in SUITE.tasks[:6]}
    game = match(anchor=half, anchor_rule=plan(12))
    outcome = await play(game, stub(wrong), stub(wrong), quiet)
    asked = [pair for pair in outcome.pairs if pair.task in half]
    assert outcome.against_anchor is not None
    (look,) = [look for look in outcome.against_anchor.looks if look.fails]
    assert (outcome.verdict, look.estimate.pairs) == ("fail", len(asked))
    assert look.estimate == estimate([-1.0] * len(asked))
    assert "below the anchor" in outcome.why


async def test_who_is_not_decided_about_is_said(stub: Callable[[Reply], Stub]) -> None:
    """As good as current for certain; of the anchor it cannot be told."""
    anchor = {task.id: 0.5 + 0.5 * (number % 2) for number, task in enumerate(SUITE.tasks)}

    def half(prompt: str, seed: int) -> tuple[int, bytes]:
        return doubles(prompt, seed) if int(prompt.split()[1]) % 4 < 3 else wrong(prompt, seed)

    game = match(anchor=anchor, anchor_rule=plan(24, 8))
    outcome = await play(game, stub(half), stub(half), quiet)
    assert (outcome.verdict, outcome.decision.verdict) == ("inconclusive", "pass")
    assert "the anchor" in outcome.why


# -- what is lost


async def test_the_model_servers_failures_are_nobodys(stub: Callable[[Reply], Stub]) -> None:
    """Two pairs of 24 are lost, and asked again with another seed."""
    game = match(to_the_end=True)
    bad = {game.drawn[3].seed, game.drawn[9].seed}

    def sometimes(prompt: str, seed: int) -> tuple[int, bytes]:
        return (503, DOWN) if seed in bad else doubles(prompt, seed)

    outcome = await play(game, stub(sometimes), stub(sometimes), quiet)
    assert (outcome.verdict, len(outcome.pairs), len(outcome.counted)) == ("pass", 26, 24)
    lost = [pair for pair in outcome.pairs if pair.discarded]
    assert "the model server is down" in lost[0].discarded
    assert {pair.seed for pair in lost} == bad


async def test_too_many_lost_pairs_decide_nothing(stub: Callable[[Reply], Stub]) -> None:
    outcome = await play(match(), stub(lambda p, s: (503, DOWN)), stub(doubles), quiet)
    assert (outcome.verdict, outcome.counted) == ("inconclusive", [])
    assert outcome.why.startswith("3 pairs were lost: the model server failed")


async def test_a_candidate_that_only_says_so_is_not_believed(stub: Callable[[Reply], Stub]) -> None:
    outcome = await play(match(), stub(doubles), stub(lambda p, s: (503, DOWN)), quiet)
    assert (outcome.verdict, len(outcome.counted)) == ("fail", 6)
    assert outcome.pairs[0].candidate == Half(
        0.0, outcome.pairs[0].candidate.seconds, None, outcome.pairs[0].candidate.error
    )
    assert "503" in outcome.pairs[0].candidate.error


@pytest.mark.parametrize(
    "reply", [(500, b"{}"), (200, b"?"), (200, b'{"choices": [{"message": {"content": NaN}}]}')]
)
async def test_what_a_candidate_breaks_is_its_own(
    stub: Callable[[Reply], Stub], reply: tuple[int, bytes]
) -> None:
    outcome = await play(match(), stub(doubles), stub(lambda p, s: reply), quiet)
    assert outcome.verdict == "fail"
    assert guards.findings(outcome.pairs)


@pytest.mark.parametrize("reply", [(500, b"{}"), (200, b"?")])
async def test_current_that_breaks_is_no_measure(
    stub: Callable[[Reply], Stub], reply: tuple[int, bytes]
) -> None:
    outcome = await play(match(), stub(lambda p, s: reply), stub(doubles), quiet)
    assert (outcome.verdict, "current failed at" in outcome.why) == ("inconclusive", True)


async def test_who_has_crashed_for_good_answers_nothing(stub: Callable[[Reply], Stub]) -> None:
    current, candidate = stub(doubles), stub(doubles)
    candidate.lives = False
    assert (await play(match(), current, candidate, quiet)).verdict == "fail"
    current.lives = False
    outcome = await play(match(), current, candidate, quiet)
    assert (outcome.verdict, outcome.why) == ("inconclusive", "current has crashed")


@pytest.mark.parametrize(
    ("budget", "why"),
    [(Budget(24, 100, 50), "the budget of 50 tokens"), (Budget(24, 0.0, 10**6), "the budget of 0 s")],
)
async def test_a_budget_that_is_spent_decides_nothing(
    stub: Callable[[Reply], Stub], budget: Budget, why: str
) -> None:
    outcome = await play(match(budget=budget), stub(doubles), stub(doubles), quiet)
    assert (outcome.verdict, outcome.why[: len(why)]) == ("inconclusive", why)


# -- scorers


async def test_a_program_can_score(stub: Callable[[Reply], Stub], tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text(
        "import json, sys\nasked = json.load(sys.stdin)\n"
        "print(0.5 if asked['answer'] == 'no idea' and asked['id'] == 't' else 1 / 1)\n"
    )
    suite = tasks.read(
        '[[task]]\nid = "t"\nprompt = "double 2"\ncheck.python = "near.py"', folder=str(tmp_path)
    )
    outcome = await play(match(1, suite), stub(doubles), stub(wrong), quiet)
    assert (outcome.pairs[0].current.score, outcome.pairs[0].candidate.score) == (1.0, 0.5)


@pytest.mark.parametrize("code", ["print('nan')", "raise SystemExit(1)"])
async def test_a_scorer_that_fails_on_current_decides_nothing(
    stub: Callable[[Reply], Stub], tmp_path: Path, code: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    suite = tasks.read(
        '[[task]]\nid = "t"\nprompt = "double 2"\ncheck.python = "bad.py"', folder=str(tmp_path)
    )
    outcome = await play(match(1, suite), stub(doubles), stub(doubles), quiet)
    assert (outcome.verdict, "bad.py gives no score" in outcome.why) == ("inconclusive", True)


async def test_an_answer_that_a_pattern_takes_for_ever_on_is_none(stub: Callable[[Reply], Stub]) -> None:
    suite = tasks.read('[[task]]\nid = "t"\nprompt = "double 2"\ncheck.regex = \'^(\\w+\\s?)+$\'')
    outcome = await play(
        match(1, suite), stub(doubles), stub(lambda *_: (200, completion("a" * 40 + "!"))), quiet
    )
    pair = outcome.pairs[0]
    assert (pair.current.score, pair.candidate.score, "takes too long" in pair.candidate.error) == (
        1,
        0,
        True,
    )


# -- the self-test


async def test_the_gate_can_be_believed(stub: Callable[[Reply], Stub]) -> None:
    tested = await selftest.self_test(match(), stub(doubles), stub(doubles), quiet)
    assert (tested.twin.verdict, tested.spoilt.verdict, tested.band.mean) == ("pass", "fail", 1.0)
    assert tested.band.count == 48


async def test_a_twin_that_differs_is_found(stub: Callable[[Reply], Stub]) -> None:
    with pytest.raises(Inconclusive, match="differs from itself"):
        await selftest.self_test(match(), stub(doubles), stub(wrong), quiet)


async def test_a_suite_that_nobody_solves_tells_nothing(stub: Callable[[Reply], Stub]) -> None:
    with pytest.raises(Inconclusive, match="spoilt does not fail"):
        await selftest.self_test(match(), stub(wrong), stub(wrong), quiet)


def test_what_is_no_completion_cannot_be_spoilt() -> None:
    assert selftest.spoil(b"x") == b"x"
    assert selftest.spoil(b"[]") == b"[]"
    assert b"42" not in selftest.spoil(completion("42"))


# -- the band


def test_a_band_holds_what_it_was_made_of_and_not_what_is_dead() -> None:
    scores = [1.0, 0.0, 1.0, 1.0] * 25
    known = band(scores)
    assert known.mean == 0.75
    assert known.holds(scores[:25])
    assert not known.holds([0.0] * 25)
    assert not known.holds([])
    assert band([1.0] * 24).holds([1.0] * 12)
    assert not band([1.0] * 24).holds([0.5] * 12)
    with pytest.raises(ValueError, match="no scores"):
        band([])
    assert isinstance(known, Band)


# -- the costs


def pair(candidate: Half) -> Pair:
    return Pair("t", 1, False, Half(1, 1.0, 100, length=400), candidate)


@pytest.mark.parametrize(
    ("half", "said"),
    [
        (Half(1, 1.7, 100), ""),
        (Half(1, 1.8, 100), "an answer takes 1.80 s, current's 1.00 s"),
        (Half(1, 1.0, 170), ""),
        (Half(1, 1.0, 171), "an answer takes 171 tokens, current's 100"),
        (Half(1, 1.0, None), "30 of 30 answers do not say how many tokens they took, current's do"),
        (Half(1, 1.0, 100, length=680), ""),
        (Half(1, 1.0, 100, length=681), "an answer has 681 characters, current's 400"),
        (Half(0, 0.1, None, "late"), "30 of 30 answers are missing: late"),
    ],
)
def test_what_costs_too_much(half: Half, said: str) -> None:
    assert "; ".join(guards.findings([pair(half)] * 30)) == said


def test_a_few_errors_are_forgiven() -> None:
    bad, good = pair(Half(0, 1.0, None, "late")), pair(Half(1, 1.0, 100))
    assert guards.findings([bad] * 3 + [good] * 97) == []
    assert guards.findings([bad] * 4 + [good] * 96) == ["4 of 100 answers are missing: late"]
    assert guards.findings([]) == []


def test_who_never_said_what_it_took_need_not() -> None:
    quiet = Half(1, 1.0, None)
    assert guards.findings([Pair("t", 1, False, quiet, quiet)] * 30) == []
    assert guards.findings([Pair("t", 1, False, quiet, Half(1, 1.0, 9000))] * 30) == []
    assert guards.findings([pair(quiet)] * 3 + [pair(Half(1, 1.0, 100))] * 97) == []


async def test_what_was_said_is_measured_and_not_believed(stub: Callable[[Reply], Stub]) -> None:
    def long(prompt: str, seed: int) -> tuple[int, bytes]:
        return 200, completion(answer("well", prompt, seed) + " " * 200, tokens=1)

    outcome = await play(match(), stub(doubles), stub(long), quiet)
    assert (outcome.verdict, guards.findings(outcome.pairs)) == (
        "pass",
        ["an answer has 202 characters, current's 2"],
    )
