"""Opening a room: its journal, its folder, the place of its commands, and who takes part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from org.chat.participant import ModelParticipant
from org.chat.profiles import PROFILES
from org.chat.room import Limits, Room, Schedule
from org.chat.state import State
from org.compose.opening import Opening
from org.compose.places import choose_place
from org.compose.servers import Servers
from org.compose.session import Session
from org.config import Member, Settings
from org.errors import Busy, EnvironmentProblem, UsageError
from org.events import Committed, Joined, Posted
from org.journal import RoomJournal, read_events, remove_room, room_folder
from org.sandbox.vm.place import VirtualMachine


@asynccontextmanager
async def open_session(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
    """A room with its journal, models and sandbox, until the block ends.

    Raises `Busy` when another process writes the room, `UsageError` for a room that is not there,
    `EnvironmentProblem` when `[sandbox] require` cannot be met.
    """
    async with AsyncExitStack() as stack:
        journal, room_id = await _journal(settings, opening)
        if not (opening.resume or opening.keep):
            stack.callback(_drop_unused, rooms_of(settings), room_id)
        await stack.enter_async_context(journal)
        workspace = opening.folder or room_folder(rooms_of(settings), room_id) / "work"
        _make(workspace, exist_ok=True)
        name = "" if opening.folder else room_id
        sandbox, place = await choose_place(
            settings, workspace, unsafe_local=opening.unsafe_local, in_machine=name
        )
        if isinstance(sandbox, VirtualMachine) and not opening.resume:
            await sandbox.clear()
        history = [entry.event for entry in await asyncio.to_thread(journal.read)]
        if settings.model is None:
            settings = replace(settings, model=_model_of(history))
        servers = Servers(settings, stack, opening.progress, opening.engines)
        session = Session(settings, opening, room_id, workspace, sandbox, place, servers)
        await enter_room(session, stack, await _roster(session, history), history, journal)
        yield session


async def enter_room(
    session: Session,
    stack: AsyncExitStack,
    participants: Sequence[ModelParticipant],
    history: Sequence[Committed],
    journal: RoomJournal | None,
) -> None:
    """Make the room of a session, until the stack is closed. Without a journal nothing of it is kept."""
    settings = session.settings
    limits = settings.limits
    session.room = await asyncio.to_thread(  # its history may be long
        Room,
        participants=participants,
        people=(settings.name,),
        journal=journal,
        files=session.sandbox,
        limits=Limits(limits.turns, limits.seconds, limits.tokens, limits.tools),
        schedule=Schedule(settings.policy, settings.parallel, settings.per_model),
        history=history,
    )
    await stack.enter_async_context(session.room)
    await stack.enter_async_context(session.watching())


def rooms_of(settings: Settings) -> Path:
    """The folder of all rooms."""
    return settings.places.rooms


def _drop_unused(rooms: Path, room: str) -> None:
    """Leave no trace of a new room in which nothing was said and nothing was made."""
    work = room_folder(rooms, room) / "work"
    if any(work.iterdir() if work.is_dir() else ()):
        return
    if not any(isinstance(entry.event, Posted) for entry in read_events(room_folder(rooms, room))):
        remove_room(rooms, room)


async def _roster(session: Session, history: Sequence[Committed]) -> list[ModelParticipant]:
    """Who takes part: as configured, or as it was when a room is resumed."""
    configured = {member.id: member for member in session.settings.participants}
    entered: dict[str, Joined | None] = dict.fromkeys(configured)
    if history:
        members = (await asyncio.to_thread(State.of, history)).members
        entered = {name: m.joined for name, m in members.items() if m.joined.profile in PROFILES}
    names = [session.settings.name, *entered]
    return [
        await session.participant(
            configured.get(name, Member(name)), [other for other in names if other != name], joined
        )
        for name, joined in entered.items()
    ]


def _model_of(history: Sequence[Committed]) -> str | None:
    """The model of a room that is resumed, for whoever joins it."""
    return next((event.model for event in history if isinstance(event, Joined) and event.model), None)


async def _journal(settings: Settings, opening: Opening) -> tuple[RoomJournal, str]:
    """(the journal, the room's id). A new room without a name takes the next free number."""
    rooms = rooms_of(settings)
    if opening.room:
        folder = room_folder(rooms, opening.room)
        if opening.resume and not folder.is_dir():
            raise UsageError(f"there is no room `{opening.room}`", "`org rooms` lists them")
        if not opening.resume and folder.is_dir():
            raise UsageError(
                f"the room `{opening.room}` exists", f"go on in it with `org chat --resume {opening.room}`"
            )
        return await asyncio.to_thread(RoomJournal.open, folder, url=opening.url), opening.room
    number = 1 + max((int(p.name[5:]) for p in rooms.glob("room-*") if p.name[5:].isdecimal()), default=0)
    while True:
        room_id = f"room-{number}"
        folder = room_folder(rooms, room_id)
        try:
            _make(folder)
            return await asyncio.to_thread(RoomJournal.open, folder, url=opening.url), room_id
        except (FileExistsError, Busy):  # somebody took this number a moment ago
            number += 1


def _make(folder: Path, *, exist_ok: bool = False) -> None:
    """Make a private folder. Raises `FileExistsError` when it is not ours, else `EnvironmentProblem`."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok, mode=0o700)
    except FileExistsError:
        if exist_ok:  # then it is no folder
            raise EnvironmentProblem(f"it is in the way of a folder: `{folder}`") from None
        raise
    except OSError as error:
        raise EnvironmentProblem(
            f"no room can be kept at `{folder}`: {error.strerror}",
            "name a folder that can be written in XDG_STATE_HOME",
        ) from error
