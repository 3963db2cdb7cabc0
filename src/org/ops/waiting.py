"""What somebody sees who waits for longer than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_QUIET_S = 1.0
_POLL_S = 0.05


@contextmanager
def waiting(what: str, most_s: float) -> Iterator[Callable[[], bool]]:
    """For a loop that looks whether it is over: gives what pauses between two looks, False when `most_s`
    are over. Says on standard error what is waited for, on a terminal for how long it was."""
    began = time.monotonic()
    shown = -1

    def pause() -> bool:
        nonlocal shown
        time.sleep(_POLL_S)
        waited = time.monotonic() - began
        if waited > _QUIET_S and (shown < 0 or sys.stderr.isatty()) and int(waited) != shown:
            shown = int(waited)
            line = f"org: waiting for {what}"
            sys.stderr.write(f"\r\x1b[2K{line}: {shown} s" if sys.stderr.isatty() else f"{line}\n")
            sys.stderr.flush()
        return waited < most_s

    try:
        yield pause
    finally:
        if shown >= 0 and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
