"""Scores that a program of the suite's gives: a process of its own, whose code is current's or the person's.

    python SCORER < {"id": …, "prompt": …, "answer": …}

prints a number from 0 to 1.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from org.ops.fitness import tasks
from org.ops.fitness.tasks import Suite, Task

_SECONDS = 30.0
_SHOWN = 200


class ScorerFailed(Exception):
    """There is no score of an answer."""


def score(suite: Suite, task: Task, answer: str) -> float:
    """How good an answer is, from 0 to 1. Raises `ScorerFailed`."""
    if task.kind != "python":
        return tasks.score(task, answer)
    asked = {"id": task.id, "prompt": task.prompt, "answer": answer[: tasks.MOST_TEXT]}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(suite.folder, task.check))],
            input=json.dumps(asked).encode(),
            capture_output=True,
            cwd=suite.folder,
            env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=_SECONDS,
            check=False,
        )
        found = float(done.stdout) if done.returncode == 0 else math.nan
    except (subprocess.TimeoutExpired, ValueError):
        found = math.nan
    if not 0 <= found <= 1:
        raise ScorerFailed(f"{task.check} gives no score")
    return found
