"""`org candidate`: the next version of a program, and the folder in which it is worked on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from org.ops import candidate, place, plain, program
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.program import Program

_ABOUT = {
    "edit": "begin a candidate, or go on with it; prints its folder",
    "commit": "keep all files of the folder as a commit",
    "diff": "what it would change on main, committed or not",
}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org candidate",
        description="The candidate is a branch of its own and a folder beside your checkout, which is never"
        " touched. What is committed of it can be judged and promoted.",
    )
    verbs = made.add_subparsers(prog="org candidate", dest="verb", metavar="VERB", required=True)
    made_of = {name: verbs.add_parser(name, description=about, help=about) for name, about in _ABOUT.items()}
    made_of["edit"].add_argument("--new", action="store_true", help="leave the one there is, begin another")
    made_of["commit"].add_argument("-m", "--message", metavar="TEXT", required=True, help="what was done")
    for one in made_of.values():
        add_json(one)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.verb == "diff":
        return give(args.json, _diff(_here()))
    if args.verb == "commit":
        return give(args.json, _commit(_here(), args.message))
    return give(args.json, _edit(_here(), args.new))


def _here() -> Program:
    return program.find(Path(), os.environ)


def _edit(here: Program, new: bool) -> Answer:
    opened = candidate.edit(here, new=new)
    folder = str(opened.folder)
    where = " in the machine (`org vm shell --root`)" if place.in_guest() else ""
    notes = tuple(filter(None, (opened.note, f"{opened.branch} is yours to change{where}, in")))
    return Answer("editing", (folder,), notes, {"branch": opened.branch, "folder": folder})


def _commit(here: Program, message: str) -> Answer:
    program.require(here)
    branch, commit = candidate.commit(here, message, os.environ)
    return Answer("committed", (f"{branch} is at {commit[:12]}",), (), {"branch": branch, "commit": commit})


def _diff(here: Program) -> Answer:
    program.require(here)
    patch = candidate.diff(here)
    return Answer("told", tuple(patch.split("\n")[:-1]), (), {"patch": plain.text(patch)})
