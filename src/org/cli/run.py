"""`org run`: say one thing, wait for the answers, print them."""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from org.chat.room import Room
from org.cli.choose import choose_model
from org.cli.options import Parser, add_room_options, settings_from
from org.cli.render import Plain
from org.cli.style import Style
from org.cli.terminal import Asking, print_json
from org.compose.opening import Opening
from org.compose.rooms import open_session
from org.compose.session import Session
from org.config import Settings
from org.errors import ExitCode, OrgError, UsageError
from org.events import Event, Invited, Posted, Stopped, StopReason
from org.messages import Message

PIPE_PATIENCE_S = 3.0
"""How long a pipe beside words may stay silent: whoever started us may hold it open for ever."""

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
        "to standard output. What is piped in is added to the words; beside words, a pipe in which "
        f"nothing comes within {PIPE_PATIENCE_S:g} s is left alone. Without words it is read to its end. "
        "Exit code 1: it failed, or nobody was addressed.",
    )
    made.add_argument("words", nargs="*", metavar="TEXT")
    made.add_argument("--room", metavar="NAME", default="", help="the name of the new room")
    made.add_argument("-r", "--resume", metavar="ROOM", help="say it in this room")
    made.add_argument("--json", action="store_true", help="print every event, one JSON object a line")
    add_room_options(made)
    return made


def run(argv: list[str]) -> int:
    """The exit code tells how it ended; standard output carries what was said to everyone or to you."""
    _open_missing_streams()
    args = parser().parse_args(argv)
    if args.resume and args.members:
        raise UsageError(
            "`--with` is for a new room: one that is gone on in has its own roster",
            f"`org chat --resume {args.resume}`, and there `/invite {args.members[0]}`",
        )
    settings = settings_from(args)
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    text = " ".join(args.words)
    text = "\n\n".join(part for part in (text, _piped(beside=text).rstrip()) if part.strip())
    if not text:
        raise UsageError("there is nothing to say", 'write it behind: `org run "@calc what is 2**100?"`')
    asking = Asking()
    opening = Opening(
        room=args.resume or args.room,
        resume=bool(args.resume),
        folder=args.folder and args.folder.resolve(),
        ask=asking if sys.stdin.isatty() and sys.stderr.isatty() else None,
        unsafe_local=args.unsafe_local,
        progress=lambda note: print(f"{note} …", file=sys.stderr),
    )
    try:
        return asyncio.run(_say(settings, opening, asking, text, as_json=args.json, debug=args.debug))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _open_missing_streams() -> None:
    """After `<&-`, `>&-` or `2>&-` there is no such stream: put an empty one in its place, whose number
    no file that is opened later can take."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            empty = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(empty, mode, encoding="utf-8", closefd=False))


def _piped(*, beside: str) -> str:
    """What standard input has to add to the words `beside` it."""
    if sys.stdin.isatty():
        return ""
    if beside.strip():
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            if not select.select([sys.stdin], [], [], PIPE_PATIENCE_S)[0]:
                sys.stderr.write("warning: nothing came through the pipe yet: going on without it\n")
                return ""
        elif not stat.S_ISREG(mode):
            return ""
    return sys.stdin.read()


class Interrupts:
    """Within the block, the first Ctrl-C stops the exchange of `room`; without one that runs, or
    pressed again, it cancels the task."""

    def __init__(self) -> None:
        self.room: Room | None = None
        self._pressed = False

    def __enter__(self) -> Interrupts:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._loop.add_signal_handler(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.remove_signal_handler(signal.SIGINT)

    def _press(self) -> None:
        stopping = not self._pressed and self.room is not None and self.room.interrupt()
        self._pressed = True
        if not stopping and self._task is not None:
            self._task.cancel()


async def _say(
    settings: Settings, opening: Opening, asking: Asking, text: str, *, as_json: bool, debug: bool
) -> ExitCode:
    with Interrupts() as interrupts:
        if not opening.resume:
            model = await choose_model(settings, interactive=opening.ask is not None)
            settings = replace(settings, model=model)
        async with open_session(settings, opening) as session, AsyncExitStack() as stack:
            room = interrupts.room = session.room
            if session.sandbox is None:
                sys.stderr.write(f"warning: commands run {session.place}\n")
            elif not as_json:
                sys.stderr.write(f"commands run {session.place}\n")
            view = asking.view = _view(session)
            if as_json:
                room.observe(lambda event: print_json(event, sys.stdout))
            else:
                stack.callback(view.close)
                room.observe(view)
                if not sys.stdout.isatty():
                    room.observe(lambda event: _answer(event, settings.name))
            if debug and not as_json:
                room.observe(lambda event: print_json(event, sys.stderr))
            before = len(room.events)
            stopped = await room.say(settings.name, text)
            if stopped.reason == "quiet" and _is_unheard(room.events[before:]):
                names = " ".join(f"@{name}" for name in room.participants) or "nobody"
                raise OrgError("nobody was addressed, so nobody answered", f"here to be addressed: {names}")
    return exit_code(stopped)


def _is_unheard(events: Sequence[Event]) -> bool:
    """Whether something was said to others than files and nobody's turn came."""
    said = any(isinstance(event, Posted) and event.message.audience.kind != "file" for event in events)
    return said and not any(isinstance(event, Invited) for event in events)


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
