"""What an attempt comes to, and how several are made at a time."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Given = dict[str, Any]
Finding = tuple[str, str] | tuple[str, str, str]
"""An outcome, and why, in words; perhaps also what was seen, for the other side to read (base64)."""
Kind = Callable[[Given], Finding]

HELD, FELL, UNKNOWN = "held", "fell", "unknown"
MOST_S = 15.0
"""How long an attempt may take."""


def refused(attempts: Mapping[str, Callable[[], object]]) -> Finding:
    """Held when each of the attempts is refused; the detail names the first that was not."""
    last = "nothing to try it on"
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            last = error.strerror or str(error)
            continue
        return FELL, name
    return HELD, last if len(attempts) < 2 else f"{len(attempts)} ways, the last: {last}"


def opened(path: str, mode: str = "rb") -> None:
    with open(path, mode):
        pass


def read(path: str, most: int = 65_536) -> bytes:
    """The beginning of a file, empty when it cannot be had."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(most) or b""
    except OSError:
        return b""


@dataclass
class _Going:
    name: str
    pid: int
    begun: float
    said: bytearray = field(default_factory=bytearray)


def make(
    attempts: Sequence[tuple[str, str, Given]],
    kinds: Mapping[str, Kind],
    at_once: int,
    most_s: float = MOST_S,
) -> dict[str, dict[str, Any]]:
    """What came of each attempt (name, kind, what it is given), each in a process of its own, so that
    one that is killed costs only itself; after `most_s` it is killed."""
    waiting, going, found = list(attempts), dict[int, _Going](), {}
    while waiting or going:
        while waiting and len(going) < at_once:
            name, kind, given = waiting.pop(0)
            reading, one = _start(name, kinds[kind], given, going)
            going[reading] = one
        for reading in _ready(going, most_s):
            one = going[reading]
            data = os.read(reading, 65_536) if time.monotonic() < one.begun + most_s else b""
            one.said += data
            if not data:
                found[one.name] = _end(reading, going.pop(reading), most_s)
    return found


def _start(name: str, kind: Kind, given: Given, going: Mapping[int, _Going]) -> tuple[int, _Going]:
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        for fd in (reading, *going):
            os.close(fd)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is said here is one JSON object
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with os.fdopen(writing, "w") as file:
            json.dump(kind(given), file)
        os._exit(0)
    os.close(writing)
    return reading, _Going(name, pid, begun)


def _ready(going: Mapping[int, _Going], most_s: float) -> list[int]:
    """Those that said something, or have had their time."""
    first = min(one.begun for one in going.values()) + most_s
    ready, _, _ = select.select(list(going), [], [], max(0.0, first - time.monotonic()))
    return ready or [fd for fd, one in going.items() if time.monotonic() >= one.begun + most_s]


def _end(reading: int, one: _Going, most_s: float) -> dict[str, Any]:
    os.close(reading)
    seconds = time.monotonic() - one.begun
    if seconds >= most_s:
        os.kill(one.pid, signal.SIGKILL)
    _, status = os.waitpid(one.pid, 0)
    if one.said and status == 0:
        outcome, detail, *seen = json.loads(one.said)
    elif seconds >= most_s:
        outcome, detail, seen = UNKNOWN, f"no end within {most_s:g} s", []
    else:
        code = os.waitstatus_to_exitcode(status)
        outcome, detail, seen = UNKNOWN, f"the attempt itself failed (exit code {code})", []
    return {"outcome": outcome, "detail": detail, "seconds": seconds, "seen": "".join(seen)}
