"""The full screen in a real terminal (tmux), on the real engine and in the real sandbox."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import ORG, Home
from engine import Engine

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]

DEADLINE_S = 60.0


class Tmux:
    """A terminal of its own, on a server of its own."""

    def __init__(self, folder: Path) -> None:
        self._base = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._base, *words],
            capture_output=True,
            text=True,
            env=dict(os.environ),  # and not what readline tells of another terminal's size
            timeout=DEADLINE_S,
            check=True,
        )
        return done.stdout

    def start(self, home: Home, *words: str, columns: int = 80, rows: int = 24) -> None:
        env = [f"{name}={value}" for name, value in home.env.items() if name != "TERM"]
        command = f"{shlex.join(['env', *env, *ORG, *words])}; echo EXIT $?; cat"
        place = ["-c", str(home.project), "-x", str(columns), "-y", str(rows)]
        self.run("new-session", "-d", *place, command)

    def type(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def wait_for(self, *texts: str) -> str:
        """Wait until all of this is on the screen."""
        deadline = time.monotonic() + DEADLINE_S
        while not all(text in (shown := self.screen()) for text in texts):
            if time.monotonic() > deadline:
                raise AssertionError(f"{texts} never came; the screen shows:\n{shown}")
            time.sleep(0.05)
        return shown


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    terminal = Tmux(tmp_path)
    yield terminal
    subprocess.run([*terminal._base, "kill-server"], capture_output=True, check=False)


def test_a_conversation_in_a_terminal(tmp_path: Path, tmux: Tmux, engine: Engine) -> None:
    home = Home(tmp_path / "home", engine.base_url, engine.model)
    home.roster({"coder": ("agent", "two"), "clock": ("simple", "forever")}, '[tools]\nsh = "ask"\n')
    tmux.start(home)
    tmux.wait_for("room-1", "ada → everyone", "coder", "clock", "0/30 turns")
    tmux.type("/mode coder direct:ada", "Enter")
    tmux.wait_for("coder -> @ada")
    tmux.type("@co", "Tab", "go on")
    tmux.wait_for("ada → @coder alone", "@coder go on")
    tmux.type("Enter")
    tmux.wait_for("coder wants to call sh", "echo one")
    _press_until(tmux, "y", "echo two")
    _press_until(tmux, "n", "Both commands ran.")
    tmux.wait_for("sh `echo one`", "exit 0", "sh `echo two`", "denied", "coder → @ada   private")
    tmux.type("@clock go", "Enter")
    tmux.wait_for("tick tock tick")
    tmux.type("C-c")
    tmux.wait_for("clock was interrupted", "stopped (interrupted)")
    tmux.run("resize-window", "-x", "120", "-y", "30")
    tmux.wait_for("agent · scripted", "clock was interrupted")
    tmux.type("C-c")
    tmux.wait_for("leaves the room")
    tmux.type("C-d")
    tmux.wait_for("`org chat --resume room-1` goes on here", "EXIT 0")


def _press_until(tmux: Tmux, key: str, *texts: str) -> None:
    """Answer a question; a key that comes at once is not taken for an answer."""
    deadline = time.monotonic() + DEADLINE_S
    while not all(text in tmux.screen() for text in texts):
        assert time.monotonic() < deadline, f"{texts} never came:\n{tmux.screen()}"
        if "wants to call" in tmux.screen():
            tmux.type(key)
        time.sleep(0.7)
