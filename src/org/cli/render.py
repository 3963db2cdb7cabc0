"""A room in a plain terminal: who speaks to whom as it comes, tool calls as one line each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TextIO

from org.chat.flow import Flow
from org.chat.room import Room
from org.cli.style import Style
from org.events import (
    CallFinished,
    CallStarted,
    Delta,
    Event,
    Notice,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from org.messages import Audience, Message, Usage
from org.wording import address, clean, describe

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TICK_S = 0.1


class Plain:
    """An observer of a room that prints.

    `live` is for a terminal, where a line may be drawn over. Of several that speak at once, one is
    shown as it speaks and the others when they are done. With `skip`, nothing is shown before it is
    complete, and messages for which it says yes not at all.
    """

    def __init__(
        self,
        out: TextIO,
        style: Style,
        room: Room,
        *,
        live: bool,
        skip: Callable[[Message], bool] | None = None,
    ) -> None:
        self._out = out
        self._style = style
        self._room = room
        self._live = live
        self._skip = skip
        self._floor = ""  # who is shown as they speak
        self._speech: Flow | None = None
        self._streamed: set[str] = set()  # who was shown in their current turn
        self._doing: dict[str, tuple[str, float]] = {}  # participant -> what, since when
        self._ticker: asyncio.TimerHandle | None = None
        self._drawn = False
        self._at_line_start = True
        self._line_ends = ""
        self._said = False  # something, in this exchange: a blank line goes before what follows
        self._turns = 0
        self._usage = Usage()
        self._began = time.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case Delta():
                self._delta(event)
            case TurnStarted():
                self._turns += 1
                self._do(event.participant, "is thinking")
            case CallStarted():
                self._rest(event.participant)
                self._do(event.participant, f"runs {describe(event.call)}")
            case CallFinished():
                self._call(event)
            case Stepped():
                if event.usage:
                    self._usage += event.usage
                if event.calls:
                    self._rest(event.participant)
            case Posted():
                self._posted(event.message)
            case TurnEnded():
                self._ended(event)
            case Notice():
                hint = f" ({event.hint})" if event.hint else ""
                self._line(self._style.yellow(f"! {clean(event.text)}{clean(hint)}"))
            case Stopped():
                self._stopped(event)
            case _:
                pass

    def begin(self) -> None:
        """An exchange begins: its figures start at zero."""
        self._turns, self._usage, self._began = 0, Usage(), time.monotonic()
        self._said = False

    def close(self) -> None:
        """Leave the terminal as it should be."""
        self._undraw()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if not self._at_line_start:
            self._write("\n")

    def ask(self, question: str) -> None:
        """Show a question. Nothing is drawn while the cursor stands behind it."""
        self._new_line()
        self._write(question)

    def answered(self) -> None:
        """The person has ended the line of the question."""
        self._at_line_start = True

    # -- speech

    def _delta(self, event: Delta) -> None:
        name = event.participant
        if event.kind == "reasoning" or self._skip is not None:
            return
        if not self._floor:
            self._floor = name
        if self._floor != name:
            return
        if self._speech is None:
            state = self._room.state
            self._speech = Flow(name, state.members[name].mode, state.members)
            self._streamed.add(name)
        self._say(self._speech.feed(event.text))

    def _say(self, pieces: list[tuple[Audience | None, str]]) -> None:
        for audience, text in pieces:
            if audience is not None:
                self._head(self._floor, audience)
            if text:
                self._undraw()
                self._speak(clean(text))

    def _rest(self, name: str) -> None:
        """Whoever has the floor has said this part of what they say."""
        if self._floor == name and self._speech is not None:
            self._say(self._speech.finish())
            self._speech = None
            self._new_line()

    def _posted(self, message: Message) -> None:
        if message.role == "person" or (self._skip is not None and self._skip(message)):
            return
        if message.role == "system":
            self._line(self._style.dim(f"room: {clean(message.content)}"))
        elif message.sender not in self._streamed:
            self._head(message.sender, message.audience)
            self._speak(clean(message.content))
            self._new_line()

    def _head(self, name: str, audience: Audience) -> None:
        self._new_line()
        self._undraw()
        if self._said:
            self._write("\n")
        self._said = True
        self._write(f"{self._style.bold(name)} {self._style.dim('-> ' + address(audience))}\n")

    def _ended(self, event: TurnEnded) -> None:
        name = event.participant
        self._rest(name)
        self._doing.pop(name, None)
        self._streamed.discard(name)
        if self._floor == name:
            self._floor = ""
        if event.status == "passed":
            self._line(self._style.dim(f"{name} passes"))
        elif event.status == "interrupted":
            self._line(self._style.yellow(f"{name} was interrupted"))

    # -- tools and figures

    def _call(self, event: CallFinished) -> None:
        self._rest(event.participant)
        self._do(event.participant, "is thinking")
        result, style = event.result, self._style
        parts = [f"{result.seconds:.1f} s"]
        if result.exit_code is not None:
            parts.append(f"exit {result.exit_code}")
        if event.call.origin.kind == "embedded":
            parts.append(f"written as {event.call.origin.grammar}")
        end = style.dim(" · " + " · ".join(parts))
        if result.error is not None and result.error.kind != "failed":
            end += style.red(f" · {result.error.kind}: {clean(result.error.message)[:160]}")
        elif result.error is not None:
            end += style.red(" · failed")
        self._line(f"  {style.dim(event.participant)} {style.cyan(describe(event.call))}{end}")

    def _stopped(self, event: Stopped) -> None:
        seconds = time.monotonic() - self._began
        figures = f"{self._turns} turn{'s' * (self._turns != 1)} · {seconds:.1f} s"
        if self._usage.total:
            figures += f" · {self._usage.total:,} tokens"
        if event.reason in ("quiet", "passed"):
            self._line(self._style.dim(f"({figures})"))
        else:
            detail = f": {clean(event.detail)}" if event.detail else ""
            self._line(
                self._style.yellow(f"stopped ({event.reason}{detail})") + self._style.dim(f" · {figures}")
            )

    # -- the terminal

    def _line(self, text: str) -> None:
        self._new_line()
        self._undraw()
        self._write(text + "\n")

    def _speak(self, text: str) -> None:
        """Write speech; its ends of line wait until something follows them in the same piece."""
        text = self._line_ends + text
        said = text.rstrip("\n")
        self._line_ends = text[len(said) :] if said or not self._at_line_start else ""
        if said:
            self._write(said)

    def _new_line(self) -> None:
        self._undraw()
        self._line_ends = ""
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._at_line_start = text.endswith("\n")

    def _do(self, name: str, what: str) -> None:
        self._doing[name] = (what, time.monotonic())
        if self._live and self._ticker is None:
            self._tick()

    def _tick(self) -> None:
        """Show what is waited for, below what was said, when nothing is being said."""
        self._ticker = None
        if not self._doing:
            self._undraw()
            return
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        if not self._at_line_start:
            return
        now = time.monotonic()
        mark = SPINNER[int(now / TICK_S) % len(SPINNER)]
        doing = ", ".join(f"{name} {what} {now - since:.0f} s" for name, (what, since) in self._doing.items())
        self._out.write(f"\r\x1b[K{self._style.dim(f'{mark} {doing}'[:100])}")
        self._out.flush()
        self._drawn = True

    def _undraw(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._drawn = False
