"""The entry: what it imports, which verb it finds, and how each kind of ending is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli_kit import Desk, posted
from org import __version__
from org.__main__ import ABOUT, VERBS, main
from org.cli import init
from org.errors import Busy, ExitCode, JournalCorrupt, OrgError

LONG = [posted(number, "coder", "a long story " * 500) for number in range(1, 40)]
PROBE = "import sys; before = set(sys.modules); from org.__main__ import main; main({words}); {check}"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def python(*argv: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    # What pytest runs under must not decide whether output is buffered.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        timeout=60,
        check=False,
    )


# -- what is told without a verb


@pytest.mark.parametrize("word", ABOUT)
def test_version_and_help_import_nothing(word: str) -> None:
    check = "print(sorted(set(sys.modules) - before), file=sys.stderr)"
    done = python("-c", PROBE.format(words=[word], check=check))
    assert done.stderr.strip() == "['__future__', 'org', 'org.__main__']"


def test_help_imports_nothing_that_python_itself_has_not() -> None:
    """As a program, with all that stands around `main`: what is dear to import is not there."""
    done = python("-X", "importtime", "-m", "org", "--help")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "org.__main__" not in imported  # it runs as the program itself
    dear = {"argparse", "asyncio", "dataclasses", "enum", "importlib.metadata", "json", "logging", "re",
            "sqlite3", "ssl", "typing"}  # fmt: skip
    bare = {
        line.rpartition("|")[2].strip() for line in python("-X", "importtime", "-c", "").stderr.splitlines()
    }
    assert not imported & (dear - bare)


def test_a_usage_error_needs_no_room() -> None:
    """The rest of the program is not read to say that a word is no verb."""
    check = "print([name for name in sys.modules if name.startswith('org')], file=sys.stderr)"
    done = python("-c", PROBE.format(words=["chatt"], check=check))
    assert done.stderr.splitlines()[-1] == "['org', 'org.__main__', 'org.errors']"


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version(desk: Desk, word: str) -> None:
    assert desk.org(word) == (0, f"org {__version__}\n", "")


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_the_help_names_every_verb(desk: Desk, word: str) -> None:
    said = desk.org(word)
    assert (said.code, said.err) == (0, "")
    listed = re.findall(r"^  (\w+) +(.+)$", said.out, re.MULTILINE)
    assert listed == [(verb, about) for verb, (_, about) in VERBS.items()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_and_explains_itself(desk: Desk, verb: str) -> None:
    assert find_spec(VERBS[verb][0]) is not None
    said = desk.org(verb, "--help")
    assert (said.code, said.err) == (ExitCode.DONE, "")
    assert said.out.startswith(f"usage: org {verb}")


# -- verbs


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("doctr", "did you mean `org doctor`?"),
        ("rom", "did you mean `org rooms`?"),
        ("xyzzy", "`org --help`"),
    ],
)
def test_an_unknown_verb_is_told_with_the_nearest(desk: Desk, word: str, hint: str) -> None:
    assert desk.org(word) == (ExitCode.USAGE, "", f"org: there is no `org {word}`\n     {hint}\n")


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], []),
        (["--room", "tea"], ["--room", "tea"]),
        (["-m", "./model.gguf"], ["-m", "./model.gguf"]),
        (["chat", "--plain"], ["--plain"]),
    ],
)
def test_options_alone_are_those_of_chat(
    monkeypatch: pytest.MonkeyPatch, words: list[str], given: list[str]
) -> None:
    seen: list[list[str]] = []

    def run(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    monkeypatch.setattr("org.cli.chat.run", run)
    assert (main(words), seen) == (7, [given])


# -- endings


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `org init` end with this."""

    def run(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(init, "run", run)


@pytest.mark.parametrize(
    ("error", "err"),
    [
        (OrgError("it broke"), "org: it broke\n"),
        (Busy("taken by 42", "wait\nor take another"), "org: taken by 42\n     wait\n     or take another\n"),
        (JournalCorrupt("torn"), "org: torn\n"),
    ],
)
def test_an_expected_error_is_one_line_its_hint_and_its_code(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: OrgError, err: str
) -> None:
    ending(monkeypatch, error)
    assert desk.org("init") == (error.exit_code, "", err)


def test_with_debug_an_expected_error_is_a_traceback(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, Busy("taken"))
    with pytest.raises(Busy):
        desk.org("init", "--debug")


def test_ctrl_c_is_130_and_says_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, KeyboardInterrupt())
    assert desk.org("init") == (ExitCode.INTERRUPTED, "", "")


def test_a_bug_is_a_traceback_and_1() -> None:
    code = "from org import __main__, cli; from org.cli import init; init.run = lambda argv: 1 // 0; "
    done = python("-c", f"{code}import sys; sys.exit(__main__.main(['init']))")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")


@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["show", "tea"], ["rooms"], ["run", "--help"], ["config"]]
)
def test_a_reader_that_has_left_is_no_error(desk: Desk, words: list[str], unbuffered: list[str]) -> None:
    desk.room("tea")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = python(*unbuffered, "-m", "org", *words, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_rest_is_read_by_nobody_and_no_error(desk: Desk) -> None:
    """As `org show ROOM | head -1`, with more than a pipe holds."""
    desk.room("tea", *LONG)
    shell = f'"{sys.executable}" -m org show tea | head -1; echo "codes ${{PIPESTATUS[*]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.splitlines()[1:], done.stderr) == (["codes 0 0"], "")
