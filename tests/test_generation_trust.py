"""What is started is what the person has read: whose word each of the verbs goes by, and of which commit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import program_kit
from generation_kit import free_port, get, wait_for
from org.errors import ConfigError, ExitCode
from org.ops import control, sync, trust
from program_kit import Program

EVIL = {"env.EVIL": "1"}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    with program_kit.program(tmp_path) as made:
        monkeypatch.setenv("XDG_STATE_HOME", made.env["XDG_STATE_HOME"])
        yield made


def refused(program: Program, *words: str) -> None:
    done = program.org(*words)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "not trusted: " in done.stderr
    assert f"`org trust {program.checkout}`" in done.stderr


@pytest.mark.parametrize("served", [True, False])
def test_a_commit_that_starts_something_else_is_not_started(program: Program, served: bool) -> None:
    if served:
        before = program.told("start", "current")
    program.declare("well", **EVIL)
    refused(program, "start", "current")
    refused(program, "start", "current", "--foreground")
    refused(program, "start", "current", "--systemd")
    if served:
        assert get(program.ports[0])["pid"] == before["pid"]
        assert program.told("status")["main"]["commit"] == before["commit"]
    program.org("trust")
    program.told("start", "current")
    assert "EVIL" in get(program.ports[0])["env"]


@pytest.mark.parametrize("words", [("fitness",), ("promote",), ("candidate", "edit")])
def test_no_verb_takes_it_in(program: Program, words: tuple[str, ...]) -> None:
    program.told("start", "current")
    main = program.main
    program.commit({"menu.txt": "coffee\n"})
    program.declare("well", **EVIL)
    refused(program, *words)
    assert program.main == main
    assert "EVIL" not in get(program.ports[0])["env"]


def test_what_is_trusted_before_it_is_taken_in_is_started(program: Program) -> None:
    program.told("start", "current")
    program.told("stop", "current")
    program.ports = [free_port(), free_port()]
    commit = program.settle("well")
    assert program.told("start", "current")["commit"] == commit
    assert get(program.ports[0])["commit"] == commit


def test_what_does_not_say_how_it_starts_needs_no_word(program: Program) -> None:
    program.told("start", "current")
    commit = program.declare("well", rest="[limits]\nturns = 3\n")
    assert program.told("start", "current")["commit"] == commit


def test_one_that_cannot_be_read_is_not_called_untrusted(program: Program) -> None:
    program.told("start", "current")
    program.save("break", {"org.toml": "[generation"})
    done = program.org("start", "current")
    assert (done.returncode, "org.toml is no TOML" in done.stderr) == (ExitCode.USAGE, True)
    program.settle("well", **EVIL)
    program.told("start", "current")
    assert "EVIL" in get(program.ports[0])["env"]


def test_a_candidate_is_started_by_the_word_for_main(program: Program) -> None:
    program.commit({"menu.txt": "coffee\n"})
    assert program.told("start", "candidate")["reason"] == "serving"
    program.told("stop", "candidate")
    program.org("trust", "--remove")
    refused(program, "start", "candidate")


def test_what_the_gate_has_let_in_is_started_again(program: Program) -> None:
    """As with `--allow-protected`: the person has said that it may."""
    program.told("start", "current")
    text = (program.checkout / "org.toml").read_text()
    program.commit({"org.toml": f'{text}env = {{ NEW = "1" }}\n'})
    promoted = program.promote(swap=control.swap)
    assert "NEW" in get(program.ports[0])["env"]
    program.told("stop", "current")
    assert program.told("start", "current")["commit"] == promoted.entry.commit
    assert program.told("rollback")["swapped"]
    assert "NEW" not in get(program.ports[0])["env"]
    program.told("stop", "current")
    assert program.told("start", "current")["reason"] == "serving"
    program.told("stop", "current")
    program.org("trust", "--remove")
    refused(program, "start", "current")


def test_what_is_served_is_rescued_without_another_word(program: Program) -> None:
    """A rollback, what it interrupted, and what ends by itself: main was let in when it became main."""
    before = program.told("start", "current")
    program.commit({"menu.txt": "coffee\n"})
    promoted = program.promote(swap=control.swap).entry.commit
    program.declare("well", **EVIL)
    program.org("trust", "--remove")
    refused(program, "start", "current")
    pid = get(program.ports[0])["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: control.status(program.layout)["current"].get("pid", pid) != pid)
    assert get(program.ports[0])["commit"] == promoted
    assert program.org("rollback", ORG_FAULT="cas:after").returncode == -signal.SIGKILL
    assert program.told("recover")["reason"] == "recovered"
    served = get(program.ports[0])
    assert (served["commit"], "EVIL" in served["env"]) == (program.main, False)
    assert program.files(program.main) == program.files(before["commit"])


def test_only_generation_counts_and_of_that_every_value(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    trusted = '[generation]\nstart = "shop"\ncontract = 1\n'
    (tmp_path / "org").mkdir()
    stored = {"version": 1, "folders": {"/shop": trusted}}
    (tmp_path / "org" / "trust.json").write_text(json.dumps(stored))
    for same in (trusted, f"# said\n{trusted}[limits]\nturns = 1\n", trusted.replace(" ", "  ")):
        trust.require(env, Path("/shop"), same)
    gate = '[generation]\nstart = "new"\n'
    trust.require(env, Path("/shop"), gate, [gate])
    off = ("true", "1.0", "2", '1\nfitness = {"pairs" = 1}', '1\nstart = "shop"', "")
    for text in (*(trusted.replace("1", value) for value in off), "", "[generation]\n", gate, "["):
        with pytest.raises(ConfigError, match="not trusted"):
            trust.require(env, Path("/shop"), text, ["[generation]\n", ""])
    with pytest.raises(ConfigError, match="not trusted"):
        trust.require(env, Path("/other"), gate, [gate])


def test_it_is_taken_in_under_the_lock_or_not_at_all(program: Program) -> None:
    program.told("start", "current")
    program.declare("well", **EVIL)
    with program.program.hold("test") as git:
        known, _ = sync.current(git)
        with pytest.raises(ConfigError, match="not trusted"):
            sync.take_in(program.program, git, known)
        assert sync.current(git)[0].by_name == known.by_name
