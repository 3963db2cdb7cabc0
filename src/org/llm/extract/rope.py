"""A text that grows by many small pieces. Pure."""

from __future__ import annotations

_BATCH = 256  # pieces joined at a time: a piece of a few characters costs ten times its text


class Rope:
    """Collects pieces; joins them now and then, so that memory stays near the size of the text."""

    __slots__ = ("_blocks", "_pieces", "length")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self.length = 0

    def append(self, piece: str) -> None:
        if not piece:
            return
        self.length += len(piece)
        self._pieces.append(piece)
        if len(self._pieces) >= _BATCH:
            self._blocks.append("".join(self._pieces))
            self._pieces.clear()

    def text(self) -> str:
        """Everything so far; the pieces are kept as one."""
        parts = self._blocks + self._pieces
        whole = parts[0] if len(parts) == 1 else "".join(parts)
        self._blocks = [whole] if whole else []
        self._pieces = []
        return whole

    def tail(self, count: int) -> str:
        """The last `count` characters."""
        found: list[str] = []
        for part in (*reversed(self._pieces), *reversed(self._blocks[-1:])):
            found.append(part[-count:])
            count -= len(found[-1])
            if count <= 0:
                break
        return "".join(reversed(found))
