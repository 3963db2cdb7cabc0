"""`org run`: say one thing, wait for the answers, print them."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace

from org.cli.choose import choose_model
from org.cli.options import Parser, add_room_options, settings_from
from org.cli.render import Plain
from org.cli.style import Style
from org.cli.terminal import Asking, print_json
from org.compose import Opening, Session, open_session
from org.config import Settings
from org.errors import ExitCode, UsageError
from org.events import Event, Posted, Stopped, StopReason
from org.messages import Message

CODES: dict[StopReason, ExitCode] = {
    "quiet": ExitCode.DONE,
    "passed": ExitCode.DONE,
    "turns": ExitCode.LIMIT,
    "seconds": ExitCode.LIMIT,
    "tokens": ExitCode.LIMIT,
    "tools": ExitCode.LIMIT,
    "stagnation": ExitCode.STAGNATION,
    "interrupted": ExitCode.INTERRUPTED,
    "failed": ExitCode.FAILED,
    "denied": ExitCode.DENIED,
}


def exit_code(stopped: Stopped | None) -> ExitCode:
    """How an exchange that ended so ends a command."""
    return CODES[stopped.reason] if stopped else ExitCode.DONE


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org run",
        description="Say one thing in a new room (or, with -r, in one there is) and print the answers "
        "to standard output. What is piped in is added to the words.",
    )
    made.add_argument("words", nargs="*", metavar="TEXT")
    made.add_argument("--room", metavar="NAME", default="", help="the name of the new room")
    made.add_argument("-r", "--resume", metavar="ROOM", help="say it in this room")
    made.add_argument("--json", action="store_true", help="print every event, one JSON object a line")
    add_room_options(made)
    return made


def run(argv: list[str]) -> int:
    """The exit code tells how it ended; standard output carries what was said to everyone or to you."""
    args = parser().parse_args(argv)
    settings = settings_from(args)
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    text = " ".join(args.words)
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    text = "\n\n".join(part for part in (text, piped.rstrip()) if part.strip())
    if not text:
        raise UsageError("there is nothing to say", 'write it behind: `org run "@calc what is 2**100?"`')
    asking = Asking()
    opening = Opening(
        room=args.resume or args.room,
        resume=bool(args.resume),
        folder=args.folder and args.folder.resolve(),
        ask=asking if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty() else None,
        unsafe_local=args.unsafe_local,
        progress=lambda note: print(f"{note} …", file=sys.stderr),
    )
    return asyncio.run(_say(settings, opening, asking, text, as_json=args.json, debug=args.debug))


async def _say(
    settings: Settings, opening: Opening, asking: Asking, text: str, *, as_json: bool, debug: bool
) -> ExitCode:
    if not opening.resume:
        settings = replace(settings, model=await choose_model(settings, interactive=opening.ask is not None))
    async with open_session(settings, opening) as session:
        if session.sandbox is None:
            sys.stderr.write(f"warning: commands run {session.place}\n")
        elif not as_json:
            sys.stderr.write(f"commands run {session.place}\n")
        elif not as_json:
            sys.stderr.write(f"commands run {session.place}\n")
        with ExitStack() as stack:
            view = asking.view = _view(session)
            if as_json:
                session.room.observe(lambda event: print_json(event, sys.stdout))
            else:
                stack.callback(view.close)
                session.room.observe(view)
                if not sys.stdout.isatty():
                    session.room.observe(lambda event: _answer(event, settings.name))
            if debug and not as_json:
                session.room.observe(lambda event: print_json(event, sys.stderr))
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, session.room.interrupt)
            stack.callback(loop.remove_signal_handler, signal.SIGINT)
            stopped = await session.room.say(settings.name, text)
    return exit_code(stopped)


def _view(session: Session) -> Plain:
    """What happens as it happens: on a terminal's standard output together with the answers, else on
    standard error without them."""
    out = sys.stdout if sys.stdout.isatty() else sys.stderr
    style = Style.for_stream(out, os.environ)
    room, person = session.room, session.settings.name
    if out is sys.stdout:
        return Plain(out, style, room, live=Style.is_live(out, os.environ))
    live = Style.is_live(out, os.environ)
    return Plain(out, style, room, live=live, skip=lambda message: _is_for(message, person))


def _is_for(message: Message, person: str) -> bool:
    return message.role == "model" and message.audience.includes(person)


def _answer(event: Event, person: str) -> None:
    if isinstance(event, Posted) and _is_for(event.message, person):
        print(event.message.content, flush=True)
