"""Who is here and what they do; what the room has used of what it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from textual.content import Content
from textual.widget import Widget

from org.chat.state import Member
from org.tui.link import Link
from org.tui.scene import Live, Scene
from org.wording import address, duration, one_line

COLOURS = tuple(f"$text-{name}" for name in ("primary", "success", "accent", "secondary", "error", "warning"))
"""Of participants, in the order in which they came; the transcript has the same."""

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPIN_S = 0.1
DIM = "$foreground 60%"
NEARLY = 0.8
"""The part of a limit from which on it is shown as a warning."""

Part = str | tuple[str, str] | Content


def voices(link: Link) -> list[str]:
    """All participants that have a colour: who ever joined, in order."""
    seen = dict.fromkeys(m.joined.name for m in link.state().members.values() if m.joined.kind == "model")
    return list(seen)


class Roster(Widget):
    """A column with everybody, or with `-line` one row of names and what they do."""

    DEFAULT_CSS = """
    Roster {
        width: 32;
        height: 1fr;
        padding: 1 1 0 1;
        border-left: solid $foreground 20%;
        &.-line { width: 1fr; height: 1; padding: 0 1; border-left: none; dock: none; }
    }
    """

    def __init__(self, link: Link, scene: Scene, clock: Callable[[], float], *, line: bool) -> None:
        super().__init__(classes="-line" if line else "", id="who-line" if line else "who")
        self._link = link
        self._scene = scene
        self._clock = clock
        self._line = line

    def render(self) -> Content:
        members = self._link.state().members
        names = voices(self._link)
        now = self._clock()
        rows: list[Content] = []
        for name, member in members.items():
            colour = COLOURS[names.index(name) % len(COLOURS)] if name in names else "$foreground"
            live = self._scene.live.get(name)
            if self._line:
                if member.joined.kind == "model":
                    rows.append(self._short(name, colour, live, now))
            else:
                rows += self._long(name, colour, member, live, now)
        return Content("  " if self._line else "\n").join(rows)

    def _short(self, name: str, colour: str, live: Live | None, now: float) -> Content:
        return Content.assemble(
            self._mark(live, now), " ", (name, colour), (f" {_doing(live, now, 20)}" if live else "", DIM)
        )

    def _long(self, name: str, colour: str, member: Member, live: Live | None, now: float) -> list[Content]:
        joined = member.joined
        width = max(10, self.size.width)
        head = Content.assemble(self._mark(live, now), " ", (one_line(name, 18), f"bold {colour}"))
        if member.unread:
            head = Content.assemble(head, (f"  {len(member.unread)} unread", "$text-warning"))
        rows = [head]
        if joined.kind == "model":
            model = live.model if live else joined.model
            model = model.rpartition("/")[2]  # the end of a long name tells more than its beginning
            traits = " · ".join(trait for trait in (joined.profile, model) if trait)
            rows.append(Content.assemble((f"  {one_line(traits, width - 2)}", DIM)))
        if member.mode.kind != "group":
            rows.append(
                Content.assemble((f"  → {one_line(address(member.mode), width - 4)}", "$text-warning"))
            )
        if live:
            rows.append(Content(f"  {_doing(live, now, width - 2)}"))
        return [*rows, Content("")]

    def _mark(self, live: Live | None, now: float) -> Content:
        if live is None:
            return Content.assemble(("·", DIM))
        return Content.assemble((SPINNER[int(now / SPIN_S) % len(SPINNER)], "$text-warning"))


def _doing(live: Live, now: float, width: int) -> str:
    waited = duration(now - live.doing_since)
    return f"{one_line(live.doing, max(4, width - len(waited) - 1))} {waited}"


class _Budget(NamedTuple):
    name: str
    short: str
    used: float
    limit: float


class Status(Widget):
    """One row: the room, where commands run, and what the newest exchange took of its limits."""

    DEFAULT_CSS = """
    Status {
        height: 1;
        padding: 0 1;
        background: $foreground 8%;
    }
    """

    def __init__(self, link: Link, scene: Scene, clock: Callable[[], float]) -> None:
        super().__init__(id="status")
        self._link = link
        self._scene = scene
        self._clock = clock
        self.note = ""
        """Shown in place of the rest: what a key would do now."""
        self.more = False
        """Whether the newest is out of sight."""

    def render(self) -> Content:
        if self.note:
            return Content.assemble((self.note, "bold $text-warning"))
        width = self.size.width
        figures, limits = self._scene.figures, self._link.limits()
        budgets = [
            _Budget("turns", "turns", figures.turns, limits.turns),
            _Budget("s", "s", figures.seconds(self._clock()), limits.seconds),
            _Budget("tokens", "tok", figures.tokens, limits.tokens),
            _Budget("tools", "tools", figures.tools, limits.tools),
        ]
        made = self._row(budgets, short=False)
        return made if made.cell_length <= width else self._row(budgets, short=True)

    def _row(self, budgets: list[_Budget], *, short: bool) -> Content:
        between = "  " if short else " · "
        place = self._link.place.partition(":")[0]
        place = one_line(place.removeprefix("in ") if short else place, 20 if short else 40)
        walled = not place.startswith("on this machine")
        parts: list[Part] = [("↓ more below  ", "bold $text-warning")] if self.more else []
        parts += [(self._link.id, "bold"), (f"{between}{place}", DIM if walled else "$text-warning")]
        for name, word, used, limit in budgets:
            style = "$text-warning" if limit and used >= NEARLY * limit else DIM
            of = f"/{_number(limit)}" if limit and not short else ""
            parts += [
                (between, DIM),
                (f"{_number(used)}{of} {word if short else name}", style),
            ]
        return Content.assemble(*parts)


def _number(value: float) -> str:
    """`950`, `12.3k`, `200k`."""
    if value < 10_000:
        return f"{value:.0f}"
    return f"{value / 1000:.1f}k" if value < 100_000 and value % 1000 else f"{value / 1000:.0f}k"
