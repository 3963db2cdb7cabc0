"""A log of bounded size: one file, and one older beside it.

Several processes write to one log, each for a moment at a time: an old generation may still have
something to say while the new one serves. What cannot be written ends nobody: it is counted.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_BYTES = 4 << 20
"""A file that has grown to this is set aside, and the one that was set aside before is gone."""
_BLOCK = 65_536


def append(path: Path, data: bytes) -> None:
    """Write at the end. What is longer than the file may be is cut to its end."""
    with _locked(path) as file:
        if os.fstat(file).st_size + len(data) > MOST_BYTES:
            path.replace(older(path))
            with _locked(path) as fresh:
                _write(fresh, data[-MOST_BYTES:])
        else:
            _write(file, data)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def note(path: Path, line: str) -> None:
    """Write a line of our own, with the time."""
    append(path, _noted(line))


def _noted(line: str) -> bytes:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} org: {line}\n".encode(errors="replace")


class Log:
    """A log that nobody ends for: `lost` is how many lines could not be written, `why` the last reason."""

    def __init__(self, path: Path) -> None:
        self.lost = 0
        self.why = ""
        self._path = path
        self._gap = 0

    def append(self, data: bytes) -> None:
        gap = f"{self._gap} lines before this could not be written: {self.why}"
        try:
            append(self._path, _noted(gap) + data if self._gap else data)
        except OSError as error:
            lines = max(1, data.count(b"\n"))
            self.lost, self._gap, self.why = (
                self.lost + lines,
                self._gap + lines,
                error.strerror or str(error),
            )
        else:
            self._gap = 0

    def note(self, line: str) -> None:
        """Write a line of our own, with the time."""
        self.append(_noted(line))


def older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def last_lines(path: Path, count: int) -> bytes:
    """The last lines of a log, as far as the two files have them."""
    kept = b""
    for part in (path, older(path)):
        try:
            kept = part.read_bytes() + kept
        except FileNotFoundError:
            continue
        if kept.count(b"\n") > count:
            break
    return b"".join(kept.splitlines(keepends=True)[-count:]) if count else b""


class Follower:
    """Reads what is written to a log from now on, from one file to the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._opened()
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)

    def read(self) -> bytes:
        """What is new; empty when nothing is."""
        if self._file < 0:
            self._file = self._opened()
        if self._file < 0:
            return b""
        data = os.read(self._file, _BLOCK)
        if not data and self._is_aside():
            os.close(self._file)
            self._file = self._opened()
            return self.read()
        return data

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def _is_aside(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file itself, held; not one that somebody has set aside while we waited."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still(path, file):
                yield file
                return
        finally:
            os.close(file)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
