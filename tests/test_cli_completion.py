"""`org completion`: the bash script in a real bash; the others by what they list."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from cli_kit import Desk
from command import ORG, Terminal
from org.__main__ import VERBS
from org.cli.completion import Command, Option, bash, fish, room_ids, zsh
from org.errors import ExitCode


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def completes(desk: Desk, tmp_path: Path) -> Completes:
    """In a bash that has read the script, with `org` on its PATH, and a few rooms."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "org").write_text(f'#!/bin/sh\nexec {shlex.join(ORG)} "$@"\n')
    (bin / "org").chmod(0o755)
    desk.home.env["PATH"] = f"{bin}:{desk.home.env['PATH']}"
    for name in ("room-1", "room-2", "plans"):
        desk.room(name)
    return Completes(desk, desk.org("completion", "bash").out)


class Completes:
    def __init__(self, desk: Desk, script: str) -> None:
        self._desk = desk
        self._script = script

    def __call__(self, *words: str) -> list[str]:
        """What is offered for the last of the words, as bash calls a completion function."""
        program = (
            f"{self._script}\n"
            "compopt() { :; }\n"  # outside of a completion it only complains
            f"COMP_WORDS=(org {shlex.join(words)})\n"
            f"COMP_CWORD={len(words)}\n"
            '_org org "${COMP_WORDS[COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", program],
            capture_output=True,
            text=True,
            env=self._desk.home.env,
            cwd=self._desk.home.project,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()


def test_in_bash(completes: Completes) -> None:
    assert completes("") == list(VERBS)
    assert completes("ex") == [verb for verb in VERBS if verb.startswith("ex")]
    assert completes("show", "") == ["plans", "room-1", "room-2"]
    assert completes("show", "r") == ["room-1", "room-2"]
    assert completes("show", "room-1", "--") == ["--help", "--debug", "--tools", "--json"]
    assert completes("export", "plans", "--format", "") == ["md", "json"]
    assert completes("export", "plans", "--format", "=", "j") == ["json"]
    assert completes("export", "plans", "--format", "=") == ["md", "json"]
    assert completes("rooms", "") == ["rm"]
    assert completes("rooms", "rm", "p") == ["plans"]
    assert completes("rooms", "rm", "plans", "-") == ["-h", "--help", "--debug", "-y", "--yes"]
    assert completes("completion", "") == ["bash", "zsh", "fish"]
    assert completes("doctor", "--sandbox", "b") == ["bubblewrap"]
    assert completes("search", "--limit", "") == []
    assert completes("no-such-verb", "") == []


def test_options_alone_are_those_of_chat(completes: Completes) -> None:
    assert completes("--res") == ["--resume"]
    assert completes("--resume", "p") == ["plans"]
    assert completes("--plain", "--res") == ["--resume"]
    assert completes("chat", "-r", "p") == ["plans"]


def test_files_and_folders(completes: Completes, desk: Desk) -> None:
    (desk.home.project / "notes.md").touch()
    (desk.home.project / "notes").mkdir()
    assert sorted(completes("export", "plans", "-o", "no")) == ["notes", "notes.md"]
    assert completes("config", "-C", "no") == ["notes"]
    assert completes("trust", "") == ["notes"]


def test_in_a_terminal(completes: Completes, desk: Desk) -> None:
    script = desk.home.project / "org.bash"
    script.write_text(desk.org("completion", "bash").out)
    words = ["bash", "--norc", "--noprofile", "-i"]
    with Terminal(words, desk.home.env, desk.home.project) as terminal:
        terminal.type(f". {script}\necho re''ady\n")
        terminal.wait_for("ready")
        terminal.type("org show pl\t--js\t| wc -l\n")
        terminal.wait_for("org show plans --json | wc -l")
        terminal.wait_for("4")


def test_the_rooms_of_the_moment(desk: Desk) -> None:
    assert desk.org("completion", "--rooms").out.strip() == ""
    desk.room("b")
    desk.room("a")
    assert desk.org("completion", "--rooms").out == "a\nb\n"


def test_a_name_that_a_shell_would_run_is_left_out(tmp_path: Path) -> None:
    for name in ("good", "$(reboot)", "a b", ".removed", "`x`"):
        (tmp_path / name).mkdir()
    assert room_ids(tmp_path) == ["good"]


def test_which_shell(desk: Desk) -> None:
    assert desk.org("completion").code == ExitCode.USAGE
    assert desk.org("completion", "csh").code == ExitCode.USAGE


# -- what each script says of one command

SAMPLE = (
    Command("chat", "talk: it's [so] easy", (Option(("-r", "--resume"), "go on: [it's] there", "rooms"),)),
    Command("rooms", "list", (), ("rm",)),
    Command(
        "rooms rm", "remove", (Option(("-o",), "to", "files"), Option(("-C",), "in", "folders")), "rooms"
    ),
)


def test_in_zsh() -> None:
    script = zsh(SAMPLE)
    assert r"'chat:talk\: it'\''s [so] easy'" in script
    assert r"'--resume[go on\: \[it'\''s\] there]:value:_org_rooms'" in script
    assert "'*:word:(rm)'" in script
    assert "'-o[to]:value:_files' '-C[in]:value:_files -/' '*:word:_org_rooms'" in script


def test_in_fish() -> None:
    lines = fish(SAMPLE).splitlines()
    assert r"complete -c org -n __fish_use_subcommand -a chat -d 'talk: it\'s [so] easy'" in lines
    resume = next(line for line in lines if "-l resume" in line)
    assert "-s r -l resume -x -a '(org completion --rooms 2>/dev/null)'" in resume
    assert "'__fish_use_subcommand; or __fish_seen_subcommand_from chat'" in resume
    start = "complete -c org -n '__fish_seen_subcommand_from rooms; and"
    assert f"{start} not __fish_seen_subcommand_from rm' -a 'rm'" in lines
    assert f"{start} __fish_seen_subcommand_from rm' -s o -r -F -d 'to'" in lines


@pytest.mark.parametrize("script", [bash, zsh, fish])
def test_no_mark_of_a_template_is_left(script: object) -> None:
    assert callable(script)
    assert "@" not in script(SAMPLE).replace('"$@"', "").replace("[@]", "")
