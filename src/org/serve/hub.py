"""The rooms that are served.

A room is looked at without being opened: what it was, and what another process that has it open adds
to it, is read from its journal. It is opened, its lock taken and its models asked, when somebody wants
to say or change something in it; from then on this process is its only writer until the hub is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from org.chat.ledger import Ledger
from org.chat.room import Room
from org.chat.state import State
from org.compose import Opening, Session, rooms_of
from org.config import Member, Settings
from org.errors import Busy, OrgError, UsageError
from org.events import Committed, Event, Notice, Posted, Stepped, Stopped
from org.journal import RoomInfo, holder, list_rooms, read_events, room_folder
from org.messages import Message, Usage
from org.serve.refusal import Refusal
from org.serve.stream import Stream

FOLLOW_S = 0.25
"""How often the journal of a room that is open elsewhere is looked at while somebody reads it here."""
RETRY_S = 0.1
"""How often the lock of a room is tried while its holder is about to let go."""
MAX_OPEN = 64
"""Rooms that are open at once; each keeps its lock, its clients and its views."""
MAX_LOOKED_AT = 64
"""Rooms whose journals are kept in memory without being open or read by anybody."""

OpenRoom: TypeAlias = Callable[[Settings, Opening], AbstractAsyncContextManager[Session]]
"""What opens a room: `org.compose.open_session`, or a test's own."""

_log = logging.getLogger("org.serve")


class Served:
    """One room: what happened in it, its event stream, and, while it is open, its session."""

    def __init__(self, room_id: str, folder: Path) -> None:
        self.id = room_id
        self.folder = folder
        self.session: Session | None = None
        self._journal = Ledger(None)  # what was read while the room is not open here
        self.stream = Stream(self._journal.events)
        self._journal.observe(self.stream.take)
        self._lock = asyncio.Lock()  # held while it is opened, closed, or read from its journal
        self._posting = asyncio.Lock()
        self._keys: dict[str, list[Message]] = {}
        self._usage: dict[str, Usage] = {}
        self._counted = 0  # how many events these two know
        self._exchanges: set[asyncio.Task[Stopped]] = set()
        self._following: asyncio.Task[None] | None = None
        self._closing = AsyncExitStack()
        self._closed = False

    @property
    def events(self) -> Sequence[Committed]:
        return self.stream.log

    @property
    def state(self) -> State:
        return self._journal.state if self.session is None else self.session.room.state

    @property
    def running(self) -> bool:
        """Whether an exchange runs here."""
        return bool(self._exchanges)

    @property
    def room(self) -> Room:
        """The open room. Raises `Refusal` when it was closed meanwhile."""
        if self.session is None or self._closed:
            raise _let_go()
        return self.session.room

    # -- looking at it

    async def refresh(self) -> None:
        """Take in what the journal has beyond what is known. Raises `UsageError` when there is no such
        room any more, `JournalError` when its journal cannot be read."""
        if self._lock.locked() and self.events:
            return  # it is being opened, which may take long; what is known is shown meanwhile
        async with self._lock:
            if self.session is None:
                found = await asyncio.to_thread(read_events, self.folder, len(self.events))
                await self._journal.commit(*(entry.event for entry in found))

    def follow(self) -> None:
        """Keep up with the journal as long as somebody reads the stream and the room is not open here."""
        if self.session is None and self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            while self.session is None and not self.stream.ended:
                await asyncio.sleep(FOLLOW_S)
                if not self.stream.readers:
                    return
                await self.refresh()
        except OrgError as error:
            _log.warning("room %s cannot be followed: %s", self.id, error.message)
            self.stream.end()
        finally:
            self._following = None

    # -- opening and closing it

    async def open(
        self, opening: AbstractAsyncContextManager[Session], observers: Sequence[_Observer]
    ) -> None:
        """Open it, unless it is open. Raises what `open_session` raises."""
        async with self._lock:
            if self.session is None:
                self._enter(await self._closing.enter_async_context(opening), observers)

    def adopt(self, session: Session, closing: AsyncExitStack, observers: Sequence[_Observer]) -> None:
        """Take over a room that was just made; `closing` ends its session."""
        self._closing = closing
        self._enter(session, observers)

    def _enter(self, session: Session, observers: Sequence[_Observer]) -> None:
        """From now on the room is the source; nothing may be awaited here, so that nothing is missed."""
        self.session = session
        room = session.room
        self.stream.log = room.events
        for event in room.events[self.stream.seq :]:
            self.stream.take(event)
        for observer in (self.stream.take, *observers):
            room.observe(observer)
        self._journal = Ledger(None)

    async def close(self, deadline_s: float) -> None:
        """Let the exchange come to its end, for that long; then interrupt it and let go of the room."""
        if self._exchanges:
            await asyncio.wait(self._exchanges, timeout=deadline_s)
        async with self._posting, self._lock:
            self._closed = True
            await self._closing.aclose()
            if self.session is not None:
                self._journal = Ledger(None, self.events)
                self.stream.log = self._journal.events
                self.session = None
        if self._following is not None:
            self._following.cancel()

    # -- what people do

    async def post(self, sender: str, text: str, key: str = "") -> list[Message]:
        """Post what a person says, at most once for a key, and have it answered in the background."""
        async with self._posting:
            if key and (found := self._posted_as(key)):
                return found
            posted = await self.room.post(sender, text, key)
        exchange = asyncio.create_task(self.room.answer())
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._answered)
        return posted

    def interrupt(self) -> bool:
        """Stop the exchange; whether any ran."""
        return self.session is not None and self.session.room.interrupt()

    def _posted_as(self, key: str) -> list[Message]:
        self._count()
        return self._keys.get(key, [])

    @property
    def usage(self) -> Mapping[str, Usage]:
        """Tokens that each participant took over the life of the room."""
        self._count()
        return self._usage

    def _count(self) -> None:
        for event in self.events[self._counted :]:
            if isinstance(event, Posted) and event.key:
                self._keys.setdefault(event.key, []).append(event.message)
            elif isinstance(event, Stepped) and event.usage:
                name = event.participant
                self._usage[name] = self._usage.get(name, Usage()) + event.usage
        self._counted = len(self.events)

    def _answered(self, exchange: asyncio.Task[Stopped]) -> None:
        self._exchanges.discard(exchange)
        if exchange.cancelled():
            return
        error = exchange.exception()
        if isinstance(error, OrgError):
            _log.error("room %s: the exchange ended: %s", self.id, error.message)
            self.stream.take(Notice(error.message, error.hint))
        elif error is not None:
            # A bug in one room is reported, and the others go on.
            context = {"message": f"room {self.id}: the exchange ended", "exception": error}
            exchange.get_loop().call_exception_handler(context)


_Observer: TypeAlias = Callable[[Event], None]


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
        observers: Callable[[str], Sequence[_Observer]] = lambda room_id: (),
    ) -> None:
        self.settings = settings
        self.draining = False
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
        await self._make_room()
        patience = asyncio.get_running_loop().time() + self._patience_s
        while True:
            opening = replace(self._opening, room=room_id, resume=True)
            try:
                await served.open(self._open_room(self.settings, opening), self._observers(room_id))
            except Busy:
                if asyncio.get_running_loop().time() >= patience:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return served

    async def create(self, room_id: str | None = None, members: Sequence[Member] = ()) -> Served:
        """Open a new room; without an id it takes the next free number, without `members` the roster
        that is configured. Raises `Refusal` when it is there already."""
        await self._make_room()
        settings = replace(self.settings, participants=tuple(members)) if members else self.settings
        opening = self._open_room(settings, replace(self._opening, room=room_id or "", resume=False))
        if room_id is None:
            return await self._create_numbered(opening)
        folder = room_folder(rooms_of(settings), room_id)
        if room_id in self._rooms or folder.exists():
            raise Refusal(409, f"the room `{room_id}` exists", f"it is at /rooms/{room_id}")
        served = self._rooms[room_id] = Served(room_id, folder)
        try:
            await served.open(opening, self._observers(room_id))
        except BaseException:
            del self._rooms[room_id]
            raise
        return served

    async def _create_numbered(self, opening: AbstractAsyncContextManager[Session]) -> Served:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(opening)
            served = Served(session.id, room_folder(rooms_of(self.settings), session.id))
            self._rooms[session.id] = served
            served.adopt(session, stack.pop_all(), self._observers(session.id))
        return served

    def holder(self, room_id: str) -> str:
        """Who else has a room open, or empty. Reads a file."""
        return holder(room_folder(rooms_of(self.settings), room_id))

    def drain(self) -> None:
        """End the event streams, with their last ids; their readers go on elsewhere."""
        self.draining = True
        for served in self._rooms.values():
            served.stream.end()

    async def close(self, deadline_s: float) -> None:
        """Let go of all rooms, each as soon as its exchange is over; after the deadline that is
        interrupted, and what was said so far is kept."""
        self.draining = True
        await asyncio.gather(*(served.close(deadline_s) for served in self._rooms.values()))

    async def _make_room(self) -> None:
        """Let go of the room that was idle for longest, when many are open. Raises `Refusal` when all of
        them are in use, or the server is about to end."""
        if self.draining:
            raise _let_go()
        opened = [served for served in self._rooms.values() if served.session is not None]
        if len(opened) < MAX_OPEN:
            return
        idle = next((s for s in opened if not (s.running or s.stream.readers)), None)
        if idle is None:
            raise Refusal(503, f"{MAX_OPEN} rooms are in use here already", "start another server for more")
        self._forget(idle.id)
        await idle.close(0)

    def _make_space(self) -> None:
        idle = [s.id for s in self._rooms.values() if s.session is None and not s.stream.readers]
        for room_id in idle[:-MAX_LOOKED_AT]:
            del self._rooms[room_id]

    def _forget(self, room_id: str) -> None:
        if served := self._rooms.pop(room_id, None):
            served.stream.end()


def _let_go() -> Refusal:
    hint = "ask again: it, or one that has taken over, will open it"
    return Refusal(503, "this server has let go of the room", hint, {"Retry-After": "1"})
