"""Asking a person at the terminal while the room goes on, and events as JSON lines."""

from __future__ import annotations

import asyncio
import sys
import termios
from typing import TextIO

from org.cli.render import Plain
from org.encoding import encode
from org.events import Event
from org.tooling import ToolCall
from org.wording import clean


class Asking:
    """Puts tool calls before the person at the terminal; only a plain yes is one.

    `view` is what else writes there: the question goes through it, so that nothing is drawn over it.
    """

    view: Plain

    async def __call__(self, participant: str, call: ToolCall) -> bool:
        shown = "\n".join(f"    {key}: {clean(str(value))}" for key, value in call.arguments.items())
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the question is no answer
        self.view.ask(f"{participant} wants to call {call.name}:\n{shown}\nRun it? [y/N] ")
        try:
            answer = await _line()
        finally:
            self.view.answered()
        return answer.strip().lower() in ("y", "yes")


async def _line() -> str:
    """A line from the terminal; cancelling it leaves the terminal alone."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()

    def ready() -> None:
        if not typed.done():
            typed.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, ready)
    try:
        return await typed
    finally:
        loop.remove_reader(sys.stdin)


def print_json(event: Event, out: TextIO) -> None:
    """One event on one line."""
    out.write(encode(event).decode("utf-8", "replace") + "\n")
    out.flush()
