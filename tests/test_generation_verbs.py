"""`org start`, `stop`, `status` and `logs`, as a person types them in a program's repository."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import program_kit
from command import Terminal
from generation_kit import alive, free_port, get, wait_for
from org.errors import ExitCode
from org.ops import control
from program_kit import Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with program_kit.program(tmp_path) as made:
        yield made


def test_both_colours_side_by_side(program: Program) -> None:
    first = program.git("rev-parse", "HEAD")
    started = program.told("start", "current")
    assert (started["reason"], started["commit"]) == ("serving", first)
    assert started["url"] == f"http://127.0.0.1:{program.ports[0]}"
    candidate = program.commit({"menu.txt": "coffee\n"})
    assert program.told("start", "candidate")["commit"] == candidate
    branch = program.told("candidate", "edit")["branch"]
    assert program.told("start", "candidate", branch)["reason"] == "serving-already"
    assert [get(port)["commit"] for port in program.ports] == [first, candidate]
    status = program.told("status")
    assert [status[colour]["state"] for colour in ("current", "candidate")] == ["serving"] * 2
    assert status["main"] == {"commit": first, "promotes": 0}
    assert program.told("stop", "candidate")["reason"] == "stopped"
    assert program.told("stop", "candidate")["reason"] == "not-served"
    assert program.told("status")["candidate"] is None


def test_what_is_said_to_a_person(program: Program) -> None:
    done = program.org("start", "current")
    pid = get(program.ports[0])["pid"]
    commit = program.git("rev-parse", "HEAD")[:12]
    url = f"http://127.0.0.1:{program.ports[0]}"
    assert done.stdout == f"current: {commit} is served at {url}, pid {pid}\n"
    again = program.org("start", "current")
    assert again.stdout == f"current: {commit} is served already at {url}, pid {pid}\n"
    status = program.org("status").stdout.splitlines()
    assert status[0].startswith(f"current    serving {commit} at {url}, pid {pid}, up ")
    assert "well in " in status[0]
    assert status[1:] == ["candidate  not served", f"main       {commit}"]
    assert "org: " + commit + " starts" in program.org("logs").stdout
    assert program.org("stop", "current").stdout == "current is stopped\n"
    assert program.org("status").stdout.startswith("current    not served\n")


def test_a_commit_on_the_users_main_is_taken_in_and_swapped_in(program: Program) -> None:
    first = program.told("start", "current")
    commit = program.save("more", {"menu.txt": "cake\n"})
    second = program.told("start", "current")
    assert (second["commit"], second["old_said_draining"]) == (commit, True)
    assert get(program.ports[0])["commit"] == commit != first["commit"]


def test_a_main_that_does_not_fit_is_not_taken_in(program: Program) -> None:
    program.told("start", "current")
    program.commit({"menu.txt": "coffee\n"})
    ours = program.promote(swap=control.swap).entry.commit
    program.save("mine", {"menu.txt": "cocoa\n"})
    done = program.org("start", "current")
    assert done.returncode == ExitCode.DONE
    assert "yours is not taken in" in done.stderr
    assert get(program.ports[0])["commit"] == ours


def test_a_promote_swaps_and_a_rollback_swaps_back(program: Program) -> None:
    before = program.told("start", "current")["commit"]
    program.commit({"menu.txt": "coffee\n"})
    promoted = program.promote(swap=control.swap)
    assert promoted.swapped
    assert get(program.ports[0])["commit"] == promoted.entry.commit != before
    done = program.told("rollback")
    assert done["swapped"]
    assert get(program.ports[0])["commit"] == done["commit"]
    assert program.files(done["commit"]) == program.files(before)


def test_it_has_to_be_trusted(program: Program) -> None:
    assert program.org("trust", "--remove").returncode == 0
    done = program.org("start", "current")
    assert done.returncode == ExitCode.USAGE
    assert "not trusted: " in done.stderr
    assert f"`org trust {program.checkout}`" in done.stderr
    program.org("trust")
    assert program.told("start", "current")["reason"] == "serving"


def test_a_candidate_that_does_not_come_up(program: Program) -> None:
    program.told("start", "current")
    folder = program.edit({})
    text = (folder / "org.toml").read_text()
    program.commit({"org.toml": text.replace('"well"', '"fail"')})
    done = program.org("start", "candidate")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "ended before it was healthy: exit code 3" in done.stderr
    assert "no such table: prices" in done.stderr
    assert program.told("status")["candidate"] is None
    assert get(program.ports[0])["status"] == "serving"


def test_a_supervisor_that_was_killed_is_found_again_by_status(program: Program) -> None:
    served = program.told("start", "current")
    pid = program.told("status")["supervisor"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    status = program.told("status")
    assert status["supervisor"]["pid"] != pid
    assert (status["current"]["pid"], status["current"]["state"]) == (served["pid"], "serving")


def test_in_the_foreground_until_told_to_end(program: Program) -> None:
    words = [sys.executable, "-m", "org", "start", "current", "--foreground"]
    with Terminal(words, program.env, program.checkout) as terminal:
        terminal.wait_for("current: serves")
        assert get(program.ports[0])["status"] == "serving"
        assert program.org("start", "current", "--foreground").returncode == ExitCode.BUSY
        before = control.status(program.layout)["supervisor"]
        os.kill(before["pid"], signal.SIGHUP)  # as `systemctl reload` does
        terminal.wait_for("current: found")
        after = control.status(program.layout)["supervisor"]
        assert (after["pid"], after["image"] == before["image"]) == (before["pid"], False)
        terminal.type("\x03")
        terminal.wait_for("ends")
        assert terminal.exit_code() == ExitCode.DONE
    assert program.told("status")["supervisor"] is None


def test_in_the_foreground_what_does_not_come_up_ends_it(program: Program) -> None:
    program.settle("fail")
    done = program.org("start", "current", "--foreground")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "exit code 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_ports_that_change_while_it_is_served(program: Program) -> None:
    program.told("start", "current")
    before = program.ports
    program.ports = [free_port(), free_port()]
    commit = program.settle("well")
    done = program.org("start", "current")
    assert done.returncode == ExitCode.DONE
    assert f"`ports` names {program.ports[0]} now" in done.stderr
    assert "`org stop current`, then again" in done.stderr
    assert get(before[0])["commit"] == commit
    program.told("stop", "current")
    assert program.told("start", "current")["url"] == f"http://127.0.0.1:{program.ports[0]}"


def test_a_candidate_drains_no_longer_than_main_may(program: Program) -> None:
    program.edit({})
    text = (program.checkout / "org.toml").read_text()
    program.commit({"org.toml": f"{text}drain_timeout = 3000\n".replace('"well"', '"deaf"')})
    pid = program.told("start", "candidate")["pid"]
    words = [sys.executable, "-m", "org", "stop", "candidate"]
    with subprocess.Popen(words, cwd=program.checkout, env=program.env, stdout=subprocess.DEVNULL) as waiting:
        wait_for(lambda: program.told("status")["candidate"]["draining"])
        (draining,) = program.told("status")["candidate"]["draining"]
        assert 0 < draining["killed_in_s"] <= 30
        assert program.told("stop", "candidate", "--now")["reason"] == "stopped"
    assert waiting.returncode == ExitCode.DONE
    assert not alive(pid)


@pytest.mark.parametrize("words", [("start", "current"), ("start", "current", "--foreground")])
def test_what_no_process_can_be_started_with_is_said(program: Program, words: tuple[str, ...]) -> None:
    program.settle("well", **{"env.A": "\0"})
    done = program.org(*words)
    assert done.returncode == ExitCode.USAGE
    assert "[generation] env in org.toml: 'A': " in done.stderr


def test_a_log_that_cannot_be_written_is_told(program: Program) -> None:
    program.told("start", "current")
    log = program.layout.log("current")
    log.unlink()
    log.symlink_to("/dev/full")
    program.settle("flood")
    program.told("start", "current")
    told = "lines could not be written: No space left on device"
    wait_for(lambda: told in program.org("status").stdout)
    assert get(program.ports[0])["status"] == "serving"


def test_of_what_was_never_begun_there_is_no_log(program: Program) -> None:
    done = program.org("logs")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "nothing was begun with" in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_a_unit_that_systemd_understands(program: Program, tmp_path: Path) -> None:
    done = program.org("start", "current", "--systemd", ORG_MODEL="stub", ORG_API_KEY="sesame")
    unit = tmp_path / "org-shop.service"
    unit.write_text(done.stdout)
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    checked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert unit.name not in checked.stderr
    assert f"WorkingDirectory={program.checkout}" in done.stdout
    assert f'Environment="XDG_STATE_HOME={program.env["XDG_STATE_HOME"]}"' in done.stdout
    assert 'Environment="ORG_MODEL=stub"' in done.stdout
    assert "sesame" not in done.stdout + done.stderr
    assert f"systemctl --user enable --now org-{program.layout.root.name}.service" in done.stderr
    assert "ORG_API_KEY is not in it" in done.stderr
    assert program.told("status")["supervisor"] is None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")
def test_a_window_to_look_through(program: Program) -> None:
    words = [sys.executable, "-m", "org", "start", "current", "--tmux"]
    place = {"TMUX_TMPDIR": str(program.folder), "TERM": "xterm"}
    with Terminal(words, program.env | place, program.checkout) as terminal:
        terminal.wait_for("starts")
        ended = subprocess.run(["tmux", "kill-server"], env=program.env | place, check=False)
        assert ended.returncode == 0
        terminal.exit_code()
    assert get(program.ports[0])["status"] == "serving"


def test_logs_that_are_followed(program: Program) -> None:
    program.told("start", "current")
    words = [sys.executable, "-m", "org", "logs", "-f", "current"]
    with Terminal(words, program.env, program.checkout) as terminal:
        terminal.wait_for("starts")
        program.org("stop", "current")
        terminal.wait_for("ended: exit code 0")
        terminal.type("\x03")
        assert terminal.exit_code() == ExitCode.INTERRUPTED


def test_words_that_make_no_sense(program: Program) -> None:
    for words, said in [
        (("start", "current", "cand/1"), "current is always main"),
        (("start",), "colour"),
        (("stop", "both"), "invalid choice"),
        (("start", "candidate"), "there is no candidate"),
        (("start", "candidate", "--systemd"), "its unit is current's"),
    ]:
        done = program.org(*words)
        assert done.returncode == ExitCode.USAGE
        assert said in done.stderr
