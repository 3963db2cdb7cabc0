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
    "update": "bring main into the folder, with what does not fit marked there",
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
    which = made_of["edit"].add_mutually_exclusive_group()
    which.add_argument(
        "branch", metavar="BRANCH", nargs="?", default="", help="an earlier one, to go on with it"
    )
    which.add_argument("--new", action="store_true", help="leave the one there is, begin another")
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
    if args.verb == "update":
        return give(args.json, _update(_here()))
    return give(args.json, _edit(_here(), args.branch, args.new))


def _here() -> Program:
    return program.find(Path(), os.environ)


def _edit(here: Program, branch: str, new: bool) -> Answer:
    opened = candidate.edit(here, branch, new=new)
    folder, beside = str(opened.folder), [str(path) for path in opened.beside]
    where = " in the machine (`org vm shell --root`)" if place.in_guest() else ""
    kept = f"kept beside it is what was there before; remove what nobody needs: {', '.join(beside)}"
    notes = (opened.note, kept if beside else "", f"{opened.branch} is yours to change{where}, in")
    details = {"branch": opened.branch, "folder": folder, "beside": beside}
    return Answer("editing", (folder,), tuple(filter(None, notes)), details)


def _update(here: Program) -> Answer:
    program.require(here)
    done = candidate.update(here)
    lines = [f"{done.branch} has main, {done.main[:12]}, in its folder: {done.folder}"]
    if done.files:
        lines.append(f"these do not fit, and have both between marks: {', '.join(done.files)}")
    lines.append('`org candidate commit -m "…"` keeps it' + " when they are mended" * bool(done.files))
    details = {
        "branch": done.branch,
        "folder": str(done.folder),
        "main": done.main,
        "files": list(done.files),
    }
    return Answer("updated", tuple(lines), (done.note,) * bool(done.note), details)


def _commit(here: Program, message: str) -> Answer:
    program.require(here)
    branch, commit = candidate.commit(here, message, os.environ)
    return Answer("committed", (f"{branch} is at {commit[:12]}",), (), {"branch": branch, "commit": commit})


def _diff(here: Program) -> Answer:
    program.require(here)
    patch = candidate.diff(here)
    return Answer("told", tuple(patch.split("\n")[:-1]), (), {"patch": plain.text(patch)})
