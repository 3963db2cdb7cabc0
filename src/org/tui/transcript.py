"""The pane in which the room is read: settled blocks, and below them whoever speaks now.

One widget that draws rows (textual's line API): a thousand blocks cost no more than those in sight.
It stays at the end while things are said, unless somebody has scrolled up.
"""

from __future__ import annotations

from collections.abc import Callable
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

from org.tui.paint import Painter, Palette
from org.tui.rows import Item, Rows
from org.tui.scene import Block, Live, Scene
from org.tui.search import Search

NARROWEST = 12
NAMES = 6


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
        self._rows = Rows(scene)
        self._painter: Painter | None = None
        self._cursor: Block | Live | None = None
        self._search = Search()

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
        voices, rows, row = self._voices(), self._rows, self.scroll_offset.y
        anchor = None
        if self._painter is None:
            anchor = None if self.following else rows.at(row)
            self._painter = Painter(self._palette(), width, voices)
            rows.clear()
        elif len(self._painter.voices) != len(voices):
            self._painter.voices = voices
        row -= rows.update(self._painter, self._clock(), self.size.height)
        if anchor is not None:
            row = rows.row_of(anchor[0].block, anchor[1])
        following = self.following
        self.virtual_size = Size(width, rows.height)
        if following:
            self.scroll_end(animate=False, immediate=True)
        elif row != self.scroll_offset.y:
            self.scroll_to(y=max(0, row), animate=False, immediate=True)
        self._search.update(rows)
        self.refresh()

    # -- drawing

    def render_line(self, y: int) -> Strip:
        row = self.scroll_offset.y + y
        found = self._rows.at(row)
        strip = Strip.blank(0)
        if found is not None and found[1] < len(found[0].strips):
            strip = found[0].strips[found[1]]
        strip = strip.adjust_cell_length(self.size.width)
        for start, end in self._search.marks.get(row, ()):
            strip = _marked(strip, start, end, self._background("transcript--found"))
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(row)) is not None:
            start, end = span
            style = self.screen.get_component_rich_style("screen--selection")
            strip = _marked(strip, start, self.size.width if end < 0 else end, style)
        if self.has_focus and found is not None and self._is_cursor(*found):
            strip = _marked(strip, 0, self.size.width, self._background("transcript--cursor"))
        return strip.apply_style(self.rich_style).apply_offsets(0, row)

    def _is_cursor(self, item: Item, above: int) -> bool:
        head = 1 if isinstance(item.block, Live) or item.block.kind == "message" else 0
        return item.block is self._cursor and above == head

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
        foldable = [item.block for item in self._rows.items if item.block.folded is not None]
        if not foldable:
            self.scroll_relative(y=direction, animate=False)
            return
        if self._cursor in foldable:
            place = foldable.index(self._cursor) + direction
            self._cursor = foldable[max(0, min(place, len(foldable) - 1))]
        else:
            self._cursor = foldable[-1]
        self._show_row(self._rows.row_of(self._cursor, 0))

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
        blocks = [item.block for item in self._rows.items if item.block.folded is not None]
        folded = not any(block.folded for block in blocks)
        for block in blocks:
            block.folded = folded
        self._redraw(lambda item: item.block.folded is not None)

    def _redraw(self, which: Callable[[Item], bool]) -> None:
        if self._painter is not None:
            self._rows.redraw(self._painter, which)
        self.refresh_scene()

    def on_click(self, event: Click) -> None:
        found = self._rows.at(self.scroll_offset.y + event.y)
        if found is not None and not self.screen.get_selected_text():
            item, above = found
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
        if needle != self._search.needle:
            self._search = Search(needle)
            for item in self._rows.settled:
                if isinstance(item.block, Block) and self._search.is_hidden_in(item.block):
                    self.toggle(item.block)
        self._search.update(self._rows)
        row = self._search.go(direction)
        if row is not None:
            self._show_row(row)
        self.refresh()
        return self._search.place

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
        rows = [strip.text.rstrip() for item in self._rows.items for strip in item.strips]
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
