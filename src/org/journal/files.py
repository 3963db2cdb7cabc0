"""The journal as a SQLite file: making one, checking one, reading one without touching it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from org.errors import JournalCorrupt, JournalError, JournalTooNew

APPLICATION_ID = 0x6F72676A  # "orgj", in the file's header
FORMAT = 1

# `meta`: `birth` is a random id, so that a room made anew under an old name is told from the old one;
# `created` is Unix time. The index holds the few rows that a list of rooms needs.
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX overview ON events (type, seq) WHERE type IN ('posted', 'undone', 'joined', 'left');
"""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Says what SQLite reports in the terms of `errors`. A wrong use of SQLite passes: it is a bug."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise
        if code & 0xFF in _DAMAGED:
            raise corrupt(path, str(error)) from error
        if code & 0xFF == sqlite3.SQLITE_FULL:
            raise JournalError(
                f"no space left for the journal: `{path}`",
                f"free some, then `org chat --resume {path.parent.name}`: what was shown is kept",
            ) from error
        raise JournalError(
            f"the journal cannot be used: `{path}`: {error} ({error.sqlite_errorname})",
            "check the disk and the rights of the file and its folder",
        ) from error


def corrupt(path: Path, problem: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"the journal is damaged or not one: `{path}`: {problem}",
        f"nothing was changed; put a copy back, or set it aside: `mv {path.parent} {path.parent}.damaged`",
    )


def create(path: Path) -> None:
    """Make an empty journal, readable by its owner only. It appears whole or not at all."""
    draft = path.with_name(path.name + ".new")
    for name in (draft, *(draft.with_name(draft.name + end) for end in ("-journal", "-wal", "-shm"))):
        name.unlink(missing_ok=True)  # of a process that was killed here
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise JournalError(f"no journal can be made: `{path}`: {error.strerror}") from error
    with sqlite_errors(path):
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT")
            birth = [("birth", uuid.uuid4().hex), ("created", repr(time.time()))]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", birth)
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
    draft.rename(path)
    for folder in (path.parent, path.parent.parent):
        _sync(folder)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check(path: Path) -> None:
    """Look all of a journal over before anything is written to it, changing nothing. For whoever holds
    the room's lock. Raises `JournalCorrupt` or `JournalTooNew`."""
    # With nobody writing and no log left behind, the file is all there is, and need not be locked.
    with sqlite_errors(path), _connected(path, "mode=ro" if _has_log(path) else "immutable=1") as connection:
        verify(connection, path)
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise corrupt(path, verdict)


def verify(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `JournalCorrupt` for what is no journal and `JournalTooNew` for one of a later version."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application != APPLICATION_ID or version < 1:
        raise corrupt(path, "not a journal of a room")
    if version > FORMAT:
        raise JournalTooNew(
            f"the journal is of a newer version of org: `{path}`: format {version}, this one knows {FORMAT}",
            "update org, or start another room; nothing was changed",
        )
    query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'events')"
    if connection.execute(query).fetchone() != (2,):
        raise corrupt(path, "its tables are missing")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can only read, beside a living writer or after a killed one, and never
    checkpoints. Raises `JournalError`.

    `mode=ro` reads the log of a writer too, but needs the `-shm` file for that, and makes it when it
    is missing. Where it cannot (a folder that cannot be written, where so nobody writes), a journal
    with an empty log is read as it lies there, and a copy of one with a log left behind.
    """
    with sqlite_errors(path), ExitStack() as stack:
        connection = stack.enter_context(_connected(path, "mode=ro"))
        if not _usable(connection):
            connection = stack.enter_context(_reading_unwritable(path))
        verify(connection, path)
        yield connection


def _usable(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
            raise
        return False
    return True


@contextmanager
def _reading_unwritable(path: Path) -> Iterator[sqlite3.Connection]:
    if not _has_log(path):
        with _connected(path, "immutable=1") as connection:
            yield connection
        return
    with TemporaryDirectory(prefix="org-journal-") as scratch:
        copy = Path(scratch, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(_log(path), _log(copy))
        with _connected(copy, "mode=ro") as connection:
            yield connection


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _has_log(path: Path) -> bool:
    log = _log(path)
    return log.exists() and log.stat().st_size > 0


@contextmanager
def _connected(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
