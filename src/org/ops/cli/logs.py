"""`org logs`: what current or the candidate has said."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from org.ops import logfile, program
from org.ops.cli.answer import Parser

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
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    path = program.find(Path(), os.environ).layout.log(args.colour)
    follower = logfile.Follower(path) if args.follow else None
    _write(logfile.last_lines(path, max(0, args.count)))
    while follower is not None:
        if data := follower.read():
            _write(data)
        else:
            time.sleep(_PAUSE_S)
    return 0


def _write(data: bytes) -> None:
    text = data.decode(errors="replace")
    if sys.stdout.isatty():  # whoever wrote it may know how to drive a terminal
        text = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
    sys.stdout.write(text)
    sys.stdout.flush()
