"""One room that is served: looked at, followed, opened, spoken in, let go of."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from org.chat.ledger import Ledger
from org.chat.room import Room
from org.chat.state import State
from org.compose.session import Session
from org.errors import OrgError
from org.events import Committed, Event, Notice, Posted, Stepped, Stopped
from org.journal import read_events
from org.messages import Message, Usage
from org.serve.asking import Asking
from org.serve.refusal import Refusal
from org.serve.stream import Stream

FOLLOW_S = 0.25
"""How often the journal of a room that is open elsewhere is looked at while somebody reads it here."""

Observer: TypeAlias = Callable[[Event], None]

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
        self.asking = Asking(self.stream)
        self._lock = asyncio.Lock()  # held while it is opened, closed, or read from its journal
        self._posting = asyncio.Lock()
        self._keys: dict[str, list[Posted]] = {}
        self._usage: dict[str, Usage] = {}
        self._counted = 0  # how many events these two know
        self._exchanges: set[asyncio.Task[Any]] = set()
        self._asides: dict[str, asyncio.Task[Any]] = {}
        self._following: asyncio.Task[None] | None = None
        self._wanted = 0  # how many are about to open it
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
    def in_use(self) -> bool:
        """Whether it must not be let go of: something runs in it, or is about to."""
        busy = self._lock.locked() or self._posting.locked()
        working = self._exchanges or self._asides or self._following
        return bool(busy or working or self._wanted or self.stream.readers)

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """It is not let go of meanwhile."""
        self._wanted += 1
        try:
            yield
        finally:
            self._wanted -= 1

    @property
    def room(self) -> Room:
        """The open room. Raises `Refusal` when it was closed meanwhile."""
        if self.session is None or self._closed:
            raise let_go()
        return self.session.room

    # -- looking at it

    async def refresh(self) -> None:
        """Take in what the journal has beyond what is known. Raises `UsageError` when there is no such
        room any more, `JournalError` when its journal cannot be read."""
        if not (self._lock.locked() and self.events):  # opening it may take long: what is known is shown
            await self.catch_up()

    async def catch_up(self) -> None:
        """The same, whatever it has to wait for."""
        async with self._lock:
            if self.session is None:
                if self.events or self.stream.readers:
                    await self._journal.commit(*await asyncio.to_thread(self._news))
                else:
                    self._know(await asyncio.to_thread(lambda: Ledger(None, self._news())))

    def _news(self) -> list[Committed]:
        """What the journal has beyond what is known. Reads a file."""
        return [entry.event for entry in read_events(self.folder, len(self.events))]

    def _know(self, journal: Ledger) -> None:
        """Go on from what was read of the room, which nobody was shown yet."""
        self._journal = journal
        self.stream.log, self.stream.seq = journal.events, len(journal.events)
        journal.observe(self.stream.take)

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
        self, opening: AbstractAsyncContextManager[Session], observers: Sequence[Observer]
    ) -> None:
        """Open it, unless it is open. Raises what `open_session` raises, or `Refusal` when it was closed."""
        async with self._lock:
            if self._closed:
                raise let_go()
            if self.session is None:
                self._enter(await self._closing.enter_async_context(opening), observers)

    def adopt(self, session: Session, closing: AsyncExitStack, observers: Sequence[Observer]) -> None:
        """Take over a room that was just made; `closing` ends its session."""
        self._closing = closing
        self._enter(session, observers)

    def _enter(self, session: Session, observers: Sequence[Observer]) -> None:
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
        if self._stop_asides():
            await asyncio.wait(self._asides.values())
        async with self._posting, self._lock:
            self._closed = True
            await self._closing.aclose()
            if self.session is not None:
                self._journal = await asyncio.to_thread(Ledger, None, self.events)
                self.stream.log = self._journal.events
                self.session = None
        if self._following is not None:
            self._following.cancel()

    # -- what people do

    async def post(self, sender: str, text: str, key: str = "") -> list[Message]:
        """Post what a person says, at most once for a key, and have it answered in the background.
        Raises `Refusal` when something else was posted with the key."""
        digest = _digest(sender, text) if key else ""
        async with self._posting:
            if key and (found := self._posted_as(key)):
                if any(event.digest not in ("", digest) for event in found):
                    raise Refusal(409, f"another text was posted with this key: `{key}`", "take a new key")
                return [event.message for event in found]
            posted = await self.room.post(sender, text, key, digest)
        exchange = asyncio.create_task(self._answer())
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._over)
        return posted

    async def _answer(self) -> Stopped:
        if self._asides:
            await asyncio.wait(self._asides.values())
        return await self.room.answer()

    def aside(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done for a participant between two exchanges, in the background, one thing at a
        time. Raises `Refusal` when the room is busy, or the participant is."""
        if self.running or name in self._asides:
            raise _busy()
        task = self._asides[name] = asyncio.create_task(work())
        task.add_done_callback(lambda _: self._asides.pop(name))
        task.add_done_callback(self._over)

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[Room]:
        """The open room, while nothing runs in it and nothing is posted. Raises `Refusal` when it is busy."""
        async with self._posting:
            if self.running or self._asides:
                raise _busy()
            yield self.room

    def interrupt(self) -> bool:
        """Stop the exchange, and what is done aside; whether any ran."""
        stopped = self._stop_asides()
        return (self.session is not None and self.session.room.interrupt()) or stopped

    def _stop_asides(self) -> bool:
        for task in self._asides.values():
            task.cancel()
        return bool(self._asides)

    def _posted_as(self, key: str) -> list[Posted]:
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
                self._keys.setdefault(event.key, []).append(event)
            elif isinstance(event, Stepped) and event.usage:
                name = event.participant
                self._usage[name] = self._usage.get(name, Usage()) + event.usage
        self._counted = len(self.events)

    def _over(self, work: asyncio.Task[Any]) -> None:
        self._exchanges.discard(work)
        if work.cancelled():
            return
        error = work.exception()
        if isinstance(error, OrgError):
            _log.error("room %s: it ended: %s", self.id, error.message)
            self.stream.take(Notice(error.message, error.hint))
        elif error is not None:
            # A bug in one room is reported, and the others go on.
            context = {"message": f"room {self.id}: what ran there ended", "exception": error}
            work.get_loop().call_exception_handler(context)


def _digest(sender: str, text: str) -> str:
    """What tells apart what is sent with one key."""
    return hashlib.sha256(f"{sender}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _busy() -> Refusal:
    return Refusal(409, "the room is busy", "interrupt it first")


def let_go() -> Refusal:
    """This server has, or is about to have, the room no more."""
    hint = "ask again: it, or one that has taken over, will open it"
    return Refusal(503, "this server has let go of the room", hint, {"Retry-After": "1"})
