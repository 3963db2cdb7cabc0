"""Scores by a pattern or a JSON text, in a process of its own that is kept for the next one.

A pattern may go on for ever, and nothing else runs in its process meanwhile: so its time is limited there by
the kernel, and whoever asked sees that it has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Self

from org.ops import ours
from org.ops.fitness import tasks
from org.ops.fitness.tasks import Task

SECONDS = 2.0
"""Of the processor's time, for one answer."""


class NoScore(Exception):
    """It ended before it had a score; the message says how."""


class Warm:
    """Such a process, started when it is needed, and again when it has ended."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def score(self, task: Task, answer: str) -> float:
        """As `tasks.score` does. Raises `NoScore`."""
        child = self._child = self._child or _start()
        assert child.stdin is not None
        assert child.stdout is not None
        asked = {"task": asdict(task), "answer": answer[: tasks.MOST_TEXT]}
        with suppress(BrokenPipeError):  # then it says nothing either
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
        if said := child.stdout.readline():
            return float(said)
        code = child.wait()
        self._end()
        raise NoScore("it takes too long" if code == -signal.SIGVTALRM else f"exit code {code}")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError), child:  # what it has not read is of no interest
                pass


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ours.words("org.ops.fitness.warm"),
        env=ours.environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever asks
    )


def main() -> int:
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # ends this process
        found = tasks.score(Task(**asked["task"]), asked["answer"])
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        os.write(1, f"{found}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
