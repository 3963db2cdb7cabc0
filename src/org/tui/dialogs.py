"""What is asked on top of the room: may a call be run; what was typed before; which keys there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from org.tooling import ToolCall
from org.tui.panels import DIM
from org.wording import clean, one_line

QUIET_S = 0.6
"""How long the keys must have rested before one of them can allow a call: what was meant for the
prompt must not say yes."""


class Approval(ModalScreen[bool]):
    """May this call be run? Only a deliberate yes is one."""

    DEFAULT_CSS = """
    Approval {
        align: center middle;
        & > Vertical {
            width: 90%;
            max-width: 100;
            height: auto;
            max-height: 90%;
            border: round $warning;
            background: $surface;
            padding: 0 1;
        }
        VerticalScroll { height: auto; max-height: 100%; margin: 1 0; }
        #call { width: 1fr; height: auto; }
        Horizontal { height: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "yes", show=False),
        Binding("n,escape", "no", "no", show=False),
        Binding("left,right", "app.focus_next", show=False),
    ]

    def __init__(
        self,
        participant: str,
        call: ToolCall,
        place: str,
        clock: Callable[[], float],
        quiet_s: float = QUIET_S,
    ) -> None:
        super().__init__()
        self._participant = participant
        self._call = call
        self._place = place
        self._clock = clock
        self._quiet_s = quiet_s
        self._calm_at = clock() + quiet_s

    def compose(self) -> ComposeResult:
        with Vertical() as frame:
            frame.border_title = Content(
                f" {self._participant} wants to call {one_line(self._call.name, 40)} "
            )
            frame.border_subtitle = Content(" y runs it · n, Esc or Enter does not ")
            with VerticalScroll():
                yield Static(self._shown(), id="call", markup=False)
            yield Static(Content(f"It runs {self._place}"), markup=False)
            with Horizontal():
                yield Button("No", id="no", compact=True, variant="primary")
                yield Button("Yes, run it", id="yes", compact=True)

    def _shown(self) -> Content:
        """The whole call, each argument below its name."""
        parts = []
        for name, value in self._call.arguments.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            parts.append(Content.assemble((f"{one_line(name, 40)}:", DIM), "\n", clean(text).expandtabs(4)))
        return Content("\n").join(parts)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    async def _on_key(self, event: Key) -> None:
        now = self._clock()
        hasty, self._calm_at = now < self._calm_at, max(self._calm_at, now + self._quiet_s / 2)
        if hasty and event.key not in ("escape", "ctrl+c"):
            event.stop()
            event.prevent_default()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_yes(self) -> None:
        self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)


class Recall(ModalScreen[str]):
    """Find something that was typed before; answers it, or nothing."""

    DEFAULT_CSS = """
    Recall {
        align: center bottom;
        & > Vertical {
            width: 100%;
            max-width: 100;
            height: auto;
            max-height: 60%;
            border: round $primary;
            background: $surface;
        }
        Input { border: none; height: 1; padding: 0 1; background: $surface; }
        OptionList { height: auto; max-height: 12; border: none; background: $surface; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down,ctrl+r", "move(1)", show=False, priority=True),
    ]
    SHOWN = 200

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self._texts = list(dict.fromkeys(reversed(texts)))
        self._found: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical() as frame:
            frame.border_title = Content(" typed before ")
            frame.border_subtitle = Content(" Enter takes it · Esc ")
            yield Input(placeholder="words of it", id="needle")
            yield OptionList(id="found", markup=False)

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, needle: str) -> None:
        words = needle.lower().split()
        self._found = [t for t in self._texts if all(w in t.lower() for w in words)][: self.SHOWN]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(Content(one_line(text, 300))) for text in self._found])
        options.highlighted = 0 if self._found else None

    def action_move(self, step: int) -> None:
        options = self.query_one(OptionList)
        if self._found:
            options.highlighted = ((options.highlighted or 0) + step) % len(self._found)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        place = self.query_one(OptionList).highlighted
        self.dismiss(self._found[place] if place is not None and self._found else "")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._found[event.option_index])

    def action_close(self) -> None:
        self.dismiss("")


KEYS = (
    ("Enter", "send"),
    ("Ctrl-J, Shift-Enter", "a new line"),
    ("Tab", "complete an @name or a /command; otherwise go to the transcript"),
    ("Up, Down", "what was typed before; Ctrl-R finds it"),
    ("PageUp, PageDown", "scroll; Ctrl-End goes to the newest again"),
    ("Ctrl-F", "search the transcript"),
    ("Ctrl-O", "unfold all calls and thoughts, or fold them; a click does one"),
    ("Ctrl-C", "stop the turn, keeping what was said; twice when idle: leave"),
    ("Ctrl-D", "leave, when nothing is typed"),
    ("F2", "light or dark"),
)


class Help(ModalScreen[None]):
    """The keys and the commands."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (72, "-wide")]  # noqa: RUF012 (declared by textual)

    DEFAULT_CSS = """
    Help {
        align: center middle;
        & > VerticalScroll {
            width: 90%;
            max-width: 96;
            height: auto;
            max-height: 90%;
            border: round $primary;
            background: $surface;
            padding: 0 1;
        }
        Horizontal { height: auto; }
        .name { width: 30; height: auto; }
        .about { width: 1fr; height: auto; }
        &.-narrow Horizontal { layout: vertical; }
        &.-narrow .name { width: 1fr; }
        &.-narrow .about { padding-left: 4; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q,enter", "app.pop_screen", show=False)]

    def __init__(self, commands: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        rows = [
            *KEYS,
            ("", ""),
            *((f"/{name} {usage}".rstrip(), about) for name, (usage, about) in self._commands.items()),
            ("!COMMAND", "run a shell command where the tools run"),
            ("@name words", "say something to one alone; @group to everyone"),
            ("#file:path words", "put something into a file of the workspace"),
        ]
        with VerticalScroll() as frame:
            frame.border_title = Content(" keys and commands ")
            frame.border_subtitle = Content(" Esc closes ")
            for name, about in rows:
                with Horizontal():
                    yield Static(Content.assemble((name, "$text-primary")), classes="name")
                    yield Static(Content(about), classes="about")
