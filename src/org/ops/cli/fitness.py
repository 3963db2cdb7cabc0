"""`org fitness`: whether the candidate may become main, and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from org.errors import ExitCode
from org.ops import candidate, merges, plain, program, steps, sync, verdicts
from org.ops.cli.answer import Answer, Parser, add_json, give, require_writable
from org.ops.control import swap
from org.ops.fitness import case, inputs, judge, plot, report
from org.ops.fitness.case import Wish
from org.ops.fitness.progress import Progress
from org.ops.fitness.rules import MOST_PAIRS
from org.ops.git import Git
from org.ops.merges import Gate
from org.ops.program import Program

_CODES = {"pass": ExitCode.DONE, "fail": ExitCode.FAILED, "inconclusive": ExitCode.INCONCLUSIVE}
_WORDS = {"pass": "passes", "fail": "fails", "inconclusive": "could not be decided on"}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org fitness",
        description="Judge the candidate: its files, how it starts and ends, what it answers, and how well it"
        " does at tasks beside current. Ends with 0 for a pass, 1 for a fail, 3 when it could not be decided."
        " The verdict is kept, and `org promote` goes by it.",
    )
    made.add_argument(
        "branch", metavar="BRANCH", nargs="?", default="", help="default: the one in the folder"
    )
    made.add_argument("--tasks", metavar="FILE", default="", help="tasks of yours; default: fitness.toml on "
                      "main, or those that come with org")  # fmt: skip
    made.add_argument("--pairs", metavar="N", type=int, help="how often both are asked, at the first "
                      "attempt; default: 100, or what main says")  # fmt: skip
    made.add_argument("--report", metavar="FILE", default="", help="write the verdict as a page too")
    made.add_argument("--again", action="store_true", help="judge again what was judged; each attempt has "
                      "bounds further out, and more pairs")  # fmt: skip
    made.add_argument("--allow-protected", action="store_true", help="let it change what is protected")
    made.add_argument("--self-test", action="store_true", help="only see whether the gate can be believed: "
                      "current must tie with itself, and fail when spoilt")  # fmt: skip
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if args.pairs is not None and not 1 <= args.pairs <= MOST_PAIRS:
        made.error(f"--pairs: between 1 and {MOST_PAIRS}")
    tasks = str(Path(args.tasks).resolve()) if args.tasks else ""
    wish = Wish(tasks, args.pairs or 0, args.allow_protected)
    here = program.find(Path(), os.environ)
    if args.self_test:
        if args.branch or args.report or args.again or args.allow_protected:
            made.error("--self-test is of main, and gives no verdict: only with --tasks and --pairs")
        return give(args.json, _self_test(here, wish))
    return give(args.json, _fitness(here, args.branch, wish, args.again, args.report))


def _fitness(here: Program, branch: str, wish: Wish, again: bool, page: str) -> Answer:
    program.require(here)
    if page:
        require_writable(page)
    gate, kept = _gate(here, branch, wish)
    notes: tuple[str, ...] = ()
    if kept is not None and kept.get("verdict") in ("pass", "fail") and not again:
        verdict, notes = kept, ("it was judged already; `--again` judges once more",)
    else:
        found = judge.run(here, gate, wish, Progress())
        with case.patiently(here, "fitness") as git:
            verdict = verdicts.record(git, gate.merge, found)
    code = _CODES[str(verdict["verdict"])]
    lines = tuple(map(plain.line, _lines(verdict)))  # a candidate's words are in them
    return Answer(
        str(verdict["verdict"]),
        lines,
        notes,
        dict(verdict),
        code,
        (page, report.html(verdict) if page else ""),
    )


def _gate(here: Program, branch: str, wish: Wish) -> tuple[Gate, dict[str, Any] | None]:
    """The merge to judge, and what was said of it if that still holds."""
    with here.hold("fitness") as git:
        steps.finish(here, git, swap)
        known, _ = sync.current(git)
        sync.take_in(here, git, known)
        known, told = sync.current(git)
        gate = merges.prepare(git, known, told, branch or candidate.branch_of(here))
        kept = verdicts.read(git, gate.merge)
        return gate, kept if kept is not None and _is_what_is_asked(git, kept, wish) else None


def _is_what_is_asked(git: Git, kept: Mapping[str, Any], wish: Wish) -> bool:
    """Whether a verdict is of what there is now, and of what the person said."""
    said = (kept.get("tasks", ""), kept.get("allow_protected", False))
    is_enough = wish.pairs in (0, kept.get("asked"))
    return said == (wish.tasks, wish.allow_protected) and is_enough and inputs.stands(git, kept)


def _lines(verdict: Mapping[str, Any]) -> Iterator[str]:
    for one in verdict.get("findings", ()):
        yield f"{'✓' if one['passed'] else '✕'} {one['gate']:7} {one['about']}"
    if verdict.get("pairs"):
        yield ""
        yield from plot.draw(plot.path_of(verdict))
        yield ""
    if verdict.get("shared_because"):
        yield f"ran as yourself: {verdict['shared_because']}"
    if verdict.get("superior"):
        yield "better than current: the anchor, once it is promoted"
    if verdict.get("allow_protected"):
        yield "protection was lifted: `--allow-protected`"
    yield f"{verdict['branch']} {_WORDS[verdict['verdict']]}: {verdict['why']}"
    yield from (f"  {line}" for line in verdict.get("hint", "").splitlines())


def _self_test(here: Program, wish: Wish) -> Answer:
    program.require(here)
    read, tested = judge.self_test(here, wish, Progress())
    band, twin, spoilt = tested.band, tested.twin, tested.spoilt
    lines = (
        f"current ties with itself: {twin.why}",
        f"with every second answer spoilt it fails: {spoilt.why}",
        f"current solves {band.mean:.0%} of what it is asked; the gate can be believed",
    )
    details = {"main": read.main, "mean": band.mean, "spread": band.spread, "pairs": len(twin.counted)}
    return Answer("believable", lines, (), details)
