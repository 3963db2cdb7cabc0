"""`org demo` as a process, on the real engine and in the real sandbox."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from command import Home

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]

REPORT = """\
# The primes below 100

There are 25, and their sum is 1060.

- by definition (calc, `python_run`): 25 and 1060
- by a sieve (coder, `primes.py`): 25 and 1060
"""


class Shown(NamedTuple):
    home: Home
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The demo, run once without a terminal."""
    home = Home(tmp_path_factory.mktemp("home"))
    return Shown(home, home.run("demo"))


def test_it_says_first_what_is_not_real_and_how_to_have_it_so(shown: Shown) -> None:
    assert (shown.done.returncode, shown.done.stderr) == (0, "")
    first, *_ = shown.done.stdout.splitlines()
    assert "These models only recite" in first
    assert "`org` with Ollama up" in first
    assert "`org -m FILE.gguf`" in first


def test_all_three_speak_and_their_calls_are_shown(shown: Shown) -> None:
    lines = shown.done.stdout.splitlines()
    assert {"guide -> @calc", "calc -> everyone", "coder -> @guide", "coder -> #file:report.md"} <= {*lines}
    calls = [line for line in lines if line.startswith("  ") and " · exit 0" in line]
    assert [line.split()[:2] for line in calls] == [
        ["coder", "sh"],
        ["coder", "sh"],
        ["calc", "python_run"],
        ["coder", "sh"],
    ]


def test_the_report_is_in_the_workspace(shown: Shown) -> None:
    work = shown.home.rooms / "room-1" / "work"
    assert sorted(path.name for path in work.iterdir()) == ["primes.py", "report.md"]
    assert (work / "report.md").read_text() == REPORT
    assert f"report.md in {work}" in shown.done.stdout


def test_what_it_says_at_the_end_is_so(shown: Shown) -> None:
    assert shown.done.stdout.endswith("`org show room-1 --tools` prints it all again.\n")
    again = shown.home.run("show", "room-1", "--tools")
    assert again.returncode == 0
    assert "The two agree." in again.stdout


def test_without_a_terminal_there_are_no_colours(shown: Shown) -> None:
    assert "\x1b" not in shown.done.stdout


def test_nor_in_a_terminal_that_shall_have_none(tmp_path: Path, shown: Shown) -> None:
    # The line that says who is thinking is drawn over all the same.
    assert "\x1b" not in in_a_terminal(tmp_path, shown, NO_COLOR="1").replace("\r\x1b[K", "")


def test_in_another_terminal_there_are(tmp_path: Path, shown: Shown) -> None:
    assert "\x1b[1mguide\x1b[0m" in in_a_terminal(tmp_path, shown)


def in_a_terminal(folder: Path, shown: Shown, **env: str) -> str:
    """All that the demo writes to a terminal; its model is the one that was made before."""
    home = Home(folder)
    home.env |= {"XDG_CACHE_HOME": shown.home.env["XDG_CACHE_HOME"], **env}
    with home.terminal("demo") as terminal:
        terminal.wait_for("prints it all again.")
        assert terminal.exit_code() == 0
        return terminal.raw
