"""What a guest says on its console: kept, but never more than so much of it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

MOST = 1_048_576
"""Bytes that are kept on the disk at most, in two files."""

_READ = 65_536
_LAST_WORDS = 16_384  # after a panic the kernel goes on for some thousand
_MOST_SHOWN = 2000
_PANIC = "Kernel panic"
_FIRMWARE = ("SeaBIOS (", "iPXE (", "Booting from ")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-~])")  # of a terminal: it moves and colours


class Console:
    """Writes to `path`; when that is half of what may be kept, it becomes the older half."""

    def __init__(self, path: Path) -> None:
        older(path).unlink(missing_ok=True)
        self._path = path
        self._size = 0
        self._end = b""
        path.write_bytes(b"")

    async def keep(self, said: asyncio.StreamReader) -> None:
        """Until QEMU ends. What the guest says must always be read: it waits for that."""
        while data := await said.read(_READ):
            self.add(data)

    def add(self, data: bytes) -> None:
        self._end = (self._end + data)[-_LAST_WORDS:]
        with suppress(OSError):  # without a place for its words, the machine goes on
            if self._size + len(data) > MOST // 2:
                self._path.replace(older(self._path))
                self._size = 0
            with self._path.open("ab") as file:
                self._size += file.write(data)

    def last_words(self) -> str:
        """Of a guest that is not trusted: on one line, printable; empty when there are none. Of a kernel
        that panicked, why. What comes before the kernel says nothing of an end."""
        said = _ESCAPE.sub("", self._end.decode(errors="replace"))
        lines = [line.strip() for line in said.splitlines()]
        lines = [line for line in lines if line and not line.startswith(_FIRMWARE)]
        telling = [line for line in lines if _PANIC in line][-1:] or lines[-6:]
        shown = "".join(char if char.isprintable() else "?" for char in " | ".join(telling)[-_MOST_SHOWN:])
        return f"; its last words: {shown}" if shown else ""


def older(path: Path) -> Path:
    """Where what was said before the file at `path` is."""
    return path.with_name(f"{path.name}.1")
