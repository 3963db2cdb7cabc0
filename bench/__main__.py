"""`make bench`: what the orchestrator itself costs, each part beside its floor in the same run.

`python -m bench [PART ...]` runs some parts only. Prints a table; figures with a mark say whether
they keep it. Nothing here is a test: a busy machine moves the figures.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

MARKS = {
    "start.version_ratio": 3.0,
    "start.help_ratio": 3.0,
    "client.chat_ratio": 6.0,
    "client.delta_ratio": 3.0,
    "ops.promote_ratio": 3.0,
    "room.tool_loop_ms": 2.0,
    "room.tool_loop_growth": 1.3,
    "room.room_of_8_ms": 1.5,
    "room.in_flight_ratio": 1.5,
    "room.rooms_kb": 60.0,
    "room.rooms_ms": 1.0,
    "serve.delivery_ratio": 2.0,
    "serve.readers_mb": 60.0,
    "serve.echo_ratio": 2.0,
    "sh.ratio": 1.15,
    "vm.fork_cpu_ratio": 0.1,
}
"""The most that a figure may be."""

LEAST = {"extract.prose_mb_per_s": 40.0}
"""The least that a figure must be."""


def main(wanted: list[str]) -> None:
    parts = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    for part in wanted or parts:
        began = time.monotonic()
        print(f"{part} …", end="\r", flush=True)
        figures = importlib.import_module(f"bench.bench_{part}").run()
        print(f"{part} ({time.monotonic() - began:.0f} s)")
        for name, value in figures.items():
            print(f"  {name:32}{value:12,.3f}{_verdict(f'{part}.{name}', value)}")


def _verdict(key: str, value: float) -> str:
    if key in MARKS:
        return f"   {'kept' if value <= MARKS[key] else 'MISSED'}: at most {MARKS[key]:g}"
    if key in LEAST:
        return f"   {'kept' if value >= LEAST[key] else 'MISSED'}: at least {LEAST[key]:g}"
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
