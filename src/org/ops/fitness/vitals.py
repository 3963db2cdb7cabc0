"""Whether what was just promoted does badly, from what is seen of it now and then. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MOST_SILENT = 3
"""Looks in a row at which it may be unwell."""
MOST_CRASHES = 1
MORE_ERRORS, LEAST_ERRORS = 0.05, 5
"""By how much the share of answers with 5xx may exceed what it was; fewer than so many are chance."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How many answers were given, and how many of them said that the server had failed."""

    total: int = 0
    errors: int = 0

    @property
    def share(self) -> float:
        return self.errors / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: whether it is well, how often it was started again, what the supervisor says is wrong."""

    well: bool
    restarts: int
    trouble: str = ""
    answers: Answers = Answers()


@dataclass(slots=True)
class Vitals:
    """`level` is the share of failures that was usual before."""

    level: float
    silent: int = 0

    def look(self, sample: Sample) -> str:
        """Why it should be taken back; empty while it does well."""
        self.silent = 0 if sample.well else self.silent + 1
        if sample.trouble:
            return sample.trouble
        if sample.restarts > MOST_CRASHES:
            return f"it ended by itself {sample.restarts} times"
        if self.silent >= MOST_SILENT:
            return f"it was not well {self.silent} times in a row"
        found = sample.answers
        if found.errors >= LEAST_ERRORS and found.share > self.level + MORE_ERRORS:
            return f"{found.errors} of {found.total} answers failed; {self.level:.1%} was usual"
        return ""


_SAMPLE = re.compile(r'([^\s{]+)\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}\s+(\S+)')
"""A name, its labels, whose values may hold anything, and the value; there may be a time behind it."""
_FAILED = re.compile(r'\bstatus="5')


def answers(text: str, counter: str) -> Answers:
    """What a counter with a label `status` says, in the text that Prometheus reads."""
    total = errors = 0
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found and found[1] == counter:
            count = _count(found[3])
            total += count
            errors += count if _FAILED.search(found[2]) else 0
    return Answers(total, errors)


def _count(value: str) -> int:
    """A value of a counter, which may be written `1e+06`; 0 for what is none."""
    try:
        found = float(value)
    except ValueError:
        return 0
    return int(found) if math.isfinite(found) and found > 0 else 0


def since(now: Answers, before: Answers) -> Answers:
    """What came between; a counter that began anew counts from there."""
    if now.total < before.total or now.errors < before.errors:
        return now
    return Answers(now.total - before.total, now.errors - before.errors)
