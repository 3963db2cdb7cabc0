"""The scores of answers: by what the suite has, in processes that are ended when they take too long.

    python SCORER < {"id": …, "prompt": …, "answer": …}

prints a number from 0 to 1. Its code is current's or the person's.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias

from org.ops import plain
from org.ops.fitness import tasks
from org.ops.fitness.tasks import Suite, Task
from org.ops.fitness.warm import NoScore, Warm

Score: TypeAlias = Callable[[Task, str], float]
"""How good an answer is, from 0 to 1. Raises `ScorerFailed`."""

_SECONDS = 30.0
_SHOWN = 200
_MOST_LAST = 4096
_MOST_FILE = 64 << 20
"""What it says goes to files, and no file of it may be larger."""


class ScorerFailed(Exception):
    """There is no score of an answer."""


@contextmanager
def scoring(suite: Suite) -> Iterator[Score]:
    """For the answers to a suite, one after the other."""
    with Warm() as warm:

        def score(task: Task, answer: str) -> float:
            if task.kind == "python":
                return _run(suite, task, answer)
            try:
                return warm.score(task, answer)
            except NoScore as error:
                raise ScorerFailed(f"`{task.check[:_SHOWN]}` gives no score: {error}") from None

        yield score


def _run(suite: Suite, task: Task, answer: str) -> float:
    asked = {"id": task.id, "prompt": task.prompt, "answer": answer[: tasks.MOST_TEXT]}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    # Files, no pipes: neither what floods them nor what is left behind and holds them holds us up.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as bad:
        given.write(json.dumps(asked).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(suite.folder, task.check))],
            stdin=given,
            stdout=said,
            stderr=bad,
            cwd=suite.folder,
            env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        why = _how_it_ended(process) or _no_score(said)
        if why:
            raise ScorerFailed(f"{task.check} gives no score: {_last_line(bad) or why}")
        return float(_beginning(said))


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """What was wrong with that; empty when nothing was. What it left behind in its session has ended too."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = _MOST_FILE if most == resource.RLIM_INFINITY else min(_MOST_FILE, most)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    try:
        code = process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it takes more than {_SECONDS:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"exit code {code}" if code else ""


def _no_score(said: IO[bytes]) -> str:
    found = _beginning(said)
    with suppress(ValueError):
        if 0 <= float(found) <= 1:
            return ""
    return f"it prints {found!r}"


def _beginning(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_SHOWN).decode(errors="replace").strip()


def _last_line(file: IO[bytes]) -> str:
    """Of what it complained about: the last word on it."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_LAST))
    lines = file.read().decode(errors="replace").split("\n")
    return plain.line(next((line for line in reversed(lines) if line.strip()), ""))[:_SHOWN]
