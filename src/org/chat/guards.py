"""Loops that a group of models falls into, noticed. Pure."""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import pairwise
from typing import TypeAlias

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
        answer = f"{result.exit_code} {result.error and result.error.kind} {result.output}"
        last, count = self._seen.get(signature, ("", 0))
        count = count + 1 if count and last == answer else 1
        self._seen[signature] = (answer, count)
        return count > 1


_Words: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""A message's words in order, and its pairs of neighbours."""


class Stagnation:
    """Near-identical messages going round: thanks for thanks, or one report over and over."""

    WINDOW = 8
    ALIKE = 0.85

    def __init__(self, repeats: int) -> None:
        """`repeats` is how many near-identical messages of the last few stop an exchange; 0 never."""
        self._repeats = repeats
        self._recent: deque[_Words] = deque(maxlen=self.WINDOW)

    def note(self, text: str) -> bool:
        """Remember a model's message; whether it makes the round one too many."""
        words = re.findall(r"\w+", text[:4000].casefold())
        entry = (" ".join(words), frozenset(pairwise(words)))
        alike = sum(_alike(entry, other) >= self.ALIKE for other in self._recent)
        self._recent.append(entry)
        return 0 < self._repeats <= alike + 1


def _alike(a: _Words, b: _Words) -> float:
    if a[0] == b[0]:
        return 1.0
    both = len(a[1] | b[1])
    return len(a[1] & b[1]) / both if both else 0.0


def _signature(call: ToolCall) -> str:
    return call.name + json.dumps(dict(call.arguments), sort_keys=True, default=str)
