"""The full screen of a room: what happens as it happens, and a place to type."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Key, TextSelected
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, TextArea

from org.commands import Quit
from org.errors import OrgError, UsageError
from org.events import Asked, CallFinished, CallStarted, Event, Stopped, TurnEnded
from org.tui.dialogs import Approval, Help, Recall
from org.tui.finder import Finder
from org.tui.link import Link
from org.tui.news import joined
from org.tui.panels import Roster, Status, voices
from org.tui.prompt import Prompt
from org.tui.questions import Questions
from org.tui.scene import Scene
from org.tui.transcript import Transcript
from org.tui.typed import Typed

FRAME_S = 1 / 20
"""How often the screen follows the room at most: all that came meanwhile is drawn at once."""

IDLE_S = 0.1
"""How often clocks and spinners move while somebody works."""

NOTE_S = 3.0
"""How long a note stands in the status row."""

WIDE = 100
"""Columns from which on the roster has a column of its own."""

WELCOME = "Everyone hears you; begin with @name for one alone. F1 shows the keys, Ctrl-C stops a turn."
DARK, LIGHT = "textual-dark", "textual-light"


class ChatApp(App[None]):
    """One person in one room. It ends when the person leaves, or raises what broke."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    * {
        scrollbar-color: $foreground 25%;
        scrollbar-color-hover: $foreground 50%;
        scrollbar-color-active: $primary;
        scrollbar-background: $background;
        scrollbar-background-hover: $background;
        scrollbar-background-active: $background;
    }
    #room { height: 1fr; }
    #below { height: auto; }
    #finder { height: 1; border: none; padding: 0 1; display: none; background: $foreground 8%; }
    #finder.-open { display: block; }
    #who-line { display: none; }
    .-narrow #who { display: none; }
    .-narrow #who-line { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 (declared by textual)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", priority=True, show=False),
        Binding("ctrl+d", "leave", priority=True, show=False),
        Binding("ctrl+f", "find", priority=True, show=False),
        Binding("ctrl+o", "unfold", priority=True, show=False),
        Binding("f1", "keys", priority=True, show=False),
        Binding("f2", "theme", priority=True, show=False),
        Binding("pageup", "scroll(-1)", priority=True, show=False),
        Binding("pagedown", "scroll(1)", priority=True, show=False),
        Binding("ctrl+home", "edge(-1)", priority=True, show=False),
        Binding("ctrl+end", "edge(1)", priority=True, show=False),
    ]

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._scene = Scene(lambda: link.state().members)
        self._news: deque[Event] = deque()
        self._frame: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._command: asyncio.Task[Any] | None = None
        self.questions = Questions(self, self._scene, link.place, clock)
        self._typed = Typed(link.history)
        self._warned = False
        self._stopping = False
        self._own_context = copy_context()
        self._note_timer: Timer | None = None
        self._unobserve: Callable[[], None] = lambda: None
        self.failure: BaseException | None = None
        """What broke while something was done for the person."""
        self.theme = LIGHT if _is_light(os.environ.get("COLORFGBG", "")) else DARK

    def compose(self) -> ComposeResult:
        link = self._link
        with Horizontal(id="room"):
            yield Transcript(self._scene, lambda: voices(self._link), self._clock)
            yield Roster(self._link, self._scene, self._clock, line=False)
        with Vertical(id="below"):
            yield Finder(lambda needle, direction: self._room_pane.search(needle, direction))
            yield Roster(self._link, self._scene, self._clock, line=True)
            yield Prompt(self._typed, link)
            yield Status(self._link, self._scene, self._clock)

    def on_mount(self) -> None:
        self._own_context = copy_context()
        self.watch(self._room_pane, "following", self._scrolled)
        self.query_one(Prompt).focus()
        self._scene.load(self._link.events(), self._clock())
        self._unobserve = self._link.observe(self._hear)
        self._news.extend(self._link.present())
        self._catch_up()
        if not self._scene.blocks:
            self._scene.add("output", f"{self._link.welcome}\n{WELCOME}", self._link.id)
        self.set_interval(IDLE_S, self._tick)
        self.query_one(Prompt).aim()

    def on_unmount(self) -> None:
        self._unobserve()
        if self._frame is not None:
            self._frame.cancel()
        for task in self._work:
            task.cancel()

    # -- what happens in the room

    def _hear(self, event: Event) -> None:
        """Called within the room's own work: take note, and draw soon."""
        self._news.append(event)
        if self._frame is None:
            # Whoever calls knows nothing of the app, so it is drawn as if the app itself had called.
            loop = asyncio.get_running_loop()
            self._frame = loop.call_later(FRAME_S, self.call_later, self._draw, context=self._own_context)

    def _draw(self) -> None:
        self._frame = None
        self._catch_up()
        self._refresh()
        self.query_one(Prompt).aim()
        if self._stopping and not self._scene.running:
            self._note("")

    def _catch_up(self) -> None:
        """Take what was heard into the scene."""
        now = self._clock()
        news = list(self._news)
        self._news.clear()
        for event in joined(news):
            self._scene.apply(event, now)
            match event:
                case Asked():
                    dialog = self.questions.put(event)
                    if dialog is not None:
                        self._start(self._decide(event, dialog))
                case CallStarted(name) | CallFinished(name) | TurnEnded(name):
                    self.questions.withdraw(name)
                case Stopped():
                    self.questions.withdraw_all()
                case _:
                    pass

    def _refresh(self) -> None:
        self._room_pane.refresh_scene()
        for roster in self.query(Roster):
            roster.refresh()
        self.query_one(Status).refresh()

    def _tick(self) -> None:
        """Clocks and spinners go on while somebody works."""
        if self._scene.running and self._frame is None:
            self._refresh()

    # -- what the person does

    @on(Prompt.Sent)
    def _sent(self, sent: Prompt.Sent) -> None:
        self._room_pane.scroll_end(animate=False)
        if sent.text.strip() == "/help":
            self.action_keys()
            return
        self._start(self._take(sent.text))

    async def _take(self, text: str) -> None:
        """Do what was typed: a command, or something to say."""
        line = text.strip()
        try:
            done = await self._do(line)
            if done is None:
                await self._link.say(text)
            elif done:
                self._catch_up()
                self._scene.add("output", done, line)
        except Quit:
            self.exit()
        except OrgError as error:
            self._catch_up()
            self._scene.add("problem", "", f"{error.message}{f' ({error.hint})' if error.hint else ''}")
            prompt = self.query_one(Prompt)
            if isinstance(error, UsageError) and not prompt.text:
                prompt.fill(text)  # nothing came of it: it can be corrected
        self._refresh()

    async def _do(self, line: str) -> str | None:
        """The answer of a command; Ctrl-C gives it up."""
        working = self._command = asyncio.ensure_future(self._link.command(line))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            if not working.cancelled():
                working.cancel()
                raise
            return "stopped"
        finally:
            if self._command is working:
                self._command = None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside what happens on the screen."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self.exit()

    async def _decide(self, asked: Asked, dialog: asyncio.Task[bool]) -> None:
        await asyncio.wait([dialog])
        if dialog.cancelled():
            return
        try:
            await self._link.decide(asked.id, dialog.result())
        except OrgError as error:
            self._catch_up()
            self._scene.add("problem", "", error.message)
            self._refresh()

    # -- keys

    def action_interrupt(self) -> None:
        """Stop what runs; when nothing does, clear what is typed; then warn; then leave."""
        if isinstance(self.screen, Approval):
            self.screen.dismiss(False)
        elif isinstance(self.screen, ModalScreen):
            self.pop_screen()
            return
        prompt = self.query_one(Prompt)
        if self._command is not None:
            self._command.cancel()
        elif self._link.interrupt():
            self._note("stopping …", seconds=None)
            self._stopping = True
        elif prompt.text:
            prompt.put_away()
        elif self._warned:
            self.exit()
        else:
            self._warned = True
            self._note("Ctrl-C again, or Ctrl-D, leaves the room")

    def action_leave(self) -> None:
        focused = self.focused
        if (isinstance(focused, TextArea) and focused.text) or (isinstance(focused, Input) and focused.value):
            focused.action_delete_right()
        else:
            self.exit()

    def action_keys(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help(self._link.commands))

    def action_theme(self) -> None:
        self.theme = DARK if self.theme == LIGHT else LIGHT
        self.call_after_refresh(self._room_pane.repaint)

    def action_unfold(self) -> None:
        self._room_pane.toggle_all()

    def action_scroll(self, direction: int) -> None:
        if direction < 0:
            self._room_pane.scroll_page_up(animate=False)
        else:
            self._room_pane.scroll_page_down(animate=False)

    def action_edge(self, direction: int) -> None:
        if direction < 0:
            self._room_pane.scroll_home(animate=False)
        else:
            self._room_pane.scroll_end(animate=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The room's own keys rest while something is asked on top of it."""
        on_top = isinstance(self.screen, ModalScreen)
        return not (on_top and action in ("find", "unfold", "keys", "scroll", "edge"))

    def on_key(self, event: Key) -> None:
        """Keys that nobody took: typing anywhere goes to the prompt."""
        if isinstance(self.screen, ModalScreen):
            return
        if event.is_printable and event.character and isinstance(self.focused, Transcript):
            prompt = self.query_one(Prompt)
            prompt.focus()
            prompt.insert(event.character)

    # -- searching

    def action_find(self) -> None:
        self.query_one(Finder).open()

    @on(Finder.Searched)
    def _searched(self, searched: Finder.Searched) -> None:
        self._note(searched.found, seconds=None)

    @on(Finder.Closed)
    def _search_over(self) -> None:
        self._note("")
        self.query_one(Prompt).focus()

    # -- the prompt

    @on(Prompt.Away)
    def _away(self) -> None:
        self._room_pane.focus()

    @on(Transcript.Left)
    def _back(self) -> None:
        self.query_one(Prompt).focus()

    @on(Prompt.Recall)
    def _recall(self) -> None:
        def take(text: str | None) -> None:
            if text:
                self.query_one(Prompt).fill(text)

        self.push_screen(Recall(self._typed.texts), take)

    @on(TextArea.Changed, "#prompt")
    def _prompt_changed(self) -> None:
        if self._warned:
            self._note("")
        self.query_one(Prompt).aim()

    # -- the rest

    @on(TextSelected)
    def _selected(self) -> None:
        if text := self.screen.get_selected_text():
            self.copy_to_clipboard(text)

    def _note(self, text: str, seconds: float | None = NOTE_S) -> None:
        """Say something in the status row, for a while."""
        status = self.query_one(Status)
        status.note = text
        status.refresh()
        if self._note_timer is not None:
            self._note_timer.stop()
        self._note_timer = self.set_timer(seconds, self._forget) if text and seconds else None
        self._stopping = False
        if not text:
            self._warned = False

    def _forget(self) -> None:
        self._note("")

    def _scrolled(self, following: bool) -> None:
        status = self.query_one(Status)
        status.more = not following
        status.refresh()

    @property
    def _room_pane(self) -> Transcript:
        return self.query_one(Transcript)


def _is_light(colours: str) -> bool:
    """Whether a terminal that says its colours (`foreground;background`) is a light one."""
    return colours.rpartition(";")[2] in ("7", "15")
