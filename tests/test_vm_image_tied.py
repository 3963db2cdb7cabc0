"""A program that is tied to its starter ends with it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from org.sandbox.vm.tied import tied

STARTER = """
import subprocess, sys
from org.sandbox.vm.tied import tied
child = subprocess.Popen(tied(["sh", "-c", "echo; exec sleep 600"]), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_the_starters_death_is_the_programs() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = os.pidfd_open(int(starter.stdout.readline()))
        try:
            starter.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([child], [], [], 60.0)
            assert ended == [child]
        finally:
            os.close(child)


def test_without_the_tool_the_command_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tied(["a", "-b"]) == ["a", "-b"]
