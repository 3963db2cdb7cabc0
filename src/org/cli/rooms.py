"""`org rooms`: the rooms there are; `org rooms rm` removes some."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from org.cli.options import Parser
from org.cli.style import Style, table
from org.config import find_places
from org.errors import Busy, Denied, UsageError
from org.journal import RoomInfo, list_rooms, remove_room, room_folder
from org.wording import ago, clean, one_line

JSON_VERSION = 1


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org rooms",
        usage="org rooms [-h] [--json]\n       org rooms rm [-y] ROOM...",
        description="List the rooms there are, the one last used first, or remove some.",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    verbs = made.add_subparsers(
        prog="org rooms", dest="verb", metavar="rm", title="also", help="remove rooms"
    )
    rm = verbs.add_parser("rm", description="Remove rooms with all they hold.")
    rm.add_argument("rooms", metavar="ROOM", nargs="+", help="its id, as `org rooms` lists it")
    rm.add_argument("-y", "--yes", action="store_true", help="do not ask")
    return made


def run(argv: list[str]) -> int:
    """Print the list, or remove. Raises `UsageError`, `Busy` and `Denied`; then nothing is removed."""
    args = parser().parse_args(argv)
    folder = find_places(Path(), os.environ).rooms
    if args.verb == "rm":
        return _remove(folder, list(dict.fromkeys(args.rooms)), yes=args.yes)
    rooms = list_rooms(folder)
    if args.json:
        print(as_json(rooms))
    else:
        print(as_text(rooms, time.time(), Style.for_stream(sys.stdout, os.environ)))
    return 0


def as_json(rooms: Sequence[RoomInfo]) -> str:
    listed = [
        {
            "id": room.id,
            "created": room.created,
            "last": room.last,
            "messages": room.messages,
            "participants": room.participants,
            "busy": room.busy or None,
            "problem": room.problem or None,
        }
        for room in rooms
    ]
    return json.dumps({"version": JSON_VERSION, "rooms": listed}, indent=1)


def as_text(rooms: Sequence[RoomInfo], now: float, style: Style) -> str:
    if not rooms:
        return "No rooms yet. `org` opens one."
    known = [room for room in rooms if not room.problem]
    head = ["ROOM", "CREATED", "LAST USED", "MESSAGES", "PARTICIPANTS"]
    rows = [
        [
            room.id,
            ago(room.created, now),
            ago(room.last, now),
            str(room.messages),
            one_line(" ".join(room.participants), 60),
        ]
        for room in known
    ]
    if any(room.busy for room in known):
        head.append("OPEN IN")
        rows = [[*row, clean(room.busy)] for row, room in zip(rows, known, strict=True)]
    lines = [table(head, rows, style)] if rows else []
    lines += [style.red(f"{room.id} cannot be read: {clean(room.problem)}") for room in rooms if room.problem]
    if known:
        lines += [
            "",
            style.dim(
                f"`org show {known[0].id}` prints one, `org chat --resume {known[0].id}` goes on in it"
            ),
        ]
    return "\n".join(lines)


def _remove(folder: Path, ids: list[str], *, yes: bool) -> int:
    there = {room.id: room for room in list_rooms(folder)}
    for name in ids:
        if not room_folder(folder, name).is_dir():
            raise UsageError(f"no such room: {name}", "`org rooms` lists them")
        if name in there and there[name].busy:
            raise Busy(f"room `{name}` is open elsewhere: {there[name].busy}", "leave it there first")
    if not yes and not _agreed([there.get(name, RoomInfo(name)) for name in ids]):
        print("nothing was removed")
        return 0
    for name in ids:
        remove_room(folder, name)
        print(f"removed: {name}")
    return 0


def _agreed(rooms: Sequence[RoomInfo]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Denied("rooms are only removed when somebody says yes", "say it with `-y`")
    for room in rooms:
        print(f"  {room.id}: {room.messages} messages, and the files of its workspace", file=sys.stderr)
    print("Remove for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
