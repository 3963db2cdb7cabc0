"""`org promote`: the candidate becomes main, and what is served."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from org.ops import candidate, control, program
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.fitness import inputs, judge, watch
from org.ops.program import Program
from org.ops.promote import promote


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org promote",
        description="Move main to the merge of the candidate that passed the gate, and serve it without"
        " losing a request. The gate is run first when it was not.",
    )
    made.add_argument(
        "branch", metavar="BRANCH", nargs="?", default="", help="default: the one in the folder"
    )
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _promote(program.find(Path(), os.environ), args.branch))


def _promote(here: Program, branch: str) -> Answer:
    program.require(here)
    usual, more = watch.usual(here), candidate.uncommitted(here, branch)
    done = promote(here, branch, judge.run, control.swap, inputs.stands)
    entry = done.entry
    details = {"number": entry.number, "commit": entry.commit, "before": entry.main, "branch": entry.branch}
    watched = usual.seconds if done.swapped else 0.0
    if watched:
        watch.begin(here, entry.commit, usual)
    lines = (
        f"promote {entry.number}: main is at {entry.commit[:12]}, with {entry.branch}",
        "what is served was swapped" if done.swapped else "nothing is served, so nothing was swapped",
        *((f"it is watched for {watched:g} s, and taken back when it does badly",) if watched else ()),
        f"into your checkout: {here.pull}",
    )
    return Answer(
        "promoted",
        lines,
        (*done.notes, more) if more else done.notes,
        {**details, "swapped": done.swapped, "watch_s": watched, "pull": here.pull},
    )
