"""What all verbs of generations have in common: their words, their exit codes, and the one JSON object."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops_kit import Shop, put
from org.errors import EnvironmentProblem
from org.ops import files
from org.ops.__main__ import VERBS

WORDS = {"start": ["current"], "stop": ["current"], "candidate": ["edit"], "compare": ["hello"]}
"""What a verb cannot go without."""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def one_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `--json` printed: one object, which says how the process ended."""
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (told["v"], told["code"], told["where"]) == (1, done.returncode, "host")
    assert told["reason"]
    assert "Traceback" not in done.stderr
    return told


# -- whatever is wrong, it is said in the form that was asked for


@pytest.mark.parametrize("verb", VERBS)
def test_outside_a_repository(shop: Shop, tmp_path: Path, verb: str) -> None:
    shop.checkout = tmp_path / "elsewhere"
    shop.checkout.mkdir()
    told = one_object(shop.org(verb, *WORDS.get(verb, []), "--json"))
    assert (told["code"], told["reason"]) == (2, "usage")
    assert told["message"].startswith("no Git repository in ")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("module", ["org", "org.ops"])
def test_words_that_are_off(tmp_path: Path, verb: str, module: str) -> None:
    words = [sys.executable, "-m", module, verb, *WORDS.get(verb, []), "--json", "--no-such"]
    told = one_object(subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False))
    assert (told["reason"], told["message"]) == ("usage", "unrecognized arguments: --no-such")
    assert told["hint"].endswith("--help` explains it")


def test_a_word_is_not_guessed_from_its_beginning(shop: Shop) -> None:
    done = shop.org("history", "--js")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --js" in done.stderr


@pytest.mark.parametrize("option", ["--foreground", "--systemd", "--tmux"])
def test_what_prints_something_else_is_no_object(shop: Shop, option: str) -> None:
    assert one_object(shop.org("start", "current", option, "--json"))["reason"] == "usage"


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_is_gone_from_under_it(shop: Shop, verb: str) -> None:
    words = [sys.executable, "-P", "-m", "org", verb, *WORDS.get(verb, []), "--json"]
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words],
        cwd=shop.checkout, env=shop.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = one_object(done)
    assert (told["code"], told["message"]) == (7, "the folder in which this was typed is gone")


# -- what the system refuses

VERBS_THAT_LOCK = [["promote"], ["rollback"], ["recover"], ["candidate", "edit"], ["candidate", "diff"]]


@pytest.mark.parametrize("words", VERBS_THAT_LOCK)
def test_a_lock_that_is_a_folder(shop: Shop, words: list[str]) -> None:
    shop.change({"a": "1"})
    shop.layout.lock.unlink()
    shop.layout.lock.mkdir()
    told = one_object(shop.org(*words, "--json"))
    assert (told["code"], told["reason"]) == (7, "environment")
    assert told["message"] == f"{shop.layout.lock}: Is a directory"
    assert "`org recover`" in told["hint"]
    assert shop.org(*words).stderr.startswith(f"org: {shop.layout.lock}: Is a directory\n     mend that")


def test_a_verb_that_is_debugged_says_all(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.layout.lock.unlink()
    shop.layout.lock.mkdir()
    done = shop.org("promote", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "IsADirectoryError" in done.stderr


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "the disk is full: /x", "make room"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: /given", "make room"),
        (
            PermissionError(errno.EACCES, "Permission denied", b"/x\xff"),
            "/x\udcff: Permission denied",
            "ls -ld",
        ),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", Path("/x")), "/x: Not a directory", "mend"),
        (TimeoutError(), "/given: TimeoutError", "mend"),
        (OSError("odd"), "/given: odd", "mend"),
    ],
)
def test_what_the_system_refuses_names_the_place_and_why(error: OSError, message: str, hint: str) -> None:
    said = files.problem(error, "/given")
    assert said.message == message
    assert hint in said.hint


def test_a_full_disk_is_said_of_the_file_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.write_json(tmp_path / "it.json", {"a": "1"})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match=f"the disk is full: {tmp_path}/it.json"):
        files.write_json(tmp_path / "it.json", {"a": "2"})
    assert files.read_json(tmp_path / "it.json", "a") == {"a": "1"}


def with_a_promote(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    shop.change({"a": "2"})


DAMAGED = ["", "{", "[]", "{}", '{"a": "b"}', '{"branch": 1}', '{"branch": "x", "more": "y"}', "[" * 100_000]


@pytest.mark.parametrize("text", [*DAMAGED, "/"])
def test_a_damaged_file_of_ours_is_said(shop: Shop, text: str) -> None:
    with_a_promote(shop)
    for path, words in (
        (shop.layout.candidate_state, ["candidate", "commit", "-m", "x"]),
        (shop.layout.pending, ["recover"]),
    ):
        path.unlink(missing_ok=True)
        path.mkdir() if text == "/" else path.write_text(text)
        told = one_object(shop.org(*words, "--json"))
        assert (told["code"], told["message"]) == (7, f"{path} is not what org wrote")
        assert told["hint"] == "remove it, then `org recover`"
        path.rmdir() if text == "/" else path.unlink()
    assert one_object(shop.org("recover", "--json"))["reason"] == "nothing-to-do"
    assert shop.org("rollback").returncode == 0


# -- what is shown


def test_a_patch_and_a_log_are_objects_too(shop: Shop) -> None:
    folder = shop.edit({"menu.txt": "coffee\n"})
    (folder / "old.txt").write_bytes(b"caf\xe9\n")
    told = one_object(shop.org("candidate", "diff", "--json"))
    assert "-tea\n+coffee\n" in told["patch"] and "+caf?\n" in told["patch"]
    shop.layout.run.mkdir()
    shop.layout.log("candidate").write_bytes(b"one\ntwo\xff\nthree\n")
    told = one_object(shop.org("logs", "candidate", "-n", "2", "--json"))
    assert (told["colour"], told["lines"]) == ("candidate", ["two\ufffd", "three"])
    told = one_object(shop.org("logs", "--follow", "--json"))
    assert told["reason"] == "usage"


@pytest.mark.parametrize("module", ["org", "org.ops"])
def test_a_name_of_a_file_drives_no_terminal(shop: Shop, module: str) -> None:
    first = shop.change({"a\x1b[31mred": "1"})
    shop.change({"a\x1b[31mred": "2"}, new=True)
    shop.promote(first)
    done = subprocess.run(
        [sys.executable, "-m", module, "promote"],
        cwd=shop.checkout, env=shop.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "a [31mred" in done.stderr and "\x1b" not in done.stderr


def test_in_a_program_whose_name_is_no_text(tmp_path: Path) -> None:
    shop = Shop(tmp_path / os.fsdecode(b"caf\xe9"))
    opened = subprocess.run(
        [sys.executable, "-m", "org", "candidate", "edit"],
        cwd=shop.checkout, env=shop.env, capture_output=True, check=True,
    )  # fmt: skip
    folder = Path(os.fsdecode(opened.stdout.removesuffix(b"\n")))
    put(folder, {"a": "1"})
    told = one_object(shop.org("candidate", "commit", "-m", "x", "--json"))
    shop.promote(told["branch"])
    assert shop.files() == {"menu.txt": "tea\n", "a": "1"}
    told = one_object(shop.org("rollback", "--json"))
    assert Path(told["pull"].split("'")[-2]).exists()
