"""Words in all rooms: a full-text index beside the journals, brought up to date when one searches.

The index is derived: whatever is wrong with it, it is thrown away and built again. What was undone is
not found.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from org.errors import JournalError, UsageError
from org.events import CallFinished, Posted, Undone
from org.journal.files import reading, sqlite_errors
from org.journal.folder import JOURNAL, is_room_id
from org.journal.store import Recorded, recorded

INDEX = "search.sqlite"
"""The index's name in the user's cache folder; it is made again when it is missing."""

_APPLICATION_ID = 0x6F726769  # "orgi"
_FORMAT = 1

# `rooms`: up to which event of which journal (its `birth`) a room is indexed. `texts.message` is the
# id of a message, or 0 for the output of a tool.
_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_FORMAT}",
    "CREATE TABLE rooms (room TEXT PRIMARY KEY, birth TEXT NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE VIRTUAL TABLE texts USING fts5 (content, room UNINDEXED, seq UNINDEXED, sender UNINDEXED,"
    " at UNINDEXED, message UNINDEXED, tokenize = 'unicode61 remove_diacritics 2')",
)

# A damaged index, or one whose tables are not as they should be.
_BUILD_AGAIN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

_FIND = """
SELECT room, seq, sender, at, snippet(texts, 0, '[', ']', '…', 16) FROM texts
WHERE texts MATCH ?1 AND (?2 = '' OR room = ?2) ORDER BY rank, at DESC LIMIT ?3
"""


class _Other(Exception):
    """The file is an index of another version, or something else."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A message, or the output of a tool, with the words. `seq` is the number of its event in the room,
    `at` Unix time, `sender` who wrote it or called the tool; found words stand in `[` `]`."""

    room: str
    seq: int
    sender: str
    at: float
    snippet: str


@dataclass(frozen=True, slots=True)
class Found:
    """The best hits first. `skipped` are the rooms whose journals cannot be read, each with why; what
    was indexed of one before it broke is still found."""

    hits: tuple[Hit, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def search(rooms_dir: Path, index_path: Path, words: str, limit: int = 20, room: str = "") -> Found:
    """Where all of `words` occur, in any order, without regard to case and accents; in one room alone
    when it is named.

    Brings the index up to date first, making it (0600) when it is missing. Raises `UsageError` when
    there is no word in `words` and `JournalError` when the index cannot be written.
    """
    query = _quoted(words)
    if not query:
        raise UsageError("nothing to search for", "give one or more words")

    with sqlite_errors(index_path):
        try:
            return _search(rooms_dir, index_path, query, limit, room)
        except _Other:
            pass
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BUILD_AGAIN:
                raise
        _remove(index_path)
        return _search(rooms_dir, index_path, query, limit, room)


def _search(rooms_dir: Path, index_path: Path, query: str, limit: int, room: str) -> Found:
    with closing(_open(index_path)) as index:
        # One searcher at a time, so that none indexes what another just did.
        index.execute("BEGIN IMMEDIATE")
        if not _is_ours(index):
            for statement in _SCHEMA:
                index.execute(statement)
        skipped = _update(index, rooms_dir)
        hits = tuple(Hit(*row) for row in index.execute(_FIND, (query, room, limit)))
        index.execute("COMMIT")
    return Found(hits, skipped)


def _quoted(words: str) -> str:
    """The words as FTS5 strings, of which all must occur; nothing in them is syntax any more."""
    return " ".join(
        '"' + word.replace('"', '""') + '"' for word in _plain(words).split() if _has_letter(word)
    )


def _has_letter(word: str) -> bool:
    # A word of signs only has nothing that the index knows, and would make the query match nothing.
    return any(sign.isalnum() for sign in word)


def _plain(text: str) -> str:
    """Text as SQLite takes it: no lone surrogates, no NUL."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


# -- the index as a file


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise JournalError(f"no index can be kept at `{path}`: {error.strerror}") from error
    return sqlite3.connect(path, timeout=60, isolation_level=None)


def _is_ours(index: sqlite3.Connection) -> bool:
    """Whether the index is as this version makes it; False for an empty file. Raises `_Other`."""
    ((application,),) = index.execute("PRAGMA application_id")
    ((version,),) = index.execute("PRAGMA user_version")
    if (application, version) == (_APPLICATION_ID, _FORMAT):
        return True
    if index.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise _Other
    return False


def _remove(path: Path) -> None:
    for name in (path, path.with_name(path.name + "-journal")):
        name.unlink(missing_ok=True)


# -- keeping up with the journals


def _update(index: sqlite3.Connection, rooms_dir: Path) -> tuple[tuple[str, str], ...]:
    """Index what is new and drop what is gone; answers with the rooms that cannot be read, and why."""
    journals = {path.parent.name: path for path in sorted(rooms_dir.glob(f"*/{JOURNAL}"))}
    journals = {room: path for room, path in journals.items() if is_room_id(room)}
    known = {room: (birth, seq) for room, birth, seq in index.execute("SELECT room, birth, seq FROM rooms")}
    for room in known.keys() - journals.keys():
        _forget(index, room)
    skipped = []
    for room, path in journals.items():
        try:
            birth, last, news = _news(path, *known.get(room, ("", 0)))
        except JournalError as error:
            skipped.append((room, error.message))
            continue
        if room in known and birth != known[room][0]:
            _forget(index, room)
        for entry in news:
            _index(index, room, entry)
        index.execute("INSERT OR REPLACE INTO rooms VALUES (?, ?, ?)", (room, birth, last))
    return tuple(skipped)


def _news(path: Path, birth: str, seq: int) -> tuple[str, int, list[Recorded]]:
    """The journal's birth, its last event, and what is to be indexed after `seq` (all of it when the
    journal is another one than that born as `birth`)."""
    with reading(path) as journal:
        ((now,),) = journal.execute("SELECT value FROM meta WHERE key = 'birth'")
        ((last,),) = journal.execute("SELECT coalesce(max(seq), 0) FROM events")
        rows = journal.execute(
            "SELECT seq, at, CAST(data AS BLOB) FROM events WHERE seq > ? AND seq <= ?"
            " AND type IN ('posted', 'call_finished', 'undone') ORDER BY seq",
            (seq if now == birth else 0, last),
        ).fetchall()
    return now, last, recorded(path, rows)


def _index(index: sqlite3.Connection, room: str, entry: Recorded) -> None:
    event = entry.event
    if isinstance(event, Posted):
        message = event.message
        row = (message.content, room, entry.seq, message.sender, message.at, message.id)
    elif isinstance(event, CallFinished):
        row = (event.result.output, room, entry.seq, event.participant, entry.at, 0)
    elif isinstance(event, Undone):
        index.execute(
            "DELETE FROM texts WHERE room = ?1 AND seq >="
            " (SELECT min(seq) FROM texts WHERE room = ?1 AND message >= ?2)",
            (room, event.message),
        )
        return
    else:
        return
    index.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?)", (_plain(row[0]), *row[1:]))


def _forget(index: sqlite3.Connection, room: str) -> None:
    index.execute("DELETE FROM texts WHERE room = ?", (room,))
    index.execute("DELETE FROM rooms WHERE room = ?", (room,))
