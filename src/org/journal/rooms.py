"""The rooms that are there: listing them without reading all of them, and removing one."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from org.errors import JournalError, UsageError
from org.events import Joined, Left, Posted, Undone
from org.journal.files import reading
from org.journal.folder import JOURNAL, FolderLock, holder, is_room_id, room_folder
from org.journal.store import recorded

_REMOVED = ".removed"  # no room id begins with a dot


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """One line of a list of rooms.

    `created` and `last` (when the newest event was written) are Unix time, `messages` is how many
    still count, `participants` who is in the room, in order of entry. `busy` is who has it open
    (`pid 12, http://127.0.0.1:7001`), or empty. `problem` says why the rest is not known, or is empty.
    """

    id: str
    created: float = 0.0
    last: float = 0.0
    messages: int = 0
    participants: tuple[str, ...] = ()
    busy: str = ""
    problem: str = ""


def list_rooms(rooms_dir: Path) -> list[RoomInfo]:
    """All rooms, the one that was last used first."""
    if not rooms_dir.is_dir():
        return []
    rooms = [_info(path.parent) for path in rooms_dir.glob(f"*/{JOURNAL}") if is_room_id(path.parent.name)]
    return sorted(rooms, key=lambda room: (-room.last, room.id))


def remove_room(rooms_dir: Path, room: str) -> None:
    """Remove a room with everything in its folder. Raises `UsageError` when there is none of that id,
    `Busy` while it is open and `JournalError` when it cannot be removed."""
    folder = room_folder(rooms_dir, room)
    if not folder.is_dir():
        raise UsageError(f"no such room: {room}", "`org rooms` lists them")
    lock = FolderLock(folder)
    try:
        # First out of sight in one step, so that a room is there whole or not at all.
        grave = rooms_dir / _REMOVED
        shutil.rmtree(grave, ignore_errors=True)  # what a killed removal may have left
        grave.mkdir(mode=0o700, exist_ok=True)
        folder.rename(grave / room)
        shutil.rmtree(grave)
    except OSError as error:
        raise JournalError(f"the room cannot be removed: `{folder}`: {error.strerror}") from error
    finally:
        lock.release()


def _info(folder: Path) -> RoomInfo:
    busy, path = holder(folder), folder / JOURNAL
    try:
        with reading(path) as connection:
            created = connection.execute("SELECT value FROM meta WHERE key = 'created'").fetchone()
            last = connection.execute("SELECT at FROM events ORDER BY seq DESC LIMIT 1").fetchone()
            messages = _count_messages(connection, path)
            participants = _participants(connection, path)
    except JournalError as error:
        return RoomInfo(folder.name, busy=busy, problem=error.message)
    begun = float(created[0])
    return RoomInfo(folder.name, begun, last[0] if last else begun, messages, participants, busy)


def _count_messages(connection: sqlite3.Connection, path: Path) -> int:
    """Of what was said only what was taken back is read, and what stands before it."""
    taken_back = recorded(path, _rows(connection, "type = 'undone'"))
    undone = {seq: event.message for seq, _, event in taken_back if isinstance(event, Undone)}
    if not undone:
        ((count,),) = connection.execute("SELECT count(*) FROM events WHERE type = 'posted'")
        return int(count)
    counting: list[int] = []  # places of messages
    query = "SELECT seq FROM events WHERE type IN ('posted', 'undone') ORDER BY seq"
    for (seq,) in connection.execute(query).fetchall():
        if seq not in undone:
            counting.append(seq)
            continue
        while counting and _message(connection, path, counting[-1]) >= undone[seq]:
            counting.pop()
    return len(counting)


def _message(connection: sqlite3.Connection, path: Path, seq: int) -> int:
    """The number of the message that stands there."""
    ((_, _, event),) = recorded(path, _rows(connection, f"seq = {seq}"))
    assert isinstance(event, Posted)
    return event.message.id


def _participants(connection: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    present: dict[str, None] = {}
    for _, _, event in recorded(path, _rows(connection, "type IN ('joined', 'left')")):
        if isinstance(event, Joined):
            present[event.name] = None
        elif isinstance(event, Left):
            present.pop(event.name, None)
    return tuple(present)


def _rows(connection: sqlite3.Connection, where: str) -> list[tuple[int, float, bytes]]:
    return connection.execute(
        f"SELECT seq, at, CAST(data AS BLOB) FROM events WHERE {where} ORDER BY seq"
    ).fetchall()
