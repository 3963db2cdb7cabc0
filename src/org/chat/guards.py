"""Loops that a group of models falls into, noticed. Pure."""

from __future__ import annotations

import json
import re
from array import array
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from org.tooling import ToolCall, ToolResult

HINT = (
    "(You made this same call before and got this same result. Making it again will not change it: "
    "use the result, or try something else.)"
)


class RepeatedCalls:
    """Calls of one turn that bring nothing new: same tool, same arguments, same result.

    The result counts too: asking for the time twice, or running the tests after a fix, is fine.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}  # call -> (its last result, how often in a row)

    def exhausted(self, call: ToolCall) -> bool:
        """Whether the call was made twice with the same result and must not be run again."""
        return self._seen.get(_signature(call), ("", 0))[1] >= 2

    def note(self, call: ToolCall, result: ToolResult) -> bool:
        """Remember a result; whether it repeats the last one of the same call."""
        signature = _signature(call)
        answer = f"{result.exit_code} {result.error} {result.output}"
        last, count = self._seen.get(signature, ("", 0))
        count = count + 1 if count and last == answer else 1
        self._seen[signature] = (answer, count)
        return count > 1


class _Said(NamedTuple):
    """A message: who said it, and a sketch of its words: numbers for pairs of neighbours, the smallest
    `SKETCH` of them. Two texts share about as much of their sketches as of all their pairs."""

    sender: str
    sketch: array[int]


class Stagnation:
    """Near-identical messages going round: thanks for thanks, or one report over and over.

    Several who say the same once (all answer one question alike, all greet) are no round; only what
    somebody says again counts.
    """

    WINDOW = 24
    ALIKE = 0.85
    LENGTH = 2000  # characters of a message that are looked at
    SKETCH = 64

    def __init__(self, repeats: int) -> None:
        """`repeats` is how many near-identical messages of one sender stop an exchange, those of
        several taken together; 0 never."""
        self._repeats = repeats
        self._recent: list[_Said] = []

    def note(self, sender: str, text: str) -> bool:
        """Remember a model's message; whether it makes the round one too many."""
        if not self._repeats:
            return False
        words = re.findall(r"\w+", text[: self.LENGTH].casefold())
        pairs = {crc32(f"{a} {b}".encode(errors="replace")) for a, b in pairwise(("", *words, ""))}
        said = _Said(sender, array("I", sorted(pairs)[: self.SKETCH]))
        self._recent = [*self._recent[1 - self.WINDOW :], said]
        mine = frozenset(said.sketch)
        alike = [other.sender for other in self._recent if self._alike(mine, other.sketch)]
        return len(alike) - len(set(alike)) + 1 >= self._repeats

    def _alike(self, mine: frozenset[int], other: array[int]) -> bool:
        fewer, more = sorted((len(mine), len(other)))
        if fewer < self.ALIKE * more:
            return False
        shared = len(mine.intersection(other))
        return shared >= self.ALIKE * (fewer + more - shared)


def _signature(call: ToolCall) -> str:
    return call.name + json.dumps(dict(call.arguments), sort_keys=True, default=str)
