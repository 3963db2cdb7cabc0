"""The rows of the transcript: those of settled blocks, and below them of whoever speaks now."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from textual.strip import Strip

from org.tui.paint import Painter, Saying
from org.tui.scene import Block, Live, Scene

ALONE_ROWS = 400
"""Rows of a single speaker that are shown while it speaks; several share the screen."""


@dataclass(slots=True, eq=False)
class Item:
    """A block with its rows, and the row of the transcript at which they begin."""

    block: Block | Live
    strips: list[Strip] = field(default_factory=list)
    top: int = 0


class Rows:
    """A scene as rows. Each is drawn once: `update` draws what is new, `redraw` what has changed."""

    def __init__(self, scene: Scene) -> None:
        self.items: list[Item] = []
        self.height = 0
        self._scene = scene
        self._settled = 0  # how many of the items are settled blocks
        self._saying: dict[str, Saying] = {}
        self._seen = (-1, 0)  # (rebuilt, pruned) of the scene as it is shown

    @property
    def settled(self) -> Sequence[Item]:
        """The items in which nobody speaks any more."""
        return self.items[: self._settled]

    def at(self, row: int) -> tuple[Item, int] | None:
        """(what stands there, how many of its rows are above); the last item has all that is below it."""
        place = bisect_right(self.items, row, key=attrgetter("top")) - 1
        return (self.items[place], row - self.items[place].top) if place >= 0 else None

    def row_of(self, block: Block | Live, offset: int) -> int:
        """Where a block has this row of its own, or its last; the first of all when it is gone."""
        for item in self.items:
            if item.block is block:
                return item.top + min(offset, len(item.strips) - 1)
        return 0

    def clear(self) -> None:
        """Forget everything that was drawn."""
        self.items, self._settled, self._saying = [], 0, {}
        self._seen = (self._scene.rebuilt, self._scene.pruned)

    def update(self, painter: Painter, now: float, screen: int) -> int:
        """Take in what is new in the scene, for a screen of so many rows; how many went away at the top."""
        removed = self._settle(painter)
        self._show_live(painter, now, screen)
        self.height = 0
        for item in self.items:
            item.top = self.height
            self.height += len(item.strips)
        return removed

    def redraw(self, painter: Painter, which: Callable[[Item], bool]) -> None:
        """Draw these settled blocks anew."""
        for item in self.settled:
            if which(item) and isinstance(item.block, Block):
                item.strips = painter.block(item.block)

    def _settle(self, painter: Painter) -> int:
        """Take over the settled blocks; how many rows went away at the top."""
        scene = self._scene
        rebuilt, pruned = self._seen
        self._seen = (scene.rebuilt, scene.pruned)
        del self.items[self._settled :]
        removed = 0
        if rebuilt != scene.rebuilt:
            known = {id(item.block): item for item in self.items}
            self.items = []
            for block in scene.blocks:
                self.items.append(known.get(id(block)) or Item(block, painter.block(block)))
        else:
            gone = self.items[: scene.pruned - pruned]
            removed = sum(len(item.strips) for item in gone)
            del self.items[: len(gone)]
            for block in scene.blocks[len(self.items) :]:
                self.items.append(Item(block, painter.block(block)))
        self._settled = len(self.items)
        return removed

    def _show_live(self, painter: Painter, now: float, screen: int) -> None:
        lives = list(self._scene.live.values())
        share = ALONE_ROWS
        if len(lives) > 1:
            share = max(3, screen // len(lives) - 3)
        for live in lives:
            saying = self._saying.get(live.who)
            if saying is None or saying.live is not live or saying.number != live.number:
                saying = self._saying[live.who] = Saying(painter, live)
            saying.update()
            head, foot = painter.live_head(live), painter.live_foot(live, now)
            said = saying.strips
            if len(said) > share and live.folded:
                said = [said[0], *said[1 - share :]]
            self.items.append(Item(live, [*head, *said, *foot]))
        for who in self._saying.keys() - self._scene.live.keys():
            del self._saying[who]
