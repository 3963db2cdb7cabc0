"""`org run` as a process, on the real engine and in the real sandbox."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from cli_kit import Desk
from command import Home
from engine import Engine
from org.errors import ExitCode

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Home:
    return Home(tmp_path, engine.base_url, engine.model)


def test_answers_go_to_standard_output_and_the_rest_to_standard_error(home: Home) -> None:
    home.roster({"coder": ("agent", "talk-tool")})
    done = home.run("run", "what is here?")
    assert (done.returncode, done.stdout) == (0, "Let me look.\nNothing special there.\n")
    assert "coder sh `ls -la .`" in done.stderr
    assert "exit 0" in done.stderr


def test_what_is_said_to_others_is_not_an_answer(home: Home) -> None:
    home.roster({"guide": ("simple", "addresses"), "calc": ("simple", "pass")})
    done = home.run("run", "@guide begin")
    assert done.stdout == "This is for you alone.\n"
    assert "guide -> @calc\nand this is for calc" in done.stderr


def test_json_is_one_versioned_event_a_line(home: Home) -> None:
    home.roster({"coder": ("agent", "tool")})
    done = home.run("run", "--json", "go on")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["v"] for event in events} == {1}
    kinds = [event["type"] for event in events]
    assert kinds[0] == "posted"
    assert kinds[-1] == "stopped"
    assert "call_finished" in kinds
    assert [e["message"]["content"] for e in events if e["type"] == "posted"] == [
        "go on",
        "The command printed hi.",
    ]


def test_a_pipe_is_a_part_of_what_is_said(home: Home) -> None:
    home.roster({"coder": ("simple", "hello")})
    done = home.run("run", "--json", "summarise", stdin="line one\nline two\n")
    assert json.loads(done.stdout.splitlines()[0])["message"]["content"] == "summarise\n\nline one\nline two"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--max-turns", "1", "hello"), ExitCode.LIMIT),
        (("@codr hello",), ExitCode.USAGE),
        ((), ExitCode.USAGE),
        (("--max-turns", "none", "hello"), ExitCode.USAGE),
        (("--policy", "shout", "hello"), ExitCode.USAGE),
        (("-r", "no-such-room", "hello"), ExitCode.USAGE),
    ],
)
def test_exit_codes(home: Home, words: tuple[str, ...], code: ExitCode) -> None:
    home.roster({"coder": ("simple", "hello"), "guide": ("simple", "hello")})
    done = home.run("run", *words)
    assert done.returncode == code, done.stderr


def test_a_call_that_needs_approval_is_denied_without_a_terminal(home: Home) -> None:
    home.roster({"coder": ("agent", "tool")}, '[tools]\nsh = "ask"\n')
    done = home.run("run", "go on")
    assert done.returncode == ExitCode.DENIED
    assert "nobody is there" in done.stderr
    assert home.run("run", "-y", "go on").returncode == ExitCode.DONE


def test_without_a_server_the_three_ways_out_are_said(home: Home) -> None:
    del home.env["ORG_MODEL"]
    done = home.run("run", "--base", "http://127.0.0.1:9/v1", "hello")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "http://127.0.0.1:9/v1" in done.stderr
    for way in ("ollama serve", "--base", ".gguf"):
        assert way in done.stderr


def test_an_interrupt_keeps_what_was_said(home: Home) -> None:
    home.roster({"coder": ("simple", "forever")})
    with home.start("run", "--json", "--room", "cut", "go on") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["type"] == "delta":
                break
        process.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in process.stdout]
        assert process.wait(30) == ExitCode.INTERRUPTED
    kept = [event["message"]["content"] for event in rest if event["type"] == "posted"]
    assert len(kept) == 1
    assert kept[0].startswith("The")
    assert kept[0] in home.run("export", "cut", "--format", "md").stdout


def test_a_room_can_be_gone_on_in(home: Home) -> None:
    home.roster({"coder": ("simple", "hello")})
    first = home.run("run", "--room", "talk", "one")
    again = home.run("run", "-r", "talk", "two")
    assert first.stdout == "Hello, world. This is plain text, in small pieces.\n"
    assert again.stdout == "And hello again.\n"
    assert home.run("run", "--room", "talk", "three").returncode == ExitCode.USAGE


def test_without_a_sandbox_and_without_an_input(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, monkeypatch, capsys)
    desk.home.roster({"guide": ("simple", "hello")})
    monkeypatch.setattr("org.sandbox.bubblewrap.shutil.which", lambda *args, **kwargs: None)
    monkeypatch.setattr("sys.stdin", None)  # as after `<&-`
    said = desk.org("run", "--base", engine.base_url, "-m", engine.model, "hi")
    assert (said.code, said.out) == (0, "Hello, world. This is plain text, in small pieces.\n")
    place = "nowhere: `bwrap` is not installed (`apt-get install bubblewrap`)"
    assert said.err.splitlines()[0] == f"warning: commands run {place}"
