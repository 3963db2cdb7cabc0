"""Where one types: several lines, what was typed before, completion of names and commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea

from org.tui.completion import aim, candidates
from org.tui.link import Link
from org.tui.typed import Typed

HINT = "Enter sends · Ctrl-J new line · F1 help"
NEW_LINE = ("ctrl+j", "shift+enter", "alt+enter")


class Prompt(TextArea):
    """Enter sends (`Sent`), Ctrl-J begins a new line."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 3;
        max-height: 12;
        padding: 0 1;
        border: round $foreground 40%;
        background: $background;
        border-title-color: $foreground;
        border-title-style: none;
        border-subtitle-color: $foreground 60%;
        &:focus { border: round $primary; }
        &.-private, &.-private:focus { border: round $warning; }
        &.-wrong, &.-wrong:focus { border: round $error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "recall", "what was typed before", show=False),
    ]

    class Sent(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Recall(Message):
        """The person looks for something typed before."""

    class Away(Message):
        """Tab, with nothing to complete."""

    def __init__(self, typed: Typed, link: Link) -> None:
        super().__init__(id="prompt", soft_wrap=True, tab_behavior="focus", highlight_cursor_line=False)
        self._typed = typed
        self._link = link
        self._place = len(typed.texts)  # in what was typed before; at its end: something new
        self._draft = ""
        self._cycle: tuple[int, list[str], int] | None = None  # (where, what, which) Tab goes through

    async def _on_key(self, event: Key) -> None:
        act: Callable[[], bool] | None = {
            "enter": self._send,
            "tab": self._complete,
            "up": lambda: self._at_edge(0) and self._go(-1),
            "down": lambda: self._at_edge(self.wrapped_document.height - 1) and self._go(1),
            **dict.fromkeys(NEW_LINE, self._new_line),
        }.get(event.key)
        if event.key != "tab":
            self._cycle = None
        if act is not None and act():
            event.stop()
            event.prevent_default()

    def fill(self, text: str) -> None:
        """Put this in place of what is there, with the cursor behind it."""
        self._cycle = None
        self.text = text
        self.move_cursor(self.document.end)

    def put_away(self) -> str:
        """Take what is there for typed, and begin anew; answers what it was."""
        text = self.text
        self._typed.add(text)
        self._place, self._draft = len(self._typed.texts), ""
        self.fill("")
        return text

    def _send(self) -> bool:
        if self.text.strip():
            self.post_message(self.Sent(self.put_away()))
        return True

    def _new_line(self) -> bool:
        self.replace("\n", *self.selection)
        return True

    def _at_edge(self, row: int) -> bool:
        return self.wrapped_document.location_to_offset(self.cursor_location).y == row

    def _go(self, step: int) -> bool:
        """Show what was typed before or after that."""
        place = self._place + step
        if not 0 <= place <= len(self._typed.texts):
            return False
        if self._place == len(self._typed.texts):
            self._draft = self.text
        self._place = place
        self.fill(self._typed.texts[place] if place < len(self._typed.texts) else self._draft)
        return True

    def _complete(self) -> bool:
        if self._cycle is None:
            start, words = self._candidates()
            if not words:
                self.post_message(self.Away())
                return True
            self._cycle = start, words, -1
        start, words, which = self._cycle
        which = (which + 1) % len(words)
        row, column = self.cursor_location
        before = self._before()
        begin = column - (len(before) - start)
        ending = "" if words[which].endswith(":") else " "
        self.replace(words[which] + ending, (row, begin), (row, column))
        if len(words) > 1:
            self._cycle = start, words, which
        else:
            self._cycle = None
        return True

    def _candidates(self) -> tuple[int, list[str]]:
        """What the word before the cursor may become, when it is one to complete."""
        return candidates(self._before(), list(self._link.state().members), list(self._link.commands))

    def _before(self) -> str:
        return self.get_text_range((0, 0), self.cursor_location)

    def action_recall(self) -> None:
        self.post_message(self.Recall())

    def aim(self) -> None:
        """Show on the frame whom it is for, and what helps."""
        link, state = self._link, self._link.state()
        if link.person not in state.members:
            return
        names = {*state.members, *state.gone}
        found = aim(self.text, link.person, names, state.members[link.person].mode, link.place)
        self.set_class(found.kind in ("direct", "file") and not found.wrong, "-private")
        self.set_class(found.wrong, "-wrong")
        arrow = "✗" if found.wrong else "→"
        self.border_title = Content(f" {link.person} {arrow} {found.words} ")
        self.border_subtitle = Content(f" {self._hint()} ")

    def _hint(self) -> str:
        name = self.text[1:].split(" ")[0]
        if self.text.startswith("/") and name in self._link.commands:
            usage, about = self._link.commands[name]
            return f"/{name} {usage}".rstrip() + f" · {about}"
        _, words = self._candidates()
        return "  ".join(words[:12]) or HINT
