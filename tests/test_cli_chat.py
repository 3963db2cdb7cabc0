"""`org chat` in a real (pseudo-)terminal, on the real engine and in the real sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Home, Terminal
from engine import Engine
from org.errors import ExitCode

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]

CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Home:
    return Home(tmp_path, engine.base_url, engine.model)


def test_a_conversation(home: Home) -> None:
    home.roster({"coder": ("agent", "talk-tool")})
    with home.terminal("chat", "--plain") as terminal:
        terminal.wait_for("bubblewrap")
        terminal.wait_for("ada> ")
        terminal.type("what is here?\n")
        terminal.wait_for("coder -> everyone\nLet me look.\n")
        terminal.wait_for("coder sh `ls -la .` · ")
        terminal.wait_for("exit 0")
        terminal.wait_for("Nothing special there.")
        terminal.wait_for("(1 turn · ")
        terminal.wait_for("ada> ")
        terminal.type(CTRL_D)
        terminal.wait_for("org chat --resume room-1")
        assert terminal.exit_code() == ExitCode.DONE


def leave_by_ctrl_c(terminal: Terminal) -> int:
    """Python's readline loses a signal that comes between the prompt and its wait for input, so each
    press is made again until it is heard."""
    for shown in ("to leave", "goes on here"):
        for patience_s in (2.0, 2.0, 10.0):
            terminal.type(CTRL_C)
            try:
                terminal.wait_for(shown, patience_s)
            except AssertionError:
                continue
            break
    return terminal.exit_code()


def test_ctrl_c_stops_the_turn_and_keeps_what_was_said(home: Home) -> None:
    home.roster({"coder": ("simple", "forever")})
    with home.terminal("chat", "--plain") as terminal:
        terminal.wait_for("ada> ")
        terminal.type("go\n")
        terminal.wait_for("tick tock tick")
        terminal.type(CTRL_C)
        terminal.wait_for("coder was interrupted")
        terminal.wait_for("stopped (interrupted)")
        terminal.wait_for("ada> ")
        assert leave_by_ctrl_c(terminal) == ExitCode.DONE
    assert "The clock goes: tick tock" in home.run("export", "room-1", "--format", "md").stdout


def test_ctrl_c_stops_a_command_of_the_persons_own(home: Home) -> None:
    home.roster({"coder": ("simple", "hello")})
    with home.terminal("chat", "--plain") as terminal:
        terminal.wait_for("ada> ")
        terminal.type("!touch begun; sleep 1000\n")
        begun = home.rooms / "room-1" / "work" / "begun"
        while not begun.exists():
            terminal.take_in()
        terminal.type(CTRL_C)
        terminal.wait_for("stopped")
        terminal.wait_for("ada> ")
        terminal.type("!echo $((6 * 7))\n")
        terminal.wait_for("42\n")


def test_a_call_is_run_only_after_a_yes(home: Home) -> None:
    home.roster({"coder": ("agent", "two")}, '[tools]\nsh = "ask"\n')
    with home.terminal("chat", "--plain") as terminal:
        terminal.wait_for("ada> ")
        terminal.type("go on\n")
        terminal.wait_for("cmd: echo one")
        terminal.wait_for("[y/N] ")
        terminal.type("y\n")
        terminal.wait_for("coder sh `echo one` · ")
        terminal.wait_for("cmd: echo two")
        terminal.wait_for("[y/N] ")
        terminal.type("\n")
        terminal.wait_for("a person said no")
        terminal.wait_for("Both commands ran.")


def test_commands(home: Home) -> None:
    home.roster({"coder": ("agent", "hello"), "guide": ("simple", "pass")})
    with home.terminal("chat", "--plain") as terminal:

        def does(line: str, *shown: str) -> None:
            terminal.wait_for("ada> ")
            terminal.type(line + "\n")
            for text in shown:
                terminal.wait_for(text)

        does("/help", "/invite ID=PROFILE[:MODEL]", "#file:path")
        does("/who", "coder", "agent, scripted")
        does("/mode direct:guide", "ada -> @guide")
        does("/mode group", "ada -> everyone")
        does("@codr hello", "perhaps you mean `@coder`")
        does("/invite ann=simple", "ann has joined")
        does("/kick ann", "ann has left")
        does("/kick ann", "no participant is called `ann`")
        does("hello", "Hello, world.", "guide passes", "tokens)")
        does("/tokens", "context", "of 32,768")
        does("/limits turns 3", "turns 3")
        does("/limits turns many", "not a number")
        does("/tools", "sh (run)", "bubblewrap")
        does("/model coder other", "coder: other")
        does("/undo", "taken back: hello")
        does("/compact", "nothing to compact")
        does("/clear", "afresh")
        does("#file:notes/one.md remember", "turns")
        does("!cat notes/one.md", "remember\n")
        does("/export", "written: room-1.md")
        does("/export", "exists")
        does("/hepl", "did you mean `/help`?")
        does("/quit", "org chat --resume")
        assert terminal.exit_code() == ExitCode.DONE


def test_lines_from_a_pipe_are_said_one_by_one(home: Home) -> None:
    home.roster({"coder": ("simple", "hello")})
    done = home.run("chat", stdin="one\ntwo\n/who\n")
    assert done.returncode == ExitCode.DONE
    assert "Hello, world." in done.stdout
    assert "And hello again." in done.stdout
    assert "simple, scripted" in done.stdout


def test_a_room_in_use_names_its_holder(home: Home) -> None:
    home.roster({"coder": ("simple", "hello")})
    with home.terminal("chat", "--plain", "--room", "mine") as terminal:
        terminal.wait_for("ada> ")
        done = home.run("run", "-r", "mine", "hello")
        assert done.returncode == ExitCode.BUSY
        assert "pid" in done.stderr
