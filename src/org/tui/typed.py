"""What somebody has typed before: a file of lines, shared with the plain prompt."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

KEPT = 2000
_ON = "\\"
"""At the end of a line: the next one belongs to it, as it is typed at the plain prompt."""


class Typed:
    """Texts, the newest last. A file that cannot be read or written is no reason to stop."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.texts: list[str] = []
        if path is not None:
            with suppress(OSError):
                self.texts = _texts(path.read_text(encoding="utf-8", errors="replace"))[-KEPT:]

    def add(self, text: str) -> None:
        if self.texts and self.texts[-1] == text:
            return
        self.texts.append(text)
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(file, "a", encoding="utf-8", errors="replace") as out:
                out.write(text.replace("\n", f"{_ON}\n") + "\n")


def _texts(content: str) -> list[str]:
    texts, open_lines = [], ""
    for line in content.split("\n"):
        if line.endswith(_ON):
            open_lines += line[:-1] + "\n"
            continue
        if (open_lines + line).strip():
            texts.append(open_lines + line)
        open_lines = ""
    return texts
