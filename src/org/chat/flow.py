"""Speech as it comes, cut where it turns to somebody else: the grammar of `routing`, piece by piece. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from org.chat.routing import Fence, address_of
from org.messages import Audience

_DECIDED = re.compile(r'(?:@\S+\s+)+[^@\s]|#file:(?:"[^"]*"|[^"\s]\S*)\s+\S', re.IGNORECASE)
"""Addresses with a word behind them that is none: nothing that follows can change whom they name."""

HEAD = 200
"""Characters of a line that are held at most to see whether it is an address."""


class Flow:
    """Feed it the text of one completion; it answers with (audience when it changes, text).

    `standing` is the audience of what comes before the first address; `names` are all who are in
    the room. Nothing is held back but the beginning of a line that may still be an address.
    """

    def __init__(self, sender: str, standing: Audience, names: Collection[str]) -> None:
        self._sender = sender
        self._names = names
        self._standing: Audience | None = standing  # until its first word is said
        self._fence = Fence()
        self._line = ""  # the beginning of the current line
        self._held = ""
        self._through = False  # the rest of this line is no address

    def feed(self, text: str) -> list[tuple[Audience | None, str]]:
        pieces: list[tuple[Audience | None, str]] = []
        for line in text.splitlines(keepends=True):
            self._held += line
            self._line += line[: HEAD - len(self._line)]
            ended = line.endswith("\n")
            if self._through or ended or not self._may_address():
                pieces += self._release()
            if ended:
                self._fence.takes(self._line.rstrip("\n"))
                self._line = ""
                self._through = False
        return pieces

    def finish(self) -> list[tuple[Audience | None, str]]:
        """What was held back, at the end of the text."""
        return self._release() if self._held else []

    def _may_address(self) -> bool:
        head = self._held.lstrip(" ")
        if self._fence.open or len(self._held) >= HEAD or (head and head[0] not in "@#"):
            return False
        return _DECIDED.match(head) is None

    def _release(self) -> list[tuple[Audience | None, str]]:
        held, self._held = self._held, ""
        found = None
        if not self._through and not self._fence.open:
            found = address_of(held.rstrip("\n"), self._sender, self._names)
        self._through = True
        if found is not None and isinstance(found[0], Audience):
            self._standing = None
            rest = held[len(held.rstrip("\n")) - len(found[1]) :]
            self._line = found[1]  # a code block may begin behind an address
            return [(found[0], rest.lstrip("\n"))]
        if self._standing is None:
            return [(None, held)]
        if not held.strip():
            return []  # nobody hears the blanks before the first word
        standing, self._standing = self._standing, None
        return [(standing, held)]
