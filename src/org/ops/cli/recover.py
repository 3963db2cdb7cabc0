"""`org recover`: end what a kill or a power cut interrupted."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from org.ops import control, program
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.program import Program
from org.ops.recover import recover


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org recover",
        description="End what was interrupted: main is then either as before it, or all that follows from it"
        " is done. Checks the repository too. Doing it once more does nothing.",
    )
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _recover(program.find(Path(), os.environ)))


def _recover(here: Program) -> Answer:
    program.require(here)
    done = recover(here, control.swap)
    return Answer(
        "recovered" if done else "nothing-to-do", done or ("nothing to recover",), (), {"done": done}
    )
