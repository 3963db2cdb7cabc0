"""`org compare`: the same message to current and to the candidate."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from org.errors import ExitCode
from org.ops import candidate, merges, program, sync
from org.ops.cli.answer import Answer, Parser, add_json, give, require_writable
from org.ops.fitness import compare
from org.ops.program import Program


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org compare",
        description="Start main and the candidate aside, say the same to both in rooms that are forgotten,"
        " and show what each answers, which tools it calls, and what that costs. Ends with 0 when both have"
        " answered, 1 when one has not.",
    )
    made.add_argument("message", metavar="MESSAGE", help="what both are told")
    made.add_argument(
        "branch", metavar="BRANCH", nargs="?", default="", help="default: the one in the folder"
    )
    made.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=300.0, help="for an answer; default: 300"
    )
    made.add_argument("--report", metavar="FILE", default="", help="write it as a page too")
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if not 0 < args.timeout <= 86_400:
        made.error("--timeout: a number of seconds above 0")
    here = program.find(Path(), os.environ)
    return give(args.json, _compare(here, args.message, args.branch, args.timeout, args.report))


def _compare(here: Program, message: str, branch: str, seconds: float, page: str) -> Answer:
    program.require(here)
    if page:
        require_writable(page)
    with here.hold("compare") as git:
        known, told = sync.current(git)
        gate = merges.prepare(git, known, told, branch or candidate.branch_of(here))
    found = compare.compare(here, gate, message, seconds)
    reason, code = ("compared", ExitCode.DONE) if found.both_answered else ("unanswered", ExitCode.FAILED)
    width = shutil.get_terminal_size().columns
    return Answer(
        reason, tuple(compare.lines(found, width)), (), found.details, code, (page, compare.html(found))
    )
