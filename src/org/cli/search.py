"""`org search`: where words occur, in the messages and tool outputs of all rooms."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from org.cli.options import Parser
from org.cli.style import Style
from org.config import find_places
from org.errors import UsageError
from org.journal import INDEX, Found, search
from org.wording import ago, one_line

JSON_VERSION = 1


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org search",
        description="Find messages and tool outputs that hold all the words, in any order, in all rooms.",
    )
    made.add_argument("words", metavar="WORD", nargs="+")
    made.add_argument("--limit", metavar="N", type=int, default=20, help="at most so many; default: 20")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: list[str]) -> int:
    """Print the best hits first. Raises `UsageError` for words without a letter or digit."""
    args = parser().parse_args(argv)
    if args.limit < 1:
        raise UsageError(f"--limit: expected a number above 0, not {args.limit}")
    places = find_places(Path(), os.environ)
    words = " ".join(args.words)
    found = search(places.rooms, places.cache / INDEX, words, args.limit)
    if args.json:
        print(as_json(found))
        return 0
    for room, problem in found.skipped:
        print(f"org: not searched: {room}: {one_line(problem, 200)}", file=sys.stderr)
    if found.hits:
        print(as_text(found, time.time(), Style.for_stream(sys.stdout, os.environ)))
    else:
        print(f"nothing found: {one_line(words, 200)}", file=sys.stderr)
    return 0


def as_json(found: Found) -> str:
    document = {
        "version": JSON_VERSION,
        "hits": [dataclasses.asdict(hit) for hit in found.hits],
        "skipped": [{"room": room, "problem": problem} for room, problem in found.skipped],
    }
    return json.dumps(document, indent=1)


def as_text(found: Found, now: float, style: Style) -> str:
    return "\n".join(
        f"{style.bold(hit.room)}  {style.cyan(one_line(hit.sender, 40))}  {style.dim(ago(hit.at, now))}\n"
        f"  {one_line(hit.snippet, 400)}"
        for hit in found.hits
    )
