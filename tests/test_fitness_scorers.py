"""Scores come from processes that end: whatever an answer does to a pattern, and a scorer to its pipes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.ops import plain
from org.ops.fitness import scorers, tasks, warm
from org.ops.fitness.scorers import Score, ScorerFailed
from org.ops.fitness.tasks import Suite, Task
from org.ops.fitness.warm import NoScore, Warm

BAD = "a" * 40 + "!"


def suite(check: str, folder: Path = Path()) -> Suite:
    return tasks.read(f'[[task]]\nid = "t"\nprompt = "p"\n{check}', folder=str(folder))


@pytest.fixture
def cold() -> Iterator[Warm]:
    with Warm() as made:
        yield made


# -- patterns


def test_a_pattern_that_goes_on_for_ever_is_ended(cold: Warm) -> None:
    """And the next answer has a score all the same."""
    (task,) = suite("check.regex = '^(\\w+\\s?)+$'").tasks
    with pytest.raises(NoScore, match="takes too long"):
        cold.score(task, BAD)
    assert cold.score(task, "well said") == 1


def test_one_process_scores_all(cold: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = suite("check.regex = 'b'").tasks
    assert [cold.score(task, answer) for answer in ("a", "b", "\ud800b\n", "b" * 50_000)] == [0, 1, 1, 1]
    monkeypatch.setattr(warm, "_start", lambda: pytest.fail("another was started"))
    (other,) = suite('check.json = \'{"x": 1, "y": 2}\'').tasks
    assert cold.score(other, '{"x": 1}') == 0.5


def test_one_that_was_killed_is_started_again(cold: Warm) -> None:
    (task,) = suite("check.regex = 'b'").tasks
    assert cold.score(task, "b") == 1
    assert cold._child is not None
    cold._child.kill()
    cold._child.wait()
    with pytest.raises(NoScore, match="exit code -9"):
        cold.score(task, "b")
    assert cold.score(task, "b") == 1


def test_the_pattern_is_named() -> None:
    made = suite("check.regex = '^(\\w+\\s?)+$'")
    with scorers.scoring(made) as score, pytest.raises(ScorerFailed) as caught:
        score(made.tasks[0], BAD)
    assert str(caught.value) == r"`^(\w+\s?)+$` gives no score: it takes too long"


# -- programs


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Path, Task, Score]]:
    """A file for its code, the task that goes by it, and what scores."""
    file = tmp_path / "it.py"
    made = suite('check.python = "it.py"', tmp_path)
    with scorers.scoring(made) as score:
        yield file, made.tasks[0], score


def test_a_program_is_told_what_it_has_to_know(program: tuple[Path, Task, Score], tmp_path: Path) -> None:
    file, task, score = program
    file.write_text("import sys\nopen('asked', 'w').write(sys.stdin.read())\nprint(' 0.25')\n")
    assert score(task, "so \ud800") == 0.25
    assert json.loads((tmp_path / "asked").read_text()) == {"id": "t", "prompt": "p", "answer": "so \ud800"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import sys; sys.exit('no \\x1b[2Jdice')", "no  [2Jdice"),
        ("print('nan')", "it prints 'nan'"),
        ("print(2)", "it prints '2'"),
        ("pass", "it prints ''"),
    ],
)
def test_why_there_is_no_score(program: tuple[Path, Task, Score], code: str, why: str) -> None:
    file, task, score = program
    file.write_text(code)
    with pytest.raises(ScorerFailed) as caught:
        score(task, "")
    assert str(caught.value) == f"it.py gives no score: {why}"


def test_one_that_is_late_or_floods_has_none(
    program: tuple[Path, Task, Score], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "_MOST_FILE", 1 << 20)
    file, task, score = program
    file.write_text("import sys\nwhile True: sys.stdout.write('9' * 100_000)")
    with pytest.raises(ScorerFailed, match="File too large"):
        score(task, "")
    monkeypatch.setattr(scorers, "_SECONDS", 0.2)
    file.write_text("while True: pass")
    with pytest.raises(ScorerFailed, match=r"it takes more than 0\.2 s"):
        score(task, "")


def test_what_it_leaves_behind_holds_nobody_up_and_is_ended(
    program: tuple[Path, Task, Score], tmp_path: Path
) -> None:
    file, task, score = program
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    left = f"subprocess.Popen(['sleep', '600'], stdin=os.open({str(pipe)!r}, os.O_RDWR))"
    file.write_text(f"import os, subprocess\n{left}\nprint(1)\n")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert score(task, "") == 1
        os.set_blocking(reading, True)
        assert os.read(reading, 1) == b""  # nobody has it open for writing any more
    finally:
        os.close(reading)


# -- what others write


@given(st.text(st.characters()))
def test_a_line_drives_no_terminal(text: str) -> None:
    shown = plain.line(text)
    assert len(shown) == len(text)
    assert shown.isprintable()


def test_a_text_can_be_written() -> None:
    assert plain.text("né\n\ud800\udc80!") == "né\n??!"
