"""The room as the screen needs it: in this process, or at the other end of a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from org.chat.exchange import Limits
from org.chat.state import State
from org.commands import COMMANDS, command
from org.compose.session import Session
from org.events import Committed, Event

Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Link:
    """What one can see of a room, and do in it.

    `say` waits until the exchange is over; `command` does what a line asks for and answers what to
    show, or None when it is something to say; both raise `OrgError`, and `command` raises `Quit`.
    `interrupt` answers whether anything ran. `present` are passing events that tell what goes on already;
    `decide` answers a call that was `Asked` about. `welcome` says where one is. `commands` are the words
    behind a slash, with their use and what they do. `history` is the file of what was typed, or None.
    """

    id: str
    person: str
    place: str
    welcome: str
    state: Callable[[], State] = field(repr=False)
    events: Callable[[], Sequence[Committed]] = field(repr=False)
    observe: Callable[[Observer], Callable[[], None]] = field(repr=False)
    limits: Callable[[], Limits] = field(repr=False)
    say: Callable[[str], Awaitable[object]] = field(repr=False)
    command: Callable[[str], Awaitable[str | None]] = field(repr=False)
    interrupt: Callable[[], bool] = field(repr=False)
    present: Callable[[], Sequence[Event]] = field(repr=False)
    decide: Callable[[str, bool], Awaitable[None]] = field(repr=False)
    commands: Mapping[str, tuple[str, str]] = field(repr=False)
    history: Path | None = None


def local(session: Session) -> Link:
    """A room of this process."""
    room, person = session.room, session.settings.name
    return Link(
        id=session.id,
        person=person,
        place=session.place,
        welcome=f"Commands run {session.place}; files are in {session.files_in}.",
        state=lambda: room.state,
        events=lambda: room.events,
        observe=room.observe,
        limits=lambda: room.limits,
        say=lambda text: room.say(person, text),
        command=lambda text: command(session, text),
        interrupt=room.interrupt,
        present=lambda: (),
        decide=_nothing_is_asked,
        commands={name: (c.usage, c.about) for name, c in COMMANDS.items() if c.about},
        history=session.settings.places.state / "history",
    )


async def _nothing_is_asked(id: str, allow: bool) -> None:
    """A room of this process asks the screen itself, see `org.tui.Asking`."""
    raise AssertionError(f"nobody was asked for {id}")
