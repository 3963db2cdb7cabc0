"""Blocks as rows of a terminal. Pure.

Whatever others wrote is cleaned of control characters here, and never read as markup of the screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from org.messages import Audience
from org.tooling import ToolResult
from org.tui.markdown import Look, lines_of, rows_of
from org.tui.scene import Block, Live
from org.wording import address, clean, describe, duration, one_line

LONGEST_TEXT = 30_000
"""Characters of one block that are shown; the middle of a longer one is left out."""

KEPT_ROWS = 4000
"""Rows of what somebody is saying that are kept."""

BAR = "▎ "
INDENT = 2
MARKS = {True: "▸", False: "▾"}
OUTPUT_ROWS = 3
THOUGHT_ROWS = 8


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a theme. `names` are those of participants, in the order in which they came."""

    names: Sequence[Style]
    person: Style
    text: Style
    dim: Style
    code: Style
    private: Style
    warning: Style
    error: Style
    good: Style

    def look(self) -> Look:
        return Look(code=self.code, head=Style(bold=True, underline=True), dim=self.dim)


class Painter:
    """Paints blocks for one width. `voices` are all who have a colour, people not among them."""

    def __init__(self, palette: Palette, width: int, voices: Sequence[str]) -> None:
        self.palette = palette
        self.width = width
        self.voices = voices

    def block(self, block: Block) -> list[Strip]:
        """The rows of a settled block, with a blank one before a message."""
        match block.kind:
            case "message":
                return self._message(block)
            case "call":
                return self._call(block)
            case "thought":
                return self._thought(block)
            case "output":
                return self._output(block)
            case "problem":
                return self._line(f"! {block.title}", self.palette.warning)
            case "over":
                return [Strip.blank(0), *self._line(f"── {block.title} ──", self.palette.dim)]
            case "notice":
                return self._line(block.title, self.palette.dim)

    def voice(self, name: str) -> Style:
        """The colour of a participant; it stays the same as others come and go."""
        if name not in self.voices:
            return self.palette.person
        return self.palette.names[self.voices.index(name) % len(self.palette.names)]

    def heading(self, who: str, audience: Audience | None, at: float = 0.0) -> Strip:
        """Who speaks to whom, marked when it is not for everyone, and when."""
        made = Text()
        made.append(BAR, self.voice(who))
        made.append(one_line(who, 40), self.voice(who) + Style(bold=True))
        if audience is not None:
            made.append(" → ", self.palette.dim)
            private = audience.kind != "group"
            made.append(
                one_line(address(audience), 60), self.palette.private if private else self.palette.dim
            )
            if private:
                word = "private" if audience.kind == "direct" else "file"
                made.append("  ")
                made.append(f" {word} ", self.palette.private + Style(reverse=True))
        clock = datetime.fromtimestamp(at).strftime("%H:%M") if at else ""
        made.truncate(self.width - len(clock) - 1, overflow="ellipsis")
        made.pad_right(self.width - len(clock) - made.cell_len)
        made.append(clock, self.palette.dim)
        return _strip(made)

    # -- kinds

    def _message(self, block: Block) -> list[Strip]:
        text, bar = _bounded(clean(block.text)), Text(BAR, self.voice(block.who))
        if block.role == "system":
            to = "" if block.audience is None else f" → {address(block.audience)}"
            return self._line(f"{block.who}{to}: {text}", self.palette.dim)
        head = self.heading(block.who, block.audience, block.at)
        if block.role == "person":
            lines = [Text(row) for line in text.split("\n") for row in rows_of(line.expandtabs(4), self.room)]
        else:
            lines = lines_of(text, self.room, self.palette.look())
        return [Strip.blank(0), head, *self._beside(bar, lines)]

    def _call(self, block: Block) -> list[Strip]:
        event = block.call
        assert event is not None
        call, result = event.call, event.result
        made = Text(f"  {MARKS[bool(block.folded)]} ", self.palette.dim)
        made.append(one_line(block.who, 24), self.voice(block.who))
        made.append(f" {describe(call)}", self.palette.code)
        ending, style = self._ending(result)
        figures = Text(f" · {duration(result.seconds)}", self.palette.dim)
        if call.origin.kind == "embedded":
            figures.append(f" · written as {one_line(call.origin.grammar, 20)}")
        figures.append(f" · {ending}" if ending else "", style)
        rows = self._fitted(made, figures)
        if block.folded:
            return rows
        for name, value in call.arguments.items():
            rows += self._inset(f"{name}: {value}", self.palette.code)
        if result.error is not None and result.error.message:
            rows += self._inset(result.error.message, self.palette.error)
        output = result.output or ("" if result.error else "(no output)")
        return rows + self._inset(output, self.palette.text) if output else rows

    def _ending(self, result: ToolResult) -> tuple[str, Style]:
        if result.error is not None and result.error.kind != "failed":
            return result.error.kind.replace("_", " "), self.palette.error
        if result.exit_code is not None:
            return f"exit {result.exit_code}", self.palette.error if result.exit_code else self.palette.good
        return ("failed", self.palette.error) if result.error else ("", self.palette.dim)

    def _thought(self, block: Block) -> list[Strip]:
        head = Text(f"  {MARKS[bool(block.folded)]} ", self.palette.dim)
        head.append(one_line(block.who, 24), self.voice(block.who))
        head.append(f" {block.title}", self.palette.dim + Style(italic=True))
        rows = self._fitted(head, Text(f" · {len(block.text):,} characters", self.palette.dim))
        if not block.folded:
            rows += self._inset(block.text, self.palette.dim + Style(italic=True))
        return rows

    def _output(self, block: Block) -> list[Strip]:
        rows = self._line(block.title, self.palette.dim) if block.title else []
        return [Strip.blank(0), *rows, *self._inset(block.text, self.palette.text)]

    # -- somebody's turn

    def live_head(self, live: Live) -> list[Strip]:
        """What stands above the speech: a heading until there is one, and what is thought."""
        rows = [Strip.blank(0)]
        if not live.said or live.thought_size:
            rows.append(self.heading(live.who, None))
        if live.thought_size:
            mark = MARKS[bool(live.folded)]
            text = f"{mark} thinks · {live.thought_size:,} characters"
            rows += self._beside(self._bar(live), [Text(text, self.palette.dim + Style(italic=True))])
            if not live.folded:
                tail = clean("".join(live.thoughts[-2000:])[-THOUGHT_ROWS * self.room :])
                shown = [row for line in tail.split("\n") for row in rows_of(line, self.room)]
                style = self.palette.dim + Style(italic=True)
                rows += self._beside(self._bar(live), [Text(row, style) for row in shown[-THOUGHT_ROWS:]])
        return rows

    def live_foot(self, live: Live, now: float) -> list[Strip]:
        """What is going on below the speech: a command that runs, or that nothing has come yet."""
        waited = f" {duration(now - live.doing_since)}"
        if live.call is not None:
            made = Text("▸ ", self.palette.dim)
            made.append(f"{describe(live.call)}", self.palette.code)
            made.append(f" · running{waited}", self.palette.warning)
            made.truncate(self.room, overflow="ellipsis")
            lines = [made]
            tail = [line for line in clean(live.output).split("\n") if line.strip()][-OUTPUT_ROWS:]
            lines += [
                Text(rows_of("  " + line.expandtabs(4), self.room)[0], self.palette.dim) for line in tail
            ]
            return self._beside(self._bar(live), lines)
        if live.doing == "thinking":
            return self._beside(self._bar(live), [Text(f"thinking{waited}", self.palette.dim)])
        return []

    def speech(self, live: Live, rows: Iterable[str]) -> list[Strip]:
        """Rows of what somebody is saying."""
        return self._beside(self._bar(live), [Text(row) for row in rows])

    def _bar(self, live: Live) -> Text:
        return Text(BAR, self.voice(live.who))

    # -- rows

    @property
    def room(self) -> int:
        """Cells for a row of speech."""
        return self.width - len(BAR)

    def _beside(self, bar: Text, lines: Iterable[Text]) -> list[Strip]:
        return [_strip(Text.assemble(bar, line)) for line in lines]

    def _line(self, text: str, style: Style) -> list[Strip]:
        """A remark of ours, on as many rows as it takes."""
        return [
            _strip(Text("  " + row, style))
            for line in _bounded(clean(text)).split("\n")
            for row in rows_of(line, self.width - INDENT)
        ]

    def _inset(self, text: str, style: Style) -> list[Strip]:
        """What somebody wrote, as it is."""
        return [
            _strip(Text("    " + row, style))
            for line in _bounded(clean(text)).rstrip("\n").split("\n")
            for row in rows_of(line.expandtabs(4), self.width - 4)
        ]

    def _fitted(self, made: Text, figures: Text) -> list[Strip]:
        """One row: what does not fit is cut before the figures."""
        made.truncate(max(8, self.width - figures.cell_len), overflow="ellipsis")
        made.append_text(figures)
        made.truncate(self.width)
        return [_strip(made)]


class Saying:
    """The rows of what somebody is saying, made as it comes: only the last of them still changes."""

    def __init__(self, painter: Painter, live: Live) -> None:
        self.strips: list[Strip] = []
        self.live = live
        self.number = live.number
        self._painter = painter
        self._read = 0
        self._tail: str | None = None  # the text of the last row, when it may go on

    def update(self) -> None:
        """Take in what is new."""
        fresh = self.live.said[self._read :]
        self._read = len(self.live.said)
        text = ""
        for audience, piece in fresh:
            if audience is not None:
                self._write(text)
                text = ""
                self._turn(audience)
            text += piece
        self._write(text)
        del self.strips[:-KEPT_ROWS]

    def _turn(self, audience: Audience) -> None:
        if self.strips:
            self.strips.append(Strip.blank(0))
        self.strips.append(self._painter.heading(self.live.who, audience))
        self._tail = None

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._tail is not None:
            self.strips.pop()
        first, *others = clean(text).split("\n")
        rows = rows_of((self._tail or "") + first.expandtabs(4), self._painter.room)
        for line in others:
            rows += rows_of(line.expandtabs(4), self._painter.room)
        self.strips += self._painter.speech(self.live, rows[-KEPT_ROWS:])
        self._tail = rows[-1]


def _bounded(text: str) -> str:
    """The text, or its beginning and end when it is very long."""
    if len(text) <= LONGEST_TEXT:
        return text
    tail = LONGEST_TEXT // 3
    left = len(text) - LONGEST_TEXT
    return f"{text[: LONGEST_TEXT - tail]}\n… {left:,} characters are not shown …\n{text[-tail:]}"


def _strip(text: Text) -> Strip:
    return Strip([Segment(part, style) for part, style in _runs(text)], text.cell_len)


def _runs(text: Text) -> Iterable[tuple[str, Style | None]]:
    """The text in runs of one style each."""
    plain, base = text.plain, text.style if isinstance(text.style, Style) else Style()
    if not text.spans:
        return [(plain, base)] if plain else []
    cuts = sorted({0, len(plain), *(s.start for s in text.spans), *(s.end for s in text.spans)})
    cuts = [cut for cut in cuts if 0 <= cut <= len(plain)]
    runs = []
    for start, end in pairwise(cuts):
        style = base
        for span in text.spans:
            if span.start <= start and end <= span.end and isinstance(span.style, Style):
                style += span.style
        runs.append((plain[start:end], style))
    return runs
