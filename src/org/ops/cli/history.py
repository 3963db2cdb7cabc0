"""`org history`: what was promoted and rolled back, as main tells it."""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path

from org.ops import program, sync
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.history import Entry, History, Promote
from org.ops.program import Program


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org history", description="What was promoted and rolled back, oldest first.")
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _history(program.find(Path(), os.environ)))


def _history(here: Program) -> Answer:
    program.require(here)
    _, told = sync.current(here.look())
    lines = tuple(_line(entry, told) for entry in told.entries) or ("nothing was promoted yet",)
    details = {"main": told.main, "entries": [_entry(entry, told) for entry in told.entries]}
    return Answer("told", lines, (), details)


def _line(entry: Entry, told: History) -> str:
    at = f"{datetime.fromtimestamp(entry.at):%Y-%m-%d %H:%M}"
    if isinstance(entry, Promote):
        gone = "" if entry in told.standing else ", rolled back"
        return f"{at}  {entry.commit[:12]}  promote {entry.number}: {entry.branch}{gone}"
    return f"{at}  {entry.commit[:12]}  rollback {entry.number}: of promote {entry.of.number}"


def _entry(entry: Entry, told: History) -> dict[str, object]:
    common = {"number": entry.number, "commit": entry.commit, "before": entry.main, "at": entry.at}
    if isinstance(entry, Promote):
        stands = entry in told.standing
        return {
            "kind": "promote",
            **common,
            "branch": entry.branch,
            "candidate": entry.candidate,
            "stands": stands,
        }
    return {"kind": "rollback", **common, "of": entry.of.number}
