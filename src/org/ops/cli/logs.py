"""`org logs`: what current or the candidate has said."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from org.ops import logfile, program
from org.ops.cli.answer import Answer, Parser, add_json, give, show

_PAUSE_S = 0.2


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org logs",
        description="What is served says on its standard output and error. The last 4 to 8 MiB are kept.",
    )
    made.add_argument("colour", choices=("current", "candidate"), nargs="?", default="current",
                      help="default: current")  # fmt: skip
    made.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    made.add_argument("-n", dest="count", metavar="N", type=int, default=50, help="lines; default: 50")
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if args.json and args.follow:
        made.error("--json is of what was said until now: no --follow")
    here = program.find(Path(), os.environ)
    program.require(here)
    path = here.layout.log(args.colour)
    follower = logfile.Follower(path) if args.follow else None
    said = logfile.last_lines(path, max(0, args.count)).decode(errors="replace")
    if args.json:
        return give(True, Answer("told", details={"colour": args.colour, "lines": said.splitlines()}))
    show(said)
    while follower is not None:
        if data := follower.read():
            show(data.decode(errors="replace"))
        else:
            time.sleep(_PAUSE_S)
    return 0
