"""The rooms that are served.

A room is looked at without being opened: what it was, and what another process that has it open adds
to it, is read from its journal. It is opened, its lock taken and its models asked, when somebody wants
to say or change something in it; from then on this process is its only writer until the hub is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import TypeAlias

from org.compose.opening import Opening
from org.compose.rooms import rooms_of
from org.compose.session import Session
from org.config import Member, Settings
from org.errors import Busy, UsageError
from org.journal import RoomInfo, holder, list_rooms, room_folder
from org.serve.refusal import Refusal
from org.serve.served import Observer, Served, let_go
from org.tooling import ToolCall

RETRY_S = 0.1
"""How often the lock of a room is tried while its holder is about to let go."""
MAX_OPEN = 64
"""Rooms that are open at once; each keeps its lock, its clients and its views."""
MAX_LOOKED_AT = 64
"""Rooms whose journals are kept in memory without being open or read by anybody."""

OpenRoom: TypeAlias = Callable[[Settings, Opening], AbstractAsyncContextManager[Session]]
"""What opens a room: `org.compose.rooms.open_session`, or a test's own."""


class Hub:
    """The rooms of one person, by id. Use it as an async context manager.

    `patience_s` is how long a room that another process holds is waited for: a new generation waits
    for the one that it takes over from. `observers` says who, besides, is shown every event of an open
    room.
    """

    def __init__(
        self,
        settings: Settings,
        open_room: OpenRoom,
        opening: Opening | None = None,
        *,
        patience_s: float = 0.0,
        observers: Callable[[str], Sequence[Observer]] = lambda room_id: (),
    ) -> None:
        self.settings = settings
        self.draining = False
        self._closing = False
        self._opening = opening or Opening()
        self._open_room = open_room
        self._patience_s = patience_s
        self._observers = observers
        self._rooms: dict[str, Served] = {}

    async def __aenter__(self) -> Hub:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close(0)

    @property
    def served(self) -> Sequence[Served]:
        """The rooms that are open here or were looked at."""
        return tuple(self._rooms.values())

    def listing(self) -> list[RoomInfo]:
        """All rooms there are. Reads files: call it in a thread."""
        return list_rooms(rooms_of(self.settings))

    async def look(self, room_id: str) -> Served:
        """A room as it is now. Raises `Refusal` when there is none of that id."""
        served = self._rooms.pop(room_id, None)
        if served is not None:
            self._rooms[room_id] = served  # as the last one used
            if served.session is not None:
                return served
        try:
            folder = room_folder(rooms_of(self.settings), room_id)
            served = served or Served(room_id, folder)
            await served.refresh()
        except UsageError as error:
            self._forget(room_id)
            raise Refusal(404, f"there is no room `{room_id[:64]}`", "`GET /rooms` lists them") from error
        self._make_space()
        return self._rooms.setdefault(room_id, served)

    async def open(self, room_id: str) -> Served:
        """A room to say or change something in. Raises `Refusal`, or `Busy` with who has it open."""
        served = await self.look(room_id)
        if served.session is not None:
            return served
        with served.wanted():
            await self._make_room()
            if self._rooms.get(room_id) is not served:  # it was forgotten meanwhile, and may be back
                return await self.open(room_id)
            await self._open(served)
        return served

    async def _open(self, served: Served) -> None:
        """Open it; a room that another process holds is waited for, until we let go of all rooms."""
        patience = asyncio.get_running_loop().time() + self._patience_s
        while True:
            opening = replace(self._opening, room=served.id, resume=True, ask=served.asking)
            try:
                await served.open(self._open_room(self.settings, opening), self._observers(served.id))
            except Busy:
                if self._closing:
                    raise let_go() from None
                if asyncio.get_running_loop().time() >= patience:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def open_with(self, room_id: str, name: str) -> Served:
        """A room as `open` has it. Raises `Refusal` too when nobody there is called `name`."""
        members = (await self.look(room_id)).state.members
        if name not in members:
            raise Refusal(404, f"nobody here is called `{name[:40]}`", ", ".join(members))
        return await self.open(room_id)

    async def create(self, room_id: str | None = None, members: Sequence[Member] | None = None) -> Served:
        """Open a new room; without an id it takes the next free number, without `members` the roster
        that is configured. Raises `Refusal` when it is there already."""
        await self._make_room()
        settings = (
            replace(self.settings, participants=tuple(members)) if members is not None else self.settings
        )
        opening = replace(self._opening, room=room_id or "", resume=False)
        if room_id is None:
            return await self._create_numbered(settings, opening)
        folder = room_folder(rooms_of(settings), room_id)
        if room_id in self._rooms or folder.exists():
            raise Refusal(409, f"the room `{room_id}` exists", f"it is at /rooms/{room_id}")
        served = self._rooms[room_id] = Served(room_id, folder)
        try:
            session = self._open_room(settings, replace(opening, ask=served.asking))
            await served.open(session, self._observers(room_id))
        except BaseException:
            del self._rooms[room_id]
            raise
        return served

    async def _create_numbered(self, settings: Settings, opening: Opening) -> Served:
        async def ask(participant: str, call: ToolCall) -> bool:
            return await served.asking(participant, call)  # nobody calls before there is a room

        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._open_room(settings, replace(opening, ask=ask)))
            served = Served(session.id, room_folder(rooms_of(self.settings), session.id))
            self._rooms[session.id] = served
            served.adopt(session, stack.pop_all(), self._observers(session.id))
        return served

    def holder(self, room_id: str) -> str:
        """Who else has a room open, or empty. Reads a file."""
        return holder(room_folder(rooms_of(self.settings), room_id))

    def drain(self) -> None:
        """End the event streams, with their last ids; their readers go on elsewhere. What comes over the
        connections that are left is done as before: rooms are opened for it, if nobody else has them."""
        self.draining = True
        for served in self._rooms.values():
            served.stream.end()

    async def close(self, deadline_s: float) -> None:
        """Let go of all rooms, each as soon as its exchange is over; after the deadline that is
        interrupted, and what was said so far is kept."""
        self.draining = self._closing = True
        await asyncio.gather(*(served.close(deadline_s) for served in self._rooms.values()))

    async def _make_room(self) -> None:
        """Let go of the room that was idle for longest, when many are open. Raises `Refusal` when all of
        them are in use, or all are being let go of."""
        if self._closing:
            raise let_go()
        opened = [served for served in self._rooms.values() if served.session is not None]
        if len(opened) < MAX_OPEN:
            return
        idle = next((s for s in opened if not s.in_use), None)
        if idle is None:
            raise Refusal(503, f"{MAX_OPEN} rooms are in use here already", "start another server for more")
        self._forget(idle.id)
        await idle.close(0)

    def _make_space(self) -> None:
        idle = [s.id for s in self._rooms.values() if s.session is None and not s.in_use]
        for room_id in idle[:-MAX_LOOKED_AT]:
            del self._rooms[room_id]

    def _forget(self, room_id: str) -> None:
        if served := self._rooms.pop(room_id, None):
            served.stream.end()
