"""A room's journal: one process writes it, any may read it.

A committed event is one row: its number in the room, when it was written, its type, and the event as
JSON (`org.encoding`). Rows are only ever added.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias, get_args

from org.encoding import decode, encode, type_name
from org.errors import JournalError, UsageError
from org.events import Committed
from org.journal.files import check, corrupt, create, reading, sqlite_errors
from org.journal.folder import JOURNAL, FolderLock

_Row: TypeAlias = tuple[int, float, str, bytes]

# Written as the bytes of `encode`, which may hold lone surrogates, and kept as text for whoever looks
# into the file.
_INSERT = "INSERT INTO events VALUES (?, ?, ?, CAST(? AS TEXT))"

_COMMITTED: tuple[type, ...] = get_args(Committed)
_TYPE_NAMES = {kind: type_name(kind) for kind in _COMMITTED}

# All journals of the process are written by one thread, so that the event loop never waits for the
# disk and each journal gets its events in the order in which they were appended.
_WRITER = ThreadPoolExecutor(1, "journal")


class Recorded(NamedTuple):
    """An event as it stands in a journal: `seq` counts from 1 without a gap, `at` is Unix time."""

    seq: int
    at: float
    event: Committed


class RoomJournal:
    """The journal of one room, open for writing. Made by `open`, ended by `close`.

    The first append that fails is the last: what follows may build on what was lost, so every later
    one fails alike, and the file stays a true beginning of what happened.
    """

    def __init__(self, path: Path, lock: FolderLock, connection: sqlite3.Connection, last: int) -> None:
        self.path = path
        self._lock = lock
        self._connection = connection
        self._last = last
        self._failure: JournalError | None = None

    @classmethod
    def open(cls, folder: Path, *, url: str = "") -> RoomJournal:
        """Take the room's lock and open its journal, making both the folder (0700) and the file (0600)
        when they are missing. `url` is where others can join the room meanwhile.

        Raises `Busy`, `JournalCorrupt`, `JournalTooNew` or `JournalError`; then nothing was written.
        """
        path = folder / JOURNAL
        with ExitStack() as stack:
            lock = FolderLock(folder, url)
            stack.callback(lock.release)
            if path.exists():
                check(path)
            else:
                create(path)
            with sqlite_errors(path):
                connection = _connect(path)
                stack.callback(connection.close)
                ((last,),) = connection.execute("SELECT coalesce(max(seq), 0) FROM events")
            stack.pop_all()
        return cls(path, lock, connection, last)

    @property
    def last(self) -> int:
        """The number of the last event that was appended; 0 in an empty journal."""
        return self._last

    async def append(self, events: Sequence[Committed]) -> None:
        """Make the events durable, all or none, before returning. Raises `JournalError`.

        Cancelling it does not undo it: the events are written all the same, before any later ones.
        """
        if not events:
            return
        now = time.time()
        rows: list[_Row] = [
            (seq, now, _TYPE_NAMES[type(event)], encode(event))
            for seq, event in enumerate(events, self._last + 1)
        ]
        self._last += len(rows)
        await _in_order(lambda: self._write(rows))

    def read(self) -> list[Recorded]:
        """Everything in the journal, in order. Raises `JournalError`."""
        return read_events(self.path.parent)

    async def close(self) -> None:
        """Wait for what is being written, then let go of the room. Closing twice is harmless."""
        await _in_order(self._close)

    async def __aenter__(self) -> RoomJournal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _write(self, rows: list[_Row]) -> None:
        if self._failure is not None:
            raise JournalError(self._failure.message, self._failure.hint)
        try:
            with sqlite_errors(self.path):
                self._insert(rows)
        except JournalError as error:
            self._failure = error
            raise

    def _insert(self, rows: list[_Row]) -> None:
        if len(rows) == 1:  # a transaction of its own
            self._connection.execute(_INSERT, rows[0])
            return
        self._connection.execute("BEGIN")
        try:
            self._connection.executemany(_INSERT, rows)
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _close(self) -> None:
        self._connection.close()
        self._lock.release()


def read_events(folder: Path, after: int = 0) -> list[Recorded]:
    """The events of a room after the one numbered `after`, in order, as of now.

    For anybody, while the room is open elsewhere too; nothing of the journal is changed. Raises
    `UsageError` when there is no such room and `JournalError` when its journal cannot be read.
    """
    path = journal_of(folder)
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT seq, at, CAST(data AS BLOB) FROM events WHERE seq > ? ORDER BY seq", (after,)
        ).fetchall()
    for place, (seq, _, _) in enumerate(rows, after + 1):
        if seq != place:
            raise corrupt(path, f"event {place} is missing")
    return recorded(path, rows)


def journal_of(folder: Path) -> Path:
    """The journal of a room that exists. Raises `UsageError`."""
    path = folder / JOURNAL
    if not path.exists():
        raise UsageError(f"no such room: {folder.name}", "`org rooms` lists them")
    return path


def recorded(path: Path, rows: Iterable[tuple[int, float, bytes]]) -> list[Recorded]:
    """Rows as events. Raises `JournalCorrupt`."""
    found = []
    for seq, at, data in rows:
        try:
            event = decode(data)
        except ValueError as error:
            raise corrupt(path, f"event {seq}: {error}") from error
        if not isinstance(event, Committed):
            raise corrupt(path, f"event {seq}: `{type_name(type(event))}` is never committed")
        found.append(Recorded(seq, at, event))
    return found


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -128")  # KiB: rows are only added, so few pages are used again
    return connection


async def _in_order(work: Callable[[], None]) -> None:
    """Run on the writing thread, after all that was asked before; a cancellation does not stop it.

    Whoever waits is woken in one step: what a future that is shielded and handed from thread to thread
    takes besides is felt by who reads what was written.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def over(_: Future[None]) -> None:
        if not (waiting.cancelled() and loop.is_closed()):
            loop.call_soon_threadsafe(_wake, waiting)

    working = _WRITER.submit(work)
    working.add_done_callback(over)
    await waiting
    working.result()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.cancelled():
        waiting.set_result(None)
