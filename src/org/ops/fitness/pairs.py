"""The same questions to both sides, in pairs, until the rule has decided or the budget is spent."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Protocol, TypeAlias

from org.ops.fitness import ask, scorers, sequential
from org.ops.fitness.ask import Door, Reply
from org.ops.fitness.rules import Budget
from org.ops.fitness.scorers import Score
from org.ops.fitness.sequential import Decision, Rule, Verdict
from org.ops.fitness.tasks import Suite, Task

MOST_DISCARDED = 0.10
"""The share of pairs that may be lost to a model server that fails."""
_SEEDS = 2**31


class Answering(Protocol):
    """What the pairs need of a side of the arena."""

    @property
    def door(self) -> Door: ...

    async def revive(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pair to be asked."""

    task: Task
    seed: int
    candidate_first: bool


@dataclass(frozen=True, slots=True)
class Half:
    """How one side did: `error` is empty when it answered. `tokens` is what it says itself; `length` is in
    characters, of what it thought too."""

    score: float
    seconds: float
    tokens: int | None
    error: str = ""
    length: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """`discarded` says why the pair does not count."""

    task: str
    seed: int
    candidate_first: bool
    current: Half
    candidate: Half
    discarded: str = ""

    @property
    def difference(self) -> float:
        return self.candidate.score - self.current.score


@dataclass(frozen=True, slots=True)
class Outcome:
    """`why` is for a person. `pairs` are all that were asked, in their order."""

    verdict: Verdict
    why: str
    pairs: tuple[Pair, ...]
    rule: Rule
    decision: Decision
    against_anchor: Decision | None = None

    @property
    def counted(self) -> list[Pair]:
        return [pair for pair in self.pairs if not pair.discarded]


Progress: TypeAlias = Callable[[Sequence[Pair], Decision, float], None]
"""Told after each pair: all so far, what they decide, and about how many seconds are left."""


@dataclass(frozen=True, slots=True)
class Match:
    """What is asked of both, and by which rule it is judged. `anchor` is how well an earlier generation did
    at each task that is known, by its id, and `anchor_rule` for the pairs of those; {} and None without.
    `to_the_end` asks all pairs whatever they decide."""

    suite: Suite
    rule: Rule
    drawn: Sequence[Drawn]
    budget: Budget
    anchor: Mapping[str, float] = field(default_factory=dict)
    anchor_rule: Rule | None = None
    to_the_end: bool = False


class AssayFailed(Exception):
    """Current itself does not answer as it should: nothing can be compared with it."""


def draw(tasks: Sequence[Task], pairs: int, rng: random.Random) -> list[Drawn]:
    """So many pairs, in random order, as many of each task as it weighs, and one less or more where that is
    no whole number. So a pair counts for as much as any other: one that counted for ten would decide alone,
    and before it is asked nothing would show how unsure the rest is."""
    order = rng.sample(tasks, len(tasks))
    ends = list(accumulate(task.weight for task in order))
    begin = rng.random()
    places = [bisect(ends, (begin + number) * ends[-1] / pairs) for number in range(pairs)]
    some = [order[min(place, len(order) - 1)] for place in places]
    rng.shuffle(some)
    return [Drawn(task, rng.randrange(_SEEDS), rng.random() < 0.5) for task in some]


def arrange(
    suite: Suite,
    budget: Budget,
    rng: random.Random,
    pairs: int,
    attempt: int = 1,
    anchor: Mapping[str, float] = {},
) -> Match:
    """The match of an attempt, where a first one takes so many pairs. An anchor of which too little is known
    for anybody to pass is none."""
    wanted = sequential.pairs_for(pairs, attempt)
    drawn = draw(suite.tasks, wanted, rng)
    rule = sequential.plan(wanted, attempt)
    known = sum(one.task.id in anchor for one in drawn)
    if known < sequential.least_pairs(attempt):
        return Match(suite, rule, drawn, budget)
    against = sequential.plan(known, attempt, sequential.MARGIN_OF_ANCHOR)
    return Match(suite, rule, drawn, budget, anchor, against)


async def play(match: Match, current: Answering, candidate: Answering, progress: Progress) -> Outcome:
    """Ask the pairs, one after the other."""
    with scorers.scoring(match.suite) as score:
        return await _play(match, score, current, candidate, progress)


async def _play(
    match: Match, score: Score, current: Answering, candidate: Answering, progress: Progress
) -> Outcome:
    began = time.monotonic()
    pairs: list[Pair] = []
    tokens = 0
    todo = deque(match.drawn)
    while todo:
        drawn = todo.popleft()
        spent = time.monotonic() - began
        if spent > match.budget.seconds or tokens > match.budget.tokens:
            unit = "seconds" if spent > match.budget.seconds else "tokens"
            limit = getattr(match.budget, unit)
            return _end(match, pairs, f"the budget of {limit:g} {unit} is spent after {len(pairs)} pairs")
        try:
            pairs.append(await _ask(score, drawn, current, candidate))
        except AssayFailed as failure:
            return _end(match, pairs, str(failure))
        tokens += sum(half.tokens or 0 for half in (pairs[-1].current, pairs[-1].candidate))
        if pairs[-1].discarded:
            lost = sum(bool(pair.discarded) for pair in pairs)
            if lost > MOST_DISCARDED * len(match.drawn):
                return _end(match, pairs, f"{lost} pairs were lost: {pairs[-1].discarded}")
            todo.append(replace(drawn, seed=(drawn.seed + 1) % _SEEDS))
        decision, against = decide(match, pairs)
        each = (time.monotonic() - began) / len(pairs)
        progress(pairs, decision, each * len(todo))
        if not match.to_the_end and combine(decision, against)[1]:
            break
    return _end(match, pairs, "")


def decide(match: Match, pairs: Sequence[Pair]) -> tuple[Decision, Decision | None]:
    """What the pairs so far say of current and of the anchor."""
    counted = [pair for pair in pairs if not pair.discarded]
    decision = sequential.decide(match.rule, [pair.difference for pair in counted])
    if match.anchor_rule is None:
        return decision, None
    # A task at which the anchor is not known tells nothing about it.
    known = [pair.candidate.score - match.anchor[pair.task] for pair in counted if pair.task in match.anchor]
    return decision, sequential.decide(match.anchor_rule, known)


def combine(decision: Decision, against: Decision | None) -> tuple[Verdict, bool]:
    """The verdict of both tests, and whether more pairs would change nothing."""
    both = (decision,) if against is None else (decision, against)
    if any(one.verdict == "fail" for one in both):
        return "fail", True
    if all(one.verdict == "pass" for one in both):
        return "pass", True
    return "inconclusive", all(one.is_over for one in both)


def _end(match: Match, pairs: Sequence[Pair], trouble: str) -> Outcome:
    decision, against = decide(match, pairs)
    verdict, _ = combine(decision, against)
    # What was asked before the trouble may have decided already; then nothing was asked after it.
    why = trouble or _why(match, verdict, decision, against)
    return Outcome("inconclusive" if trouble else verdict, why, tuple(pairs), match.rule, decision, against)


def _why(match: Match, verdict: Verdict, decision: Decision, against: Decision | None) -> str:
    which = "current"
    if against is not None and decision.verdict != verdict:
        decision, which = against, "the anchor"
    if not decision.looks:
        return f"{match.rule.pairs} pairs are too few to decide"
    found = decision.looks[-1].estimate
    way = "above" if found.mean > 0 else "below"
    said = f"{abs(found.mean):.3f} {way} {which}" if found.mean else f"as good as {which}"
    said += f" (standard error {found.error:.3f}) after {found.pairs} pairs"
    few = f"; so few tell no less than {match.rule.margin:g} apart" if match.rule.margin > 0.1 else ""
    return said + few


async def _ask(score: Score, drawn: Drawn, current: Answering, candidate: Answering) -> Pair:
    if not await current.revive():
        raise AssayFailed("current has crashed")
    alive = await candidate.revive()
    replies: dict[bool, Reply] = {}
    for is_candidate in (drawn.candidate_first, not drawn.candidate_first):
        if is_candidate and not alive:
            replies[True] = Reply("broken", 0.0, why="it has crashed")
        else:
            replies[is_candidate] = await _put(candidate if is_candidate else current, drawn)
    ours, theirs = replies[False], replies[True]
    discarded = await _lost(drawn, current, ours, theirs)
    first, second = [await _half(score, drawn.task, reply) for reply in (ours, theirs)]
    if not discarded and first.error:
        raise AssayFailed(f"current failed at `{drawn.task.id}`: {first.error}")
    return Pair(drawn.task.id, drawn.seed, drawn.candidate_first, first, second, discarded)


async def _put(side: Answering, drawn: Drawn) -> Reply:
    task = drawn.task
    return await asyncio.to_thread(
        ask.put, side.door, task.prompt, seed=drawn.seed, seconds=task.timeout_s, system=task.system
    )


async def _lost(drawn: Drawn, current: Answering, ours: Reply, theirs: Reply) -> str:
    """Why a pair tells nothing of the candidate, if it does not. That the model server has failed is
    believed of a candidate only when current says so too: it could say so whenever it likes."""
    if ours.kind == "endpoint":
        return f"the model server failed: {ours.why}"
    if ours.kind == "late":
        return f"current: {ours.why}"
    if theirs.kind == "endpoint" and (again := await _put(current, drawn)).kind == "endpoint":
        return f"the model server failed: {again.why}"
    return ""


async def _half(score: Score, task: Task, reply: Reply) -> Half:
    if reply.kind != "answered":
        return Half(0.0, reply.seconds, reply.tokens, reply.why or reply.kind)
    try:
        found = await asyncio.to_thread(score, task, reply.text)
    except scorers.ScorerFailed as error:
        return Half(0.0, reply.seconds, reply.tokens, str(error))
    return Half(found, reply.seconds, reply.tokens, length=len(reply.text) + len(reply.thoughts))
