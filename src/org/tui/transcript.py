"""The pane in which the room is read: settled blocks, and below them whoever speaks now.

One widget that draws rows (textual's line API): a thousand blocks cost no more than those in sight.
It stays at the end while things are said, unless somebody has scrolled up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from org.tui.paint import Painter, Palette, Saying
from org.tui.scene import Block, Live, Scene

NARROWEST = 12
MARGIN = 2
"""Characters at the beginning of a row that belong to nobody's words."""

NAMES = 6
ALONE_ROWS = 400
"""Rows of a single speaker that are shown while it speaks; several share the screen."""


@dataclass(slots=True, eq=False)
class _Item:
    """A block with its rows."""

    block: Block | Live
    strips: list[Strip] = field(default_factory=list)


class Transcript(ScrollView, can_focus=True):
    """Shows a scene. Call `refresh_scene` after it has changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "transcript--person",
        "transcript--dim",
        "transcript--code",
        "transcript--private",
        "transcript--warning",
        "transcript--error",
        "transcript--good",
        "transcript--found",
        "transcript--cursor",
        *(f"transcript--name{number}" for number in range(NAMES)),
    }
    DEFAULT_CSS = """
    Transcript {
        background: $background;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        .transcript--person { color: $foreground; text-style: bold; }
        .transcript--dim { color: $foreground 60%; }
        .transcript--code { color: $text-secondary; }
        .transcript--private { color: $text-warning; }
        .transcript--warning { color: $text-warning; }
        .transcript--error { color: $text-error; }
        .transcript--good { color: $text-success; }
        .transcript--found { background: $warning 60%; color: $foreground; }
        .transcript--cursor { background: $primary 25%; }
        .transcript--name0 { color: $text-primary; }
        .transcript--name1 { color: $text-success; }
        .transcript--name2 { color: $text-accent; }
        .transcript--name3 { color: $text-secondary; }
        .transcript--name4 { color: $text-error; }
        .transcript--name5 { color: $text-warning; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(-1)", "to the block before", show=False),
        Binding("down", "step(1)", "to the next block", show=False),
        Binding("enter", "fold", "fold or unfold", show=False),
        Binding("escape,tab,shift+tab", "leave", "back to the prompt", show=False),
    ]

    class Left(Message):
        """The person wants to type again."""

    following: var[bool] = var(True)
    """Whether the newest is in sight, and shall stay so."""

    def __init__(self, scene: Scene, voices: Callable[[], list[str]], clock: Callable[[], float]) -> None:
        super().__init__(id="transcript")
        self._scene = scene
        self._voices = voices
        self._clock = clock
        self._items: list[_Item] = []
        self._tops: list[int] = []
        self._settled = 0  # how many of the items are settled blocks
        self._saying: dict[str, Saying] = {}
        self._seen = (-1, 0)  # (rebuilt, pruned) of the scene as it is shown
        self._painter: Painter | None = None
        self._cursor: Block | Live | None = None
        self._needle = ""
        self._hits: list[int] = []  # the rows at which what is searched for begins
        self._marks: dict[int, list[tuple[int, int]]] = {}  # row -> the cells of it that were found
        self._at = -1  # which hit one stands at

    # -- what there is to show

    def repaint(self) -> None:
        """Draw everything anew: the width or the colours have changed."""
        self._painter = None
        self.refresh_scene()

    def refresh_scene(self) -> None:
        """Show what is new in the scene; stay at the end, or at what somebody reads."""
        width = self._width
        if width <= 0:
            return
        voices = self._voices()
        if self._painter is not None and len(self._painter.voices) != len(voices):
            self._painter.voices = voices
        anchor = None
        if self._painter is None:
            anchor = None if self.following else self._anchor()
            self._painter = Painter(self._palette(), width, voices)
            self._items, self._settled, self._saying = [], 0, {}
            self._seen = (self._scene.rebuilt, self._scene.pruned)
        painter = self._painter
        removed = self._settle(painter)
        self._show_live(painter)
        top = 0
        self._tops = []
        for item in self._items:
            self._tops.append(top)
            top += len(item.strips)
        row = self.scroll_offset.y - removed
        if anchor is not None:
            row = self._row_of(*anchor)
        following = self.following
        self.virtual_size = Size(width, top)
        if following:
            self.scroll_end(animate=False, immediate=True)
        elif row != self.scroll_offset.y:
            self.scroll_to(y=max(0, row), animate=False, immediate=True)
        if self._needle:
            self._search()
        self.refresh()

    def _anchor(self) -> tuple[Block | Live, int]:
        """The block at the upper edge, and how many of its rows are above that."""
        place = max(0, bisect_right(self._tops, self.scroll_offset.y) - 1)
        return self._items[place].block, self.scroll_offset.y - self._tops[place]

    def _row_of(self, block: Block | Live, offset: int) -> int:
        for item, top in zip(self._items, self._tops, strict=True):
            if item.block is block:
                return top + min(offset, len(item.strips) - 1)
        return 0

    def _settle(self, painter: Painter) -> int:
        """Take over the settled blocks; how many rows went away at the top."""
        scene = self._scene
        rebuilt, pruned = self._seen
        self._seen = (scene.rebuilt, scene.pruned)
        del self._items[self._settled :]
        removed = 0
        if rebuilt != scene.rebuilt:
            known = {id(item.block): item for item in self._items}
            self._items = []
            for block in scene.blocks:
                self._items.append(known.get(id(block)) or _Item(block, painter.block(block)))
        else:
            gone = self._items[: scene.pruned - pruned]
            removed = sum(len(item.strips) for item in gone)
            del self._items[: len(gone)]
            for block in scene.blocks[len(self._items) :]:
                self._items.append(_Item(block, painter.block(block)))
        self._settled = len(self._items)
        return removed

    def _show_live(self, painter: Painter) -> None:
        lives = list(self._scene.live.values())
        now = self._clock()
        share = ALONE_ROWS
        if len(lives) > 1:
            share = max(3, self.size.height // len(lives) - 3)
        for live in lives:
            saying = self._saying.get(live.who)
            if saying is None or saying.live is not live or saying.number != live.number:
                saying = self._saying[live.who] = Saying(painter, live)
            saying.update()
            head, foot = painter.live_head(live), painter.live_foot(live, now)
            said = saying.strips
            if len(said) > share and live.folded:
                said = [said[0], *said[1 - share :]]
            self._items.append(_Item(live, [*head, *said, *foot]))
        for who in self._saying.keys() - self._scene.live.keys():
            del self._saying[who]

    # -- drawing

    def render_line(self, y: int) -> Strip:
        row = self.scroll_offset.y + y
        place = bisect_right(self._tops, row) - 1
        strip = Strip.blank(0)
        if 0 <= place < len(self._items) and row - self._tops[place] < len(self._items[place].strips):
            strip = self._items[place].strips[row - self._tops[place]]
        strip = strip.adjust_cell_length(self.size.width)
        for start, end in self._marks.get(row, ()):
            strip = _marked(strip, start, end, self._background("transcript--found"))
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(row)) is not None:
            start, end = span
            style = self.screen.get_component_rich_style("screen--selection")
            strip = _marked(strip, start, self.size.width if end < 0 else end, style)
        if self.has_focus and self._is_cursor(place, row):
            strip = _marked(strip, 0, self.size.width, self._background("transcript--cursor"))
        return strip.apply_style(self.rich_style).apply_offsets(0, row)

    def _is_cursor(self, place: int, row: int) -> bool:
        if not 0 <= place < len(self._items) or self._items[place].block is not self._cursor:
            return False
        item = self._items[place]
        head = 1 if isinstance(item.block, Live) or item.block.kind == "message" else 0
        return row == self._tops[place] + head

    def _background(self, name: str) -> Style:
        return Style(bgcolor=self.get_component_rich_style(name).bgcolor)

    def _palette(self) -> Palette:
        def colour(name: str) -> Style:
            style = self.get_component_rich_style(f"transcript--{name}")
            return Style(color=style.color, bold=style.bold)

        return Palette(
            names=[colour(f"name{number}") for number in range(NAMES)],
            person=colour("person"),
            text=Style(),
            dim=colour("dim"),
            code=colour("code"),
            private=colour("private"),
            warning=colour("warning"),
            error=colour("error"),
            good=colour("good"),
        )

    # -- folding

    def action_step(self, direction: int) -> None:
        """Go to the next block that can be folded, before or after."""
        foldable = [item.block for item in self._items if item.block.folded is not None]
        if not foldable:
            self.scroll_relative(y=direction, animate=False)
            return
        if self._cursor in foldable:
            place = foldable.index(self._cursor) + direction
            self._cursor = foldable[max(0, min(place, len(foldable) - 1))]
        else:
            self._cursor = foldable[-1]
        self._show_row(self._row_of(self._cursor, 0))

    def action_fold(self) -> None:
        if self._cursor is not None:
            self.toggle(self._cursor)

    def toggle(self, block: Block | Live) -> None:
        """Fold or unfold a block, where it can be."""
        if block.folded is None:
            return
        block.folded = not block.folded
        self._redraw(lambda item: item.block is block)

    def toggle_all(self) -> None:
        """Unfold all, or fold all when all are unfolded."""
        blocks = [item.block for item in self._items if item.block.folded is not None]
        folded = not any(block.folded for block in blocks)
        for block in blocks:
            block.folded = folded
        self._redraw(lambda item: item.block.folded is not None)

    def _redraw(self, which: Callable[[_Item], bool]) -> None:
        for item in self._items[: self._settled]:
            if self._painter is not None and which(item) and isinstance(item.block, Block):
                item.strips = self._painter.block(item.block)
        self.refresh_scene()

    def on_click(self, event: Click) -> None:
        row = self.scroll_offset.y + event.y
        place = bisect_right(self._tops, row) - 1
        if 0 <= place < len(self._items) and not self.screen.get_selected_text():
            item, above = self._items[place], row - self._tops[place]
            if above == 0 or (isinstance(item.block, Live) and above <= 2):
                self._cursor = item.block
                self.toggle(item.block)

    def action_leave(self) -> None:
        self.post_message(self.Left())

    # -- searching

    def search(self, needle: str, direction: int = 0) -> tuple[int, int]:
        """Mark where `needle` stands and go to the next place; (its number from 1, how many).

        What is folded and holds it is unfolded. An empty needle ends the search.
        """
        if needle != self._needle:
            self._needle, self._at = needle, -1
            self._unfold(needle)
        self._search()
        if not self._hits:
            self.refresh()
            return 0, 0
        if self._at < 0:
            self._at = len(self._hits) - 1  # the newest first
        else:
            self._at = (self._at + direction) % len(self._hits)
        self._show_row(self._hits[self._at])
        self.refresh()
        return self._at + 1, len(self._hits)

    def _unfold(self, needle: str) -> None:
        wanted = needle.lower()
        for item in self._items[: self._settled]:
            block = item.block
            if needle and isinstance(block, Block) and block.folded and wanted in _hidden(block).lower():
                self.toggle(block)

    def _search(self) -> None:
        self._hits, self._marks = [], {}
        if not self._needle:
            return
        for item, top in zip(self._items, self._tops, strict=True):
            for row, start, length in _places(item.strips, self._needle):
                self._hits.append(top + row)
                while length > 0 and row < len(item.strips):
                    end = min(start + length, len(item.strips[row].text))
                    self._marks.setdefault(top + row, []).append((start, end))
                    length -= end - start + 1
                    row, start = row + 1, MARGIN

    def _show_row(self, row: int) -> None:
        if not self.scroll_offset.y <= row < self.scroll_offset.y + self.size.height:
            self.scroll_to(y=max(0, row - self.size.height // 2), animate=False, immediate=True)
        self.refresh()

    # -- the terminal

    def on_resize(self, event: Resize) -> None:
        if self._painter is None or self._painter.width != self._width:
            self.repaint()
        elif self.following:
            self.scroll_end(animate=False, immediate=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.following = round(new_value) >= self.max_scroll_y

    @property
    def _width(self) -> int:
        """Cells of a row: at least what anything can be drawn in, 0 when there is nothing at all."""
        width = self.scrollable_content_region.width
        return max(width, NARROWEST) if width > 0 else 0

    @property
    def allow_select(self) -> bool:
        return True

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = [strip.text.rstrip() for item in self._items for strip in item.strips]
        return selection.extract("\n".join(rows)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()


def _marked(strip: Strip, start: int, end: int, style: Style) -> Strip:
    """The strip with this style upon the characters from `start` to `end`."""
    text = strip.text
    cuts = [cell_len(text[:start]), cell_len(text[:end]), strip.cell_length]
    before, inside, after = strip.divide(cuts)
    painted = Strip([Segment(s.text, (s.style or Style()) + style) for s in inside])
    return Strip.join([before, painted, after])


def _places(strips: Sequence[Strip], needle: str) -> Iterator[tuple[int, int, int]]:
    """(row, character of it, length) of each place at which `needle` stands, across the ends of rows too."""
    starts, text, wanted = [], "", needle.lower()
    parts = []
    length = 0
    for strip in strips:
        part = strip.text[MARGIN:].rstrip() + " "
        lowered = part.lower()
        parts.append(lowered if len(lowered) == len(part) else part)
        starts.append(length)
        length += len(part)
    text = "".join(parts)
    place = text.find(wanted)
    while place >= 0:
        row = bisect_right(starts, place) - 1
        yield row, place - starts[row] + MARGIN, len(wanted)
        place = text.find(wanted, place + len(wanted))


def _hidden(block: Block) -> str:
    """What a folded block does not show."""
    if block.call is None:
        return block.text
    arguments = "\n".join(str(value) for value in block.call.call.arguments.values())
    return f"{arguments}\n{block.call.result.output}"
