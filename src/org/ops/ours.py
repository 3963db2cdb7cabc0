"""How further processes of ours are started: with the code that runs here, wherever that lies."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

CODE = str(Path(__file__).resolve().parents[2])


def words(module: str, *more: str) -> list[str]:
    return [sys.executable, "-P", "-m", module, *more]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    return {**given, "PYTHONPATH": CODE}
