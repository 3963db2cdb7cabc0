"""`org stop`: current or the candidate is served no more."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from org.ops import control, program
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.layout import Colour
from org.ops.program import Program


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org stop",
        description="End what is served, when the requests that it has are answered. The supervisor ends with"
        " the last one.",
    )
    made.add_argument("colour", choices=("current", "candidate"), help="what to stop")
    made.add_argument("--now", action="store_true", help="wait for no answer: what serves and what drains is"
                      " killed")  # fmt: skip
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _stop(program.find(Path(), os.environ), args.colour, now=args.now))


def _stop(here: Program, colour: Colour, *, now: bool) -> Answer:
    if control.stop(here.layout, colour, now=now):
        return Answer("stopped", (f"{colour} is stopped",))
    return Answer("not-served", (f"{colour} was not served",))
