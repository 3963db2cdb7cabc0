"""`org run` as a process, on the real engine and in the real sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cli_kit import Desk
from command import DEADLINE_S, ORG, Home
from engine import Engine
from org.chat.room import Room
from org.cli.run import Interrupts
from org.errors import ExitCode
from org.events import Joined
from org.journal import list_rooms
from org.ports import Turn

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


def said_with(home: Home, stdin: int, *words: str) -> dict[str, object]:
    """What `org run --json WORDS` said in the room, as its first event, with this standard input."""
    done = subprocess.run(
        [*ORG, "run", "--json", *words],
        stdin=stdin,
        capture_output=True,
        text=True,
        env=home.env,
        cwd=home.project,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message: dict[str, object] = json.loads(done.stdout.splitlines()[0])["message"]
    return message | {"stderr": done.stderr}


def test_a_pipe_that_stays_silent_is_left_alone_beside_words(home: Home) -> None:
    home.roster({"guide": ("simple", "hello")})
    reading, writing = os.pipe()
    try:
        said = said_with(home, reading, "hello")
        assert said["content"] == "hello"
        assert "nothing came through the pipe" in str(said["stderr"])
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_is_a_part_of_what_is_said_and_a_device_is_not(home: Home, tmp_path: Path) -> None:
    home.roster({"guide": ("simple", "hello")})
    (tmp_path / "notes").write_text("a note\n")
    with (tmp_path / "notes").open() as file:
        assert said_with(home, file.fileno(), "hello")["content"] == "hello\n\na note"
    with Path("/dev/zero").open() as endless:
        assert said_with(home, endless.fileno(), "hello")["content"] == "hello"


def test_without_words_a_pipe_is_waited_for(home: Home) -> None:
    home.roster({"guide": ("simple", "hello")})
    with subprocess.Popen(
        [*ORG, "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=home.env,
        cwd=home.project,
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        out, _ = process.communicate("hello\n", DEADLINE_S)
    assert (process.returncode, out) == (0, "Hello, world. This is plain text, in small pieces.\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(home: Home, closed: str) -> None:
    home.roster({"guide": ("simple", "hello")})
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *ORG, "run", "hello"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=home.env,
        cwd=home.project,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == (
        ""
        if ">&- " in f"{closed} ".replace("2>&-", "")
        else "Hello, world. This is plain text, in small pieces.\n"
    )


@pytest.mark.parametrize("opened", [False, True])
def test_an_interrupt_before_the_exchange_ends_the_command(tmp_path: Path, *, opened: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        home = Home(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "m" if opened else "")
        home.roster({"guide": ("simple", "hello")})
        with home.start("run", "hello") as process:
            asking, _ = silent.accept()
            with asking:
                asking.recv(1)  # it wants to know the models, or the size of the context
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == ExitCode.INTERRUPTED
        assert err == ""
        assert not list_rooms(home.rooms)


class Stubborn:
    """Takes its time to stop."""

    introduction = Joined("mule", "model")

    def __init__(self) -> None:
        self.began, self.cut, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def respond(self, turn: Turn) -> str:
        self.began.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cut.set()
            await self.end.wait()
        return ""


async def test_the_first_interrupt_stops_the_exchange_and_the_second_does_not_wait_for_that() -> None:
    mule = Stubborn()

    async def say(room: Room) -> None:
        with Interrupts() as interrupts:
            interrupts.room = room
            await room.say("me", "go on")

    async with Room(participants=[mule]) as room:
        saying = asyncio.create_task(say(room))
        await mule.began.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await mule.cut.wait()
        assert not saying.done()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await saying
        mule.end.set()


def test_nobody_was_addressed(home: Home) -> None:
    home.roster({"guide": ("simple", "hello")}, 'policy = "mention"\n')
    done = home.run("run", "hello?")
    assert (done.returncode, done.stdout) == (ExitCode.FAILED, "")
    assert "nobody was addressed" in done.stderr
    assert "@guide" in done.stderr
    assert home.run("run", "@guide hello?").returncode == ExitCode.DONE
    assert home.run("run", "#file:note.md hello").returncode == ExitCode.DONE


def test_a_room_that_is_gone_on_in_has_its_own_roster(home: Home) -> None:
    home.roster({"guide": ("simple", "hello")})
    assert home.run("run", "--room", "talk", "one").returncode == 0
    done = home.run("run", "-r", "talk", "--with", "b=simple", "two")
    assert done.returncode == ExitCode.USAGE
    assert "/invite b=simple" in done.stderr
