"""How the newest promote does, as whoever watches it says in `run/watch.json`. `until` is there by the clock
that stands still while the machine sleeps: only time that it was awake is watched.

Apart from the watch itself, so that `org status` tells it though the gate be broken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from org.ops import files
from org.ops.layout import Layout

_NAMES = ("commit", "until", "pid", "state", "why")


def told(layout: Layout) -> dict[str, str]:
    """How the last watch goes, or went; {} when there was none. One that was killed says nothing itself.
    `until` is by the clock on the wall, if the machine stays awake."""
    kept = files.read_json(_file(layout), *_NAMES) or {}
    if kept.get("state") == "watching" and not Path("/proc", kept["pid"]).exists():
        kept |= {"state": "interrupted", "why": "whoever watched is gone"}
    if kept:
        kept["until"] = f"{time.time() + float(kept['until']) - time.monotonic():.0f}"
    return kept


def tell(layout: Layout, state: Mapping[str, str]) -> None:
    files.write_json(_file(layout), state)


def _file(layout: Layout) -> Path:
    return layout.run / "watch.json"
