"""Where one types what to look for in the transcript."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input


class Finder(Input):
    """One row, there only while it is open. `search` goes to a place that holds the words, in this
    direction from the last, and answers (its number from 1, how many)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "go(-1)", "to the place before", show=False),
        Binding("down", "go(1)", "to the next place", show=False),
        Binding("escape", "close", "end the search", show=False),
    ]

    class Searched(Message):
        """`found` says in words what there is."""

        def __init__(self, found: str) -> None:
            super().__init__()
            self.found = found

    class Closed(Message):
        """The search is over."""

    def __init__(self, search: Callable[[str, int], tuple[int, int]]) -> None:
        super().__init__(id="finder", placeholder="find in the transcript")
        self._search = search

    def open(self) -> None:
        self.add_class("-open")
        self.focus()

    def action_go(self, direction: int) -> None:
        at, count = self._search(self.value, direction)
        found = (
            f"{at} of {count} · Up, Down · Esc ends" if count else "not here; `org search` looks in all rooms"
        )
        self.post_message(self.Searched(found if self.value else ""))

    def action_close(self) -> None:
        self.value = ""
        self.remove_class("-open")
        self._search("", 0)
        self.post_message(self.Closed())

    @on(Input.Changed)
    def _changed(self) -> None:
        self.action_go(0)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_go(-1)
