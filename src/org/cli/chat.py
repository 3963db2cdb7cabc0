"""`org chat`: talk in a room, on a full screen or line by line."""

from __future__ import annotations

import argparse
import asyncio
import os
import readline
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from org.cli.choose import choose_model
from org.cli.options import Parser, add_room_options, settings_from
from org.cli.render import Plain
from org.cli.run import exit_code
from org.cli.style import Style
from org.cli.terminal import Asking as PlainAsking
from org.cli.terminal import print_json
from org.commands import COMMANDS, Quit, command
from org.compose.opening import Opening
from org.compose.rooms import open_session, rooms_of
from org.compose.session import Session
from org.config import Settings
from org.errors import ExitCode, OrgError, UsageError
from org.events import Stopped
from org.journal import list_rooms
from org.tui import Asking, run_app, run_attached
from org.wording import clean

T = TypeVar("T")

LATEST = ""


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org chat", description="Open a room and talk in it.")
    made.add_argument("--room", metavar="NAME", default="", help="the name of the new room")
    made.add_argument("-r", "--resume", metavar="ROOM", nargs="?", const=LATEST,
                      help="go on in a room (without a name: the newest)")  # fmt: skip
    made.add_argument("--attach", metavar="URL", help="join a room that `org serve` runs: the one named by "
                      "--room, else the one last used")  # fmt: skip
    made.add_argument("--plain", action="store_true", help="line by line; so it is without a terminal, or on "
                      "a dumb one, and with --debug")  # fmt: skip
    add_room_options(made)
    return made


def run(argv: list[str]) -> int:
    """Talk until the person leaves; the exit code tells how the last exchange ended."""
    args = parser().parse_args(argv)
    settings = settings_from(args)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    full = interactive and not args.plain and not args.debug and os.environ.get("TERM", "dumb") != "dumb"
    asking = Asking()
    at_prompt = PlainAsking()
    if args.attach:
        if not full or args.resume is not None:
            raise UsageError("`--attach` takes a full screen, and `--room` for the room's name")
        return asyncio.run(run_attached(args.attach, args.room, settings))
    for warning in settings.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    opening = Opening(
        room=_room(args, settings),
        resume=args.resume is not None,
        folder=args.folder and args.folder.resolve(),
        ask=(asking if full else at_prompt) if interactive else None,
        unsafe_local=args.unsafe_local,
        progress=lambda text: print(f"{text} …", file=sys.stderr),
    )
    with asyncio.Runner() as runner:
        if not opening.resume:
            settings = replace(settings, model=runner.run(choose_model(settings, interactive=interactive)))
        if full:
            return runner.run(_full_screen(settings, opening, asking))
        conversation = Conversation(runner, settings, opening, at_prompt, debug=args.debug)
        return conversation.run(interactive=interactive)


def _room(args: argparse.Namespace, settings: Settings) -> str:
    if args.resume is None:
        return str(args.room)
    if args.resume != LATEST:
        return str(args.resume)
    rooms = list_rooms(rooms_of(settings))
    if not rooms:
        raise UsageError("there is no room to go on in", "`org chat` opens one")
    return max(rooms, key=lambda room: room.last or 0).id


async def _full_screen(settings: Settings, opening: Opening, asking: Asking) -> int:
    async with open_session(settings, opening) as session:
        code = await run_app(session, asking)
        if session.room.transcript:
            print(f"`org chat --resume {session.id}` goes on here")
    return code


class Conversation:
    """One person at a prompt. The event loop runs while the room works, and rests at the prompt."""

    def __init__(
        self,
        runner: asyncio.Runner,
        settings: Settings,
        opening: Opening,
        asking: PlainAsking,
        *,
        debug: bool,
    ) -> None:
        self._runner = runner
        self._asking = asking
        self._settings = settings
        self._opening = opening
        self._debug = debug
        self._stack = AsyncExitStack()
        self._quitting = False
        self._stopped: Stopped | None = None

    def run(self, *, interactive: bool) -> int:
        self._session = session = self._do(
            self._stack.enter_async_context(open_session(self._settings, self._opening))
        )
        style = Style.for_stream(sys.stdout, os.environ)
        room = session.room
        self._view = Plain(
            sys.stdout, style, room, live=interactive and Style.is_live(sys.stdout, os.environ)
        )
        self._asking.view = self._view
        room.observe(self._view)
        if self._debug:
            room.observe(lambda event: print_json(event, sys.stderr))
        try:
            if interactive:
                self._greet(style)
                with _History(session.settings.places.state / "history", session):
                    self._talk()
            else:
                for line in sys.stdin:
                    self._take(line.rstrip("\n"))
        except Quit:
            pass
        finally:
            self._view.close()
            self._do(self._stack.aclose())
        if interactive and session.room.transcript:
            print(style.dim(f"`org chat --resume {session.id}` goes on here"))
        return exit_code(self._stopped) if not interactive else ExitCode.DONE

    def _greet(self, style: Style) -> None:
        session = self._session
        who = ", ".join(
            f"{style.bold(p.name)} ({p.profile}, {p.model})"
            for p in (m.joined for m in session.room.state.members.values())
            if p.kind == "model"
        )
        print(f"{style.bold(session.id)} · {who}")
        print(style.dim(f"commands run {session.place}; files are in {session.files_in}"))
        print(style.dim("everyone hears you; begin with @name for one alone · /help · Ctrl-C stops a turn"))
        for message in session.room.transcript[-6:]:
            print(style.dim(f"{message.sender}: {message.content[:200]}"))

    def _talk(self) -> None:
        warned = False
        while True:
            try:
                text = _read(f"{self._settings.name}> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if warned:
                    return
                warned = True
                print("(Ctrl-C again, or Ctrl-D, to leave)")
                continue
            warned = False
            self._take(text)

    def _take(self, text: str) -> None:
        """One line of the person's: a command, or something to say."""
        if not text.strip():
            return
        try:
            done = self._do(command(self._session, text.strip()))
            if done is not None:
                print(done) if done else None
                return
            self._view.begin()
            self._stopped = self._do(self._session.room.say(self._settings.name, text))
        except OrgError as error:
            self._view.close()
            hint = f"\n     {error.hint}" if error.hint else ""
            print(clean(f"org: {error.message}{hint}"), file=sys.stderr)
        except KeyboardInterrupt:
            self._view.close()
            if self._quitting:
                raise
            print("stopped")

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the event loop for this; Ctrl-C interrupts the room, twice leaves it."""
        return self._runner.run(self._interruptible(work))

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        presses = 0

        def press() -> None:
            nonlocal presses
            presses += 1
            session = getattr(self, "_session", None)
            self._quitting = presses > 1
            if self._quitting or session is None or not session.room.interrupt():
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, press)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)


def _read(prompt: str) -> str:
    r"""A line, or several that end in `\` but the last. Raises `EOFError`."""
    text = input(prompt)
    while text.endswith("\\"):
        text = text[:-1] + "\n" + input("… ")
    return text


class _History:
    """Readline with the person's own history file and completion of names and commands."""

    def __init__(self, path: Path, session: Session) -> None:
        self._path = path
        self._session = session

    def __enter__(self) -> None:
        with suppress(OSError):
            readline.read_history_file(self._path)
        readline.set_history_length(2000)
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._complete)
        readline.parse_and_bind("tab: complete")

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            readline.write_history_file(self._path)
            self._path.chmod(0o600)

    def _complete(self, text: str, state: int) -> str | None:
        words = [f"@{name}" for name in (*self._session.room.names, "group")] + [
            f"/{name}" for name in COMMANDS
        ]
        matches = [word + " " for word in words if text and word.startswith(text)]
        return matches[state] if state < len(matches) else None
