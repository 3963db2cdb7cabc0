"""The gate as a whole: in which order things are tried, and the verdict on them."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from org.errors import ConfigError, EnvironmentProblem, Inconclusive, UsageError
from org.ops import control, worktrees
from org.ops.fitness import case as cases
from org.ops.fitness import gates, guards, inputs, keeping, known, pairs, selftest, sequential
from org.ops.fitness.arena import Side, arena, place_of
from org.ops.fitness.case import Case, Wish
from org.ops.fitness.gates import Finding
from org.ops.fitness.inputs import Inputs
from org.ops.fitness.known import Known
from org.ops.fitness.pairs import Match, Outcome, Pair
from org.ops.fitness.progress import Progress
from org.ops.fitness.selftest import Tested
from org.ops.fitness.vitals import MOST_CRASHES
from org.ops.layout import Layout
from org.ops.lock import hold
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.settings import FILE

USUAL = Wish()


@dataclass(slots=True)
class Trial:
    """What is found out. `seed` is what the pairs are drawn with, `asked` how many a first attempt takes,
    `stopped` why nothing more could be found out."""

    seed: int
    asked: int
    findings: list[Finding]
    outcome: Outcome | None = None
    main: Known | None = None
    shared: str = ""
    stopped: Inconclusive | None = None


def run(program: Program, gate: Gate, wish: Wish = USUAL, progress: Progress | None = None) -> dict[str, Any]:
    """Judge the merge of a gate; gives the verdict, which is not recorded yet. Takes minutes.

    Raises `ConfigError` for what main says, and `Busy`.
    """
    with hold(place_of(program.layout), "fitness"):
        case = cases.prepare(program, gate, wish)
        trial = Trial(secrets.randbits(32), _asked(case.inputs, wish), [_files(case.wrong)])
        if not case.wrong:
            try:
                asyncio.run(_try(program, case, wish, trial, progress or Progress()))
            except Inconclusive as error:
                trial.stopped = error
            trial.findings[0] = _files(_changed(program, gate))
        _tidy(program, gate)
        return _verdict(case, trial)


def self_test(program: Program, wish: Wish, progress: Progress) -> tuple[Inputs, Tested]:
    """Whether the gate can be believed of main as it is. Raises `Inconclusive` when it cannot."""
    layout = program.layout
    with hold(place_of(layout), "fitness --self-test"):
        with cases.patiently(program, "fitness --self-test") as git:
            main = cases.trusted(program, git).main.commit
            folder = worktrees.ensure(layout, git, main)
            read = inputs.read(git, main, folder, wish.tasks)
        if not _asked(read, wish):
            raise UsageError(f"no tasks are asked here: `pairs = 0` in {FILE}", "`--pairs 100` asks some")

        async def test() -> Tested:
            async with arena(layout), _served(layout, "current", read, folder) as current:
                return await _self_test(layout, read, folder, wish, current, progress)

        return read, asyncio.run(test())


def _files(wrong: Sequence[str]) -> Finding:
    return Finding("files", not wrong, "; ".join(wrong) or "nothing that is forbidden")


def _changed(program: Program, gate: Gate) -> list[str]:
    """What was changed of the files while they were tried: then it is not that commit which was."""
    wrong = []
    with cases.patiently(program, "fitness") as git:
        for whose, commit in (("its own", gate.merge), ("current's", gate.main)):
            if paths := worktrees.compare(program.layout, git, commit).changed:
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                wrong.append(f"{whose} files were changed while it was tried: {paths[0]}{more}")
    return wrong


def _tidy(program: Program, gate: Gate) -> None:
    """Each candidate leaves a folder of files behind; those that may be served again stay."""
    served = control.status(program.layout)
    before = [served[colour]["previous"] for colour in ("current", "candidate") if served.get(colour)]
    with cases.patiently(program, "fitness"):
        worktrees.prune(program.layout, (gate.main, gate.merge, *before))


# -- what is tried, in its order


async def _try(program: Program, case: Case, wish: Wish, trial: Trial, progress: Progress) -> None:
    """The cheap and certain first; nobody is compared who has failed already."""
    layout, read = program.layout, case.inputs
    async with arena(layout), _served(layout, "current", read, case.current) as current:
        side = Side(layout, "candidate", case.gate.merge, case.candidate, read.rules.ask)
        try:
            await _gates(layout, case, current, side, trial, progress)
            if trial.asked and not gates.failed(trial.findings):
                await _compare(program, case, wish, current, side, trial, progress)
        finally:
            await side.stop()


async def _gates(
    layout: Layout, case: Case, current: Side, side: Side, trial: Trial, progress: Progress
) -> None:
    read, found = case.inputs, trial.findings
    progress.step(f"{case.gate.branch}: it is started and drained, and asked small things")
    try:
        await side.start()
        trial.shared = side.shared
        found.append(Finding("start", True, "it names its commit and takes connections"))
        found.append(await _rehearsed(current, side))
        await side.start()
    except (EnvironmentProblem, ConfigError) as error:
        said = error.hint.splitlines()[-1] if error.hint else ""
        found.append(Finding("start", False, f"{error.message}: {said}"))
        return
    found.append(await gates.probe(current, side, read.rules, read.settings.health))
    if read.rules.keeps and not gates.failed(found):
        progress.step("the candidate goes on with what current keeps, and current with what that leaves")
        found.append(await keeping.follow(current, side, read.rules))
    if read.rules.tests and not gates.failed(found):
        progress.step("current's tests are run among the files of both")
        ours = Side(layout, "current-tests", read.main, case.current, read.rules.ask)
        theirs = Side(layout, "candidate-tests", case.gate.merge, case.candidate, read.rules.ask)
        found.append(await gates.test(ours, theirs, read.rules))


async def _rehearsed(current: Side, side: Side) -> Finding:
    """What current cannot do here either, on a model server that is too slow for it, is not asked for."""
    found = await gates.rehearse(side)
    if found.passed:
        return found
    ours = await gates.rehearse(current)
    await _start(current)
    return found if ours.passed else Finding("drain", True, f"no worse than current: {ours.about}")


async def _compare(
    program: Program, case: Case, wish: Wish, current: Side, side: Side, trial: Trial, progress: Progress
) -> None:
    layout, read = program.layout, case.inputs
    trial.main = known.find(place_of(layout).root, _of_what(read, wish))
    if trial.main is None:
        trial.main = known.of(await _self_test(layout, read, case.current, wish, current, progress))
    match = _match(read, wish, trial.seed, case.attempt, case.anchor.means)
    progress.step(f"{case.gate.branch}: {match.rule.pairs} pairs at most, attempt {case.attempt}")
    cases.begin(program, case)
    trial.outcome = await pairs.play(match, current, side, progress.pairs)
    progress.end()
    wrong = guards.findings(trial.outcome.pairs)
    if side.crashes > current.crashes + MOST_CRASHES:  # which may have been between two answers
        wrong.append(f"it ended by itself {side.crashes} times")
    trial.findings.append(Finding("costs", not wrong, "; ".join(wrong) or "as current's, or less"))


async def _self_test(
    layout: Layout, read: Inputs, folder: Path, wish: Wish, current: Side, progress: Progress
) -> Tested:
    progress.step("self-test: current against itself, then with its answers spoilt")
    async with _served(layout, "twin", read, folder) as twin:
        match = _match(read, wish, secrets.randbits(32))
        try:
            tested = await selftest.self_test(match, current, twin, progress.pairs)
        except Inconclusive as error:
            raise Inconclusive(
                error.message, f"{error.hint}\nwhat current said is in {current.log}"
            ) from None
    progress.end()
    known.keep(place_of(layout).root, _of_what(read, wish), known.of(tested))
    return tested


@asynccontextmanager
async def _served(layout: Layout, name: str, read: Inputs, folder: Path) -> AsyncIterator[Side]:
    """Main, in the arena. Raises `Inconclusive` when even that does not start."""
    async with AsyncExitStack() as stack:
        side = Side(layout, name, read.main, folder, read.rules.ask)
        stack.push_async_callback(side.stop)
        await _start(side)
        yield side


async def _start(side: Side) -> None:
    """Start main. Raises `Inconclusive`."""
    try:
        await side.start()
    except EnvironmentProblem as error:
        raise Inconclusive(f"current does not start here: {error.message}", error.hint) from None


def _match(read: Inputs, wish: Wish, seed: int, attempt: int = 1, means: Mapping[str, float] = {}) -> Match:
    """`means` are the anchor's."""
    wanted = _asked(read, wish)
    return pairs.arrange(read.suite, read.rules.budget, random.Random(seed), wanted, attempt, means)


def _of_what(read: Inputs, wish: Wish) -> object:
    """What a self-test is of."""
    return [read.names, wish.pairs]


def _asked(read: Inputs, wish: Wish) -> int:
    """How many pairs a first attempt takes."""
    return wish.pairs or read.rules.budget.pairs


# -- the verdict


def _verdict(case: Case, trial: Trial) -> dict[str, Any]:
    word, why = _decided(trial)
    told: dict[str, Any] = {**cases.names(case), "verdict": word, "why": why}
    told["findings"] = [asdict(finding) for finding in trial.findings]
    told["shared_because"] = trial.shared
    told["asked"] = trial.asked
    told["hint"] = trial.stopped.hint if trial.stopped else ""
    if trial.outcome is not None and trial.main is not None:
        told |= _compared(case, trial.outcome, trial.main) | {"seed": trial.seed}
    return told


def _compared(case: Case, outcome: Outcome, main: Known) -> dict[str, Any]:
    rule = outcome.rule
    looks = outcome.decision.looks
    against = outcome.against_anchor
    return {
        "spent": case.attempt,
        "planned": rule.pairs,
        "margin": rule.margin,
        "bounds": [[pairs, rule.bound(number)] for number, pairs in enumerate(rule.looks, 1)],
        "looks": [asdict(look) for look in looks],
        "superior": bool(looks) and looks[-1].is_better,
        "anchor": case.anchor.commit,
        "anchor_looks": [asdict(look) for look in against.looks] if against else [],
        "band": asdict(main.band),
        "known": dict(main.means),
        "costs": asdict(guards.costs(outcome.pairs)),
        "pairs": [_pair(pair) for pair in outcome.pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    told = asdict(pair)
    for half in (told["current"], told["candidate"]):
        half["seconds"] = round(half["seconds"], 3)
    return told


def _decided(trial: Trial) -> tuple[sequential.Verdict, str]:
    """What all of it comes to, and why."""
    outcome, main = trial.outcome, trial.main
    if why := gates.failed(trial.findings):
        return "fail", why
    if trial.stopped is not None:
        return "inconclusive", trial.stopped.message
    if not trial.asked:
        return "pass", "it passes the gates above, and no tasks were asked: `pairs = 0`"
    if outcome is None or main is None:
        return "inconclusive", "nothing was compared"
    scores = [pair.current.score for pair in outcome.counted]
    if not main.band.holds(scores):
        found = sum(scores) / len(scores) if scores else 0.0
        usual = main.band.mean
        return "inconclusive", f"current itself does as never before: {found:.2f} a task, not {usual:.2f}"
    return outcome.verdict, outcome.why
