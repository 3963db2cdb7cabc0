"""The folder of a room: its name, and the lock that says which process writes in it.

The lock is an flock on `<folder>/lock`, so it goes with its process however that ends. What the file
holds (pid and URL of the holder, as JSON) is only for people, and means nothing without the flock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from org.errors import Busy, JournalError, UsageError

JOURNAL = "journal.sqlite"
LOCK = "lock"

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def is_room_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def room_folder(rooms_dir: Path, room: str) -> Path:
    """Where the room of that id lives, whether it exists or not. Raises `UsageError`."""
    if not is_room_id(room):
        raise UsageError(
            f"not a room id: {room!r}",
            "1 to 64 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or a digit",
        )
    return rooms_dir / room


class FolderLock:
    """The right to write in a room's folder, held from making one until `release`.

    Makes the folder, private, when it is missing. Raises `Busy` when another holds it and
    `JournalError` when the folder cannot be made or written.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        try:
            self._fd = _take(folder)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        except OSError as error:
            raise JournalError(
                f"no room can be kept at `{folder}`: {error.strerror}", "check its rights and the disk"
            ) from error

    def release(self) -> None:
        """Let go. Letting go twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def holder(folder: Path) -> str:
    """Who writes in the folder, as in `pid 12, http://127.0.0.1:7001`, or empty when nobody does."""
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        return "" if _try(fd, fcntl.LOCK_SH) else _describe(_content(fd))
    finally:
        os.close(fd)


def _take(folder: Path) -> int:
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by children
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            _lock(fd, folder)
            if _is_at(fd, folder / LOCK):
                stack.pop_all()
                return fd
        # The room was removed in between, and this lock file with it: begin again.


def _lock(fd: int, folder: Path) -> None:
    while not _try(fd, fcntl.LOCK_EX):
        # Whoever only asks who holds it (`holder`) shares it for a moment, and is no holder.
        if not _try(fd, fcntl.LOCK_SH):
            raise _busy(folder, _content(fd))


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _content(fd: int) -> dict[str, Any]:
    """What the holder wrote about itself; empty in the moment before it has."""
    try:
        data = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _describe(content: dict[str, Any]) -> str:
    who = f"pid {content['pid']}" if "pid" in content else "another process"
    return f"{who}, {content['url']}" if content.get("url") else who


def _busy(folder: Path, content: dict[str, Any]) -> Busy:
    if content.get("url"):
        hint = f"join it at {content['url']}"
    else:
        hint = f"leave it there, then `org chat --resume {folder.name}`"
    return Busy(f"room `{folder.name}` is open elsewhere: {_describe(content)}", hint)
