"""What all verbs of generations have in common: their words, their exit codes, and the one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command import ORG, Terminal
from ops_kit import Shop, put
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

CHANGING = [["promote"], ["rollback"], ["recover"], ["candidate", "edit"], ["candidate", "diff"], ["fitness"]]


@pytest.mark.parametrize("words", CHANGING)
def test_a_lock_that_is_a_folder(shop: Shop, words: list[str]) -> None:
    shop.change({"a": "1"})
    shop.layout.lock.unlink()
    shop.layout.lock.mkdir()
    told = one_object(shop.org(*words, "--json"))
    assert (told["code"], told["reason"]) == (7, "environment")
    assert told["message"] == f"{shop.layout.lock}: Is a directory"
    assert "`org recover`" in told["hint"]
    said = shop.org(*words).stderr
    assert said.startswith(f"org: {shop.layout.lock}: Is a directory\n     mend that")


