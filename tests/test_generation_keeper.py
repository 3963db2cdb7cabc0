"""The process between a supervisor and a generation, by what goes over its channel."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generation_kit import DEADLINE_S, Site, alive, wait_for
from org.ops import listener, ours, wire
from org.ops.keeper import forget, how
from org.ops.planning import make_plan


class Channel:
    """One supervisor's end, line by line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._heard = b""
        connection.settimeout(DEADLINE_S)

    def hear(self) -> dict[str, Any]:
        """The next line; {} at the end."""
        while b"\n" not in self._heard:
            data, fds, _, _ = socket.recv_fds(self._connection, 65_536, 4)
            for fd in fds:
                os.close(fd)
            if not data:
                return {}
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def until(self, **said: object) -> None:
        while not said.items() <= (heard := self.hear()).items():
            assert heard, f"the keeper has gone without {said}"

    def tell(self, do: str) -> None:
        self._connection.sendall(wire.line({"do": do}))

    def close(self) -> None:
        self._connection.close()


class Kept:
    """A generation with its keeper, and us as the supervisor."""

    def __init__(self, folder: Path, mode: str = "well", **more: object) -> None:
        self.site = Site(folder)
        self.site.layout.run.mkdir()
        env = {"PATH": os.environ["PATH"]}
        plan = make_plan(self.site.layout, "current", *self.site.commit(1, mode, **more), env)
        end, theirs = socket.socketpair()
        with listener.bind(0) as held, theirs:
            self.process = subprocess.Popen(
                ours.words("org.ops.keeper", str(held.fileno())),
                stdin=theirs.fileno(),
                pass_fds=(held.fileno(),),
                start_new_session=True,
            )
        self.door = self.site.layout.run / f"{plan.nonce}.keeper"
        self.channel = Channel(end)
        end.sendall(plan.as_json().encode() + b"\n")
        self.state = self.channel.hear()
        self.pid: int = self.state["pid"]

    def visit(self) -> Channel:
        """As the next supervisor."""
        visitor = socket.socket(socket.AF_UNIX)
        with wire.short(self.door) as path:
            visitor.connect(path)
        return Channel(visitor)

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_words_and_orders(kept: Kept) -> None:
    kept.channel.until(said="ready")
    kept.channel.tell("go")
    kept.channel.until(said="accepting")
    kept.channel.tell("drain")
    kept.channel.until(said="draining")
    kept.channel.until(said="drained")
    kept.channel.until(ended=0, left=0)
    assert kept.channel.hear() == {}
    assert kept.process.wait(DEADLINE_S) == 0
    assert not kept.door.exists()
    assert not Path(kept.state["health"]).parent.exists()


def test_who_is_not_told_to_go_ends_with_its_supervisor(kept: Kept) -> None:
    kept.channel.until(said="ready")
    kept.channel.close()
    assert kept.process.wait(DEADLINE_S) == 0
    assert not alive(kept.pid)


def test_who_serves_waits_for_the_next_one(kept: Kept) -> None:
    kept.channel.tell("go")
    kept.channel.until(said="accepting")
    kept.channel.close()
    for _ in range(3):
        visitor = kept.visit()
        state = visitor.hear()
        assert (state["pid"], state["said"], state["told_to_go"]) == (kept.pid, ["ready", "accepting"], True)
        visitor.close()
    visitor = kept.visit()
    visitor.tell("kill")
    visitor.until(ended=-signal.SIGKILL)
    visitor.close()


@pytest.mark.parametrize("told", [True, False])
def test_the_next_one_comes_while_the_last_one_leaves(kept: Kept, told: bool) -> None:
    """Both are heard at the same time, in this order."""
    kept.channel.until(said="ready")
    if told:
        kept.channel.tell("go")
        kept.channel.until(said="accepting")
    os.kill(kept.process.pid, signal.SIGSTOP)
    visitor = kept.visit()
    kept.channel.close()
    os.kill(kept.process.pid, signal.SIGCONT)
    assert visitor.hear()["told_to_go"] is told
    visitor.tell("kill")
    visitor.until(ended=-signal.SIGKILL)
    visitor.close()


def test_the_deadline_of_a_drain(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "deaf", drain_timeout=1)
    kept.channel.tell("go")
    kept.channel.until(said="accepting")
    kept.channel.tell("drain")
    kept.channel.close()  # nobody has to be there for it
    assert kept.process.wait(DEADLINE_S) == 0
    assert not alive(kept.pid)
    kept.close()


def test_a_keeper_that_fails_leaves_nobody(tmp_path: Path) -> None:
    """Whatever it is that it did not expect."""
    kept = Kept(tmp_path, "daemon")
    kept.channel.tell("go")
    kept.channel.until(said="accepting")
    note = kept.site.layout.worktree(f"{1:040x}") / "daemon.pid"
    wait_for(lambda: note.exists() and note.read_text())
    kept.channel.tell("dance")
    assert kept.process.wait(DEADLINE_S) == 1
    assert not alive(int(note.read_text()))
    assert not alive(kept.pid)
    kept.close()


def test_a_signal_without_a_name() -> None:
    assert [how(code) for code in (0, 3, -9, -40)] == ["exit code 0", "exit code 3", "SIGKILL", "signal 40"]


def test_a_keeper_that_is_told_to_end_drains(kept: Kept) -> None:
    """As at the end of a session, or of the machine."""
    kept.channel.tell("go")
    kept.channel.until(said="accepting")
    kept.process.send_signal(signal.SIGTERM)
    kept.channel.until(said="drained")
    wait_for(lambda: not alive(kept.pid))


def test_nobody_says_what_to_start(tmp_path: Path) -> None:
    end, theirs = socket.socketpair()
    with listener.bind(0) as held, theirs:
        words = ours.words("org.ops.keeper", str(held.fileno()))
        process = subprocess.Popen(words, stdin=theirs.fileno(), pass_fds=(held.fileno(),))
    end.close()
    assert process.wait(DEADLINE_S) == 0


def test_what_a_killed_keeper_has_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home, door = tmp_path / "org-c0ffee", tmp_path / "run" / "c0ffee.keeper"
    for folder in (home, door.parent):
        folder.mkdir()
    (home / "health").touch()
    door.touch()
    forget(door)
    assert list(tmp_path.iterdir()) == [door.parent]
    assert list(door.parent.iterdir()) == []
