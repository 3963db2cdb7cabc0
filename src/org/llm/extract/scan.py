"""Where the arguments of a call end: resumable scanners, each character looked at once. Pure.

A scanner is given a window of the text, the position in it that was not looked at yet, and the
offset of the window in the whole text; it answers with the position from which it wants to go on.
It never needs what lies before that again. All positions that it keeps are offsets in the whole
text.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Protocol

from org.llm.extract.patterns import beginnings, lazy

MAX_DEPTH = 64
MAX_SPAN = 1 << 23  # characters; a longer text is no call


class State(Enum):
    MORE = "more"  # the end has not come yet
    DONE = "done"  # it ends at `end`
    BROKEN = "broken"  # it has to end at `end`, without its closers: something else follows
    FAILED = "failed"  # too deep or too long


ONLY_BLANK = re.compile(r"\s*\Z")


class Scanner(Protocol):
    state: State
    end: int

    @property
    def open_value(self) -> bool:
        """Whether a text that stopped here would stop inside a string or a value."""
        ...

    def scan(self, window: str, at: int, base: int, final: bool) -> int: ...


_GEMMA = (
    rf'<\|"\|>|<escape>|(?P<part><(?:{beginnings("|")}{beginnings(chr(34))}{beginnings("|")}|{beginnings("escape")})\Z)'
    r'|["{}\[\]]'
)


class GemmaScanner:
    """`{key:<|"|>text<|"|>,n:3}`: brackets, and strings between marks of several characters."""

    def __init__(self, start: int) -> None:
        self.state = State.MORE
        self.end = start
        self._start = start
        self._depth = 0
        self._quote = ""

    @property
    def open_value(self) -> bool:
        return bool(self._quote)

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        while self.state is State.MORE:
            if self._quote:
                close = window.find(self._quote, at)
                if close < 0:
                    return len(window) if final else max(at, len(window) - len(self._quote) + 1)
                at, self._quote = close + len(self._quote), ""
                continue
            found = lazy(_GEMMA).search(window, at)
            if found is None:
                return len(window)
            if found["part"]:
                return len(window) if final else found.start()
            token, at = found.group(), found.end()
            if token in "{[":
                self._depth += 1
            elif token in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.state, self.end = State.DONE, base + at
            else:
                self._quote = token
            if self._depth > MAX_DEPTH or base + at - self._start > MAX_SPAN:
                self.state = State.FAILED
        return at


_LINE_END = r"\n(?=\s{0,40}\n|Observation|Thought|Action|Final Answer)|```"


class LineScanner:
    """Plain text, to a blank line, the next label, or the end."""

    def __init__(self, start: int) -> None:
        self.state = State.MORE
        self.end = start
        self.open_value = True  # nothing has come yet
        self._start = start

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        found = lazy(_LINE_END).search(window, at)
        stop = found.start() if found else len(window)
        if self.open_value and not ONLY_BLANK.match(window, at, stop):
            self.open_value = False
        if found is None and base + at - self._start > MAX_SPAN:
            self.state = State.FAILED
        elif found is None and (not final or self.open_value):
            return max(at, len(window) - 64)
        else:
            self.state = State.DONE
            self.end = base + (stop if found else max(at, len(window.rstrip())))
        return stop
