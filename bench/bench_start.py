"""What it costs to start: CPU of the whole process, the least of several, beside bare Python."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

_ROUNDS = 15


def run() -> dict[str, float]:
    """CPU as a ratio to `python -c pass` in the same run."""
    org = str(Path(sys.executable).with_name("org"))
    commands = {
        "floor": [sys.executable, "-c", "pass"],
        "version_ratio": [org, "--version"],
        "help_ratio": [org, "--help"],
        "usage_error_ratio": [org, "nosuch"],
    }
    least = dict.fromkeys(commands, float("inf"))
    for _ in range(_ROUNDS):  # in turns, so that a busy moment hits all alike
        for name, argv in commands.items():
            least[name] = min(least[name], _cpu_ms(argv))
    floor = least.pop("floor")
    return {"floor_ms": floor} | {name: value / floor for name, value in least.items()}


def _cpu_ms(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


if __name__ == "__main__":
    print(run())
