"""`org show`: what happened in a room, to read in a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from org.cli.options import Parser
from org.cli.style import Style
from org.config import find_places
from org.events import (
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Joined,
    Left,
    ModeChanged,
    ModelChanged,
    Posted,
    Stopped,
    TurnEnded,
)
from org.journal import read_events, room_folder
from org.messages import Audience, Message
from org.transcript import said_once, to_json_lines
from org.wording import clean, describe, one_line

# Everything that somebody wrote stands behind a margin, so that no text can pass for a heading of ours.
MARGIN = "  "


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org show", description="Print what happened in a room.")
    made.add_argument("room", metavar="ROOM", help="its id, as `org rooms` lists it")
    made.add_argument("--tools", action="store_true", help="tool calls with all they were given and gave")
    made.add_argument("--json", action="store_true", help="print one event a line, as JSON")
    return made


def run(argv: list[str]) -> int:
    """Print the events that count. Raises `UsageError` when there is no such room."""
    args = parser().parse_args(argv)
    folder = find_places(Path(), os.environ).rooms
    events = [entry.event for entry in read_events(room_folder(folder, args.room))]
    if args.json:
        lines = to_json_lines(events)
    else:
        lines = as_lines(events, Style.for_stream(sys.stdout, os.environ), tools=args.tools)
    for line in lines:
        print(line)
    return 0


def as_lines(events: Iterable[Committed], style: Style, *, tools: bool = False) -> Iterator[str]:
    """The events that count as lines of a terminal; times are of this machine's time zone."""
    day, before = "", None
    for event in said_once(events):
        block = list(_block(event, style, tools=tools))
        if not block:
            continue
        if isinstance(event, Posted) and day != (day := f"{_local(event.message):%A, %Y-%m-%d}"):
            block.insert(0, style.dim(f"-- {day} --"))
        kind = _kind(event)
        if before and (kind == "message" or kind != before):
            yield ""
        before = kind
        yield from block


def _kind(event: Committed) -> str:
    """Messages stand apart; calls in a row belong together, and so do remarks."""
    if isinstance(event, Posted) and event.message.role != "system":
        return "message"
    return "call" if isinstance(event, CallFinished) else "remark"


def _block(event: Committed, style: Style, *, tools: bool) -> Iterator[str]:
    if isinstance(event, Posted):
        yield from _message(event.message, style)
    elif isinstance(event, CallFinished):
        yield from _call(event, style, whole=tools)
    elif isinstance(event, TurnEnded):
        yield from _ended(event, style)
    elif isinstance(event, Stopped):
        text = f"-- stopped ({event.reason}{_after(event.detail)})"
        yield style.dim(text) if event.reason in ("quiet", "passed") else style.yellow(text)
    elif text := _remark(event):
        yield style.dim(text)


def _message(message: Message, style: Style) -> Iterator[str]:
    if message.role == "system":
        yield style.dim(f"room: {_word(message.content)}")
        return
    time = style.dim(f"{_local(message):%H:%M}")
    yield f"{style.bold(_word(message.sender))} {_arrow(message.audience, style)}  {time}"
    yield from _margin(message.content)


def _local(message: Message) -> datetime:
    return datetime.fromtimestamp(message.at)


def _arrow(audience: Audience, style: Style) -> str:
    if audience.kind == "direct":
        return style.yellow(f"-> {_addressee(audience)} (private)")
    return style.dim(f"-> {_addressee(audience)}")


def _addressee(audience: Audience) -> str:
    if audience.kind == "direct":
        return " ".join(f"@{_word(name)}" for name in audience.names)
    return f"#file:{_word(audience.path)}" if audience.kind == "file" else "everyone"


def _call(event: CallFinished, style: Style, *, whole: bool) -> Iterator[str]:
    result = event.result
    figures = f"{result.seconds:.1f} s"
    if result.exit_code is not None:
        figures += f" · exit {result.exit_code}"
    end = style.dim(f" · {figures}")
    if result.error is not None:
        end += style.red(f" · {result.error.kind}: {one_line(result.error.message, 160)}")
    name = style.dim(_word(event.participant))
    if not whole:
        yield f"* {name} {style.cyan(describe(event.call))}{end}"
        return
    yield f"* {name} {style.cyan(_word(event.call.name))}{end}"
    for key, value in event.call.arguments.items():
        yield f"{MARGIN}{style.dim(f'{_word(key)}:')}"
        yield from _margin(str(value), MARGIN * 2)
    if result.output:
        yield f"{MARGIN}{style.dim('output:')}"
        yield from _margin(result.output, MARGIN * 2)


def _ended(event: TurnEnded, style: Style) -> Iterator[str]:
    name, detail = _word(event.participant), _after(event.detail)
    if event.status == "passed":
        yield style.dim(f"{name} passes")
    elif event.status == "interrupted":
        yield style.yellow(f"{name} was interrupted{detail}")
    elif event.status == "failed":
        yield style.red(f"{name}'s turn failed{detail}")
    if event.text and event.status != "answered":
        yield from _margin(event.text)


def _remark(event: Committed) -> str:
    match event:
        case Joined(name, _, profile, model):
            traits = ", ".join(_word(trait) for trait in (profile, model) if trait)
            return f"{_word(name)} entered" + (f" ({traits})" if traits else "")
        case Left(name):
            return f"{_word(name)} left"
        case ModeChanged(name, audience):
            return f"{_word(name)} now speaks to {_addressee(audience)}"
        case ModelChanged(name, model):
            return f"{_word(name)} now speaks through {_word(model)}"
        case Compacted(name, dropped):
            if not event.summarised:
                return f"{_word(name)} no longer sees its first {dropped} entries, and no summary of them"
            return f"{_word(name)} now sees a summary of its first {dropped} entries"
        case Cleared():
            return "everybody's view starts afresh"
        case _:
            return ""


def _margin(text: str, margin: str = MARGIN) -> Iterator[str]:
    for line in clean(text).strip("\n").split("\n"):
        yield f"{margin}{line}" if line.strip() else ""


def _word(text: str) -> str:
    return one_line(text, 200)


def _after(detail: str) -> str:
    return f": {_word(detail)}" if detail else ""
