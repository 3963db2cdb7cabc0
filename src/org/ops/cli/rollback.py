"""`org rollback`: the newest promote is taken back."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from org.ops import control, program
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.program import Program
from org.ops.rollback import rollback


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org rollback",
        description="Take back the newest promote that stands, by a commit on top of main, and serve what"
        " was before. Nothing is lost: the candidate can be promoted again.",
    )
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _rollback(program.find(Path(), os.environ)))


def _rollback(here: Program) -> Answer:
    program.require(here)
    done = rollback(here, control.swap)
    entry = done.entry
    lines = (
        f"rollback {entry.number}: main is at {entry.commit[:12]}, without promote {entry.of.number}"
        f" ({entry.of.branch})",
        "what is served was swapped" if done.swapped else "nothing is served, so nothing was swapped",
        f"into your checkout: {here.pull}",
    )
    details = {"number": entry.number, "commit": entry.commit, "before": entry.main, "of": entry.of.number}
    return Answer("rolled-back", lines, (), {**details, "swapped": done.swapped, "pull": here.pull})
