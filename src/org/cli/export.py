"""`org export`: a room as a file to keep or to hand on."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from org.cli.options import Parser
from org.config import find_places
from org.errors import EnvironmentProblem, UsageError
from org.journal import read_events, room_folder
from org.transcript import to_json_lines, to_markdown


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org export", description="Write a room as Markdown, or as JSON with one event a line."
    )
    made.add_argument("room", metavar="ROOM", help="its id, as `org rooms` lists it")
    made.add_argument("--format", choices=("md", "json"), default="md", help="default: md")
    made.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    made.add_argument("--force", action="store_true", help="overwrite FILE when it is there")
    return made


def run(argv: list[str]) -> int:
    """Write the events that count. Raises `UsageError` when there is no such room, or FILE is there."""
    args = parser().parse_args(argv)
    folder = find_places(Path(), os.environ).rooms
    events = [entry.event for entry in read_events(room_folder(folder, args.room))]
    if args.format == "md":
        text = to_markdown(events, args.room)
    else:
        text = "".join(f"{line}\n" for line in to_json_lines(events))
    if args.output is None:
        sys.stdout.write(text)
        return 0
    _write(args.output, text, force=args.force)
    print(f"written: {args.output}", file=sys.stderr)
    return 0


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"there is one already: {path}", "`--force` overwrites it") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be written: {error.strerror}") from error
