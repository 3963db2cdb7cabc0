"""The account of one exchange: what it took, and why it is over."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields

from org.chat.guards import Stagnation
from org.errors import UsageError
from org.events import CallFinished, Committed, Posted, Stepped, Stopped, StopReason, TurnEnded
from org.messages import Usage

CUTTING: tuple[StopReason, ...] = ("interrupted", "seconds")
"""Reasons that cut a turn short at once; the others let it come to the end of its step."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange (all that a person's message causes) may take; 0 is no limit.

    `repeats` is how many near-identical messages going round end it. Raises `UsageError` for a limit
    that is less than that, or no number.
    """

    turns: int = 30
    seconds: float = 900.0
    tokens: int = 200_000
    tools: int = 60
    repeats: int = 3

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not 0 <= value < math.inf:
                raise UsageError(f"not a limit of {limit.name}: `{value}`", "0 is no limit")


class Exchange:
    """Fed with what its turns commit. `halt` is why it must end, once something says so."""

    def __init__(self, limits: Limits) -> None:
        self.usage = Usage()
        self.turns = 0
        self.last_speaker = ""
        self.refused: set[str] = set()  # whose address was sent back
        self.halt: StopReason | None = None
        self._limits = limits
        self._began = time.monotonic()
        self._tools = 0
        self._posted = 0
        self._failures: list[str] = []
        self._unattended = False
        self._stagnation = Stagnation(limits.repeats)

    def note(self, event: Committed) -> None:
        """Count what a turn of this exchange committed."""
        match event:
            case Stepped(usage=Usage() as usage):
                self.usage += usage
            case CallFinished(result=result):
                self._tools += 1
                self._unattended |= result.error is not None and result.error.kind == "unattended"
            case Posted(message):
                self._posted += 1
                if self._stagnation.note(message.sender, message.content) and self.halt is None:
                    self.halt = "stagnation"
            case TurnEnded(status="failed"):
                self._failures.append(event.detail)
            case _:
                pass

    def spent(self) -> StopReason | None:
        """Why a turn must end with its step, if it must."""
        limits = self._limits
        if self.halt is not None and self.halt != "turns":
            return self.halt
        if 0 < limits.seconds <= time.monotonic() - self._began:
            return "seconds"
        if 0 < limits.tokens <= self.usage.total:
            return "tokens"
        if 0 < limits.tools <= self._tools:
            return "tools"
        return None

    def full(self) -> StopReason | None:
        """Why nobody more is invited, if so."""
        return "turns" if 0 < self._limits.turns <= self.turns else self.spent()

    def stopped(self) -> Stopped:
        """Why it is over, once nobody has anything left to read or `halt` is set."""
        if self.halt is not None:
            return Stopped(self.halt, self._detail(self.halt))
        if self._unattended:
            return Stopped("denied", "a tool call needed approval and nobody was there to give it")
        if self._failures:
            count = f"{len(self._failures)} of {self.turns} turns failed"
            return Stopped("failed", f"{count}; the last: {self._failures[-1]}")
        return Stopped("quiet" if self._posted or not self.turns else "passed")

    def _detail(self, reason: StopReason) -> str:
        limits = self._limits
        details: dict[StopReason, str] = {
            "turns": f"{self.turns} of {limits.turns} turns",
            "seconds": f"{time.monotonic() - self._began:.0f} of {limits.seconds:g} s",
            "tokens": f"{self.usage.total:,} of {limits.tokens:,} tokens",
            "tools": f"{self._tools} of {limits.tools} tool calls",
            "stagnation": "the same message keeps going round",
        }
        return details.get(reason, "")
