"""Generations in a machine: the verbs as they are typed on its host, and what then runs in there."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from guest import image
from machine_kit import Owner, processes_of, two_ports
from org.errors import ExitCode

pytestmark = pytest.mark.vm

PROGRAM = Path(__file__).parent / "contract_program.py"
SETTINGS = '[generation]\nstart = ["{python}", "contract_program.py"]\ncontract = 1\n'
PASSED = """
import os
from pathlib import Path
from org.ops import candidate, merges, program, sync, verdicts
here = program.find(Path(), os.environ)
with here.hold("gate") as git:
    gate = merges.prepare(git, *sync.current(git), candidate.branch_of(here))
    verdicts.record(git, gate.merge, {"verdict": "pass"})
"""
STATE = "/srv/org-programs"
KEPT = f"{STATE}/org/programs/*"


class Shop(Owner):
    """With a program in the working folder, and the ports of its machine on this host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, model="some-model")
        self.ports = two_ports()
        (self.folder / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
        (self.project / PROGRAM.name).write_text(PROGRAM.read_text())
        (self.project / "org.toml").write_text(SETTINGS)
        (self.project / "menu.txt").write_text("tea\n")
        self.git("init", "-q", "-b", "main")
        self.save("begin")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.project, env=self.env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def save(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.start(*words)
        out, err = done.communicate(timeout=600)
        return subprocess.CompletedProcess(words, done.returncode, out, err)

    def told(self, *words: str) -> dict[str, Any]:
        """What a verb says of itself, which it did."""
        done = self.verb(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def there(self, script: str, user: str = "root") -> subprocess.CompletedProcess[bytes]:
        return self.vm("exec", "--user", user, "--", "sh", "-c", script)

    def change(self, menu: str) -> str:
        """Change the candidate in the machine; gives its commit."""
        folder = self.told("candidate", "edit")["folder"]
        assert folder.startswith(STATE)
        assert self.there(f"echo {menu} > {folder}/menu.txt").returncode == 0
        commit: str = self.told("candidate", "commit", "-m", f"serve {menu}")["commit"]
        return commit

    def passes(self) -> None:
        """The gate's verdict on the candidate, without the gate."""
        script = f"cd {STATE}/*.git && XDG_STATE_HOME={STATE} exec /opt/org/current/bin/python -"
        done = self.vm("exec", "--root", "--", "sh", "-c", script, stdin=PASSED.encode())
        assert done.returncode == 0, done.stderr

    def asked(self, colour: str) -> dict[str, Any]:
        """What is served at a port of this host, once the relay has it."""
        there = "7002" if colour == "candidate" else "7001"
        network: dict[str, Any] = {"serving": {}}
        deadline = time.monotonic() + 120
        while network["serving"].get(there) != "":  # to try it out may take the port from who is to have it
            assert time.monotonic() < deadline, network
            network = json.loads(self.vm("status", "--json").stdout)["network"]
        url = f"http://127.0.0.1:{network['inbound'][there]}/"
        with urllib.request.urlopen(url, timeout=60) as answer:
            said: dict[str, Any] = json.load(answer)
            return said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def shop(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """With a machine that is up; the tests are one after the other, as a person's day is."""
    one = Shop(tmp_path_factory.mktemp("gen"))
    one.up("--port", str(one.ports))
    yield one
    assert one.vm("rm", "-y").returncode == 0
    assert processes_of(one.machine) == []


def test_what_is_not_trusted_here_is_not_started_there(shop: Shop) -> None:
    done = shop.verb("start", "current")
    assert done.returncode == ExitCode.USAGE
    assert f"`org trust {shop.project}`" in done.stderr
    assert shop.there(f"ls {STATE}").returncode == 2  # nothing was sent


def test_current_is_served_in_the_machine_and_seen_here(shop: Shop) -> None:
    assert shop.run("trust").returncode == 0
    told = shop.told("start", "current")
    assert (told["where"], told["url"]) == ("guest", f"http://127.0.0.1:{shop.ports}")
    said = shop.asked("current")
    assert (said["commit"], said["menu"]) == (shop.git("rev-parse", "HEAD"), "tea\n")
    assert said["model"] == "some-model"


def test_the_candidate_is_served_beside_it(shop: Shop) -> None:
    commit = shop.change("coffee")
    done = shop.verb("start", "candidate")
    assert done.returncode == 0, done.stderr
    assert "in the machine, and there contained by a user of its own" in done.stderr
    assert (shop.asked("candidate")["commit"], shop.asked("candidate")["menu"]) == (commit, "coffee\n")
    assert shop.asked("current")["menu"] == "tea\n"
    assert shop.git("rev-parse", f"org/{shop.told('candidate', 'edit')['branch']}") == commit


def test_each_runs_as_somebody_else_and_sees_nothing_of_the_other(shop: Shop) -> None:
    assert [shop.asked(colour)["uid"] for colour in ("current", "candidate")] == [1000, 1001]
    secrets = (
        f"{KEPT}/repo.git/HEAD",
        f"{KEPT}/run/current.log",
        f"{STATE}/*.git/HEAD",
        "/home/org/.profile",
    )
    seen = " ".join(secrets)
    assert shop.there(f"cat {seen} > /dev/null").returncode == 0  # they are there
    paths = shop.there(f"echo {seen}").stdout.decode().split()
    for user in ("cand", "job"):
        for path in paths:
            assert b"Permission denied" in shop.there(f"cat {path}", user).stderr
        assert b"Permission denied" in shop.there(f"ls {STATE}/org/programs", user).stderr


def test_status_says_where(shop: Shop) -> None:
    told = shop.told("status")
    assert (told["where"], told["current"]["state"], told["candidate"]["state"]) == (
        "guest",
        "serving",
        "serving",
    )
    assert told["candidate"]["url"] == f"http://127.0.0.1:{shop.ports + 1}"
    assert told["candidate"]["containment"]["user"] == "cand"
    lines = shop.verb("status").stdout.splitlines()
    assert lines[0] == "where      in the machine; the addresses are this host's"
    ports = shop.vm("status").stdout.decode()
    assert f"port 7001 of the guest at 127.0.0.1:{shop.ports}: served" in ports
    assert f"port 7002 of the guest at 127.0.0.1:{shop.ports + 1}: served" in ports
    assert "org: " in shop.verb("logs", "candidate").stdout


def test_promote_and_rollback_move_main_there_and_are_seen_here(shop: Shop) -> None:
    before = shop.git("rev-parse", "HEAD")
    shop.passes()
    promoted = shop.told("promote")
    assert (promoted["swapped"], promoted["pull"]) == (True, f"git -C {shop.project} merge org/main")
    assert shop.git("rev-parse", "org/main") == promoted["commit"]
    assert (shop.asked("current")["commit"], shop.asked("current")["menu"]) == (
        promoted["commit"],
        "coffee\n",
    )
    assert (shop.git("rev-parse", "HEAD"), shop.git("status", "--porcelain")) == (before, "")
    assert shop.told("status")["watch"]["state"] == "watching"  # by whoever outlived the verb
    back = shop.told("rollback")
    assert shop.asked("current")["menu"] == "tea\n"
    assert shop.git("rev-parse", "org/main") == back["commit"]
    kinds = [entry["kind"] for entry in shop.told("history")["entries"]]
    assert kinds == ["promote", "rollback"]


def test_a_verdict_is_given_there_and_its_page_comes_out(shop: Shop) -> None:
    folder = shop.told("candidate", "edit", "--new")["folder"]
    assert shop.there(f"echo '# mine' > {folder}/fitness.toml").returncode == 0
    shop.told("candidate", "commit", "-m", "judge otherwise")
    (shop.folder / "tasks.toml").write_text('[[task]]\nid = "a"\nprompt = "?"\ncheck.python = "score.py"\n')
    (shop.folder / "score.py").write_text("print(1)\n")
    page = shop.folder / "page.html"
    done = shop.verb("fitness", "--tasks", "../tasks.toml", "--report", str(page))
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert "fitness.toml" in done.stdout
    assert f"written: {page}" in done.stdout
    assert page.read_text().startswith("<!doctype html>")


def test_new_commits_of_this_host_go_in(shop: Shop) -> None:
    shop.git("merge", "-q", "org/main")
    (shop.project / "menu.txt").write_text("milk\n")
    commit = shop.save("milk")
    assert shop.told("start", "current")["commit"] == commit
    assert shop.asked("current")["menu"] == "milk\n"


def test_here_is_here(shop: Shop) -> None:
    done = shop.verb("history", "--here")
    assert done.returncode == ExitCode.USAGE
    assert f"nothing was begun with {shop.project} yet" in done.stderr
    done = shop.verb("start", "current", "--foreground")
    assert (done.returncode, "--here" in done.stderr) == (ExitCode.USAGE, True)


def test_what_is_served_sleeps_and_wakes_with_the_machine(shop: Shop) -> None:
    before = shop.told("status")["current"]["pid"]
    assert shop.vm("down").returncode == 0
    shop.up("--port", str(shop.ports))
    told = shop.told("status")["current"]
    assert (told["pid"], told["restarts"]) == (before, 0)
    assert shop.asked("current")["menu"] == "milk\n"


def test_a_supervisor_that_is_killed_is_followed_by_one_that_finds_everything(shop: Shop) -> None:
    before = shop.told("status")
    assert shop.there(f"kill -KILL {before['supervisor']['pid']}").returncode == 0
    after = shop.told("status")
    assert after["supervisor"]["pid"] != before["supervisor"]["pid"]
    assert after["current"]["pid"] == before["current"]["pid"]


def test_after_a_power_cut_what_was_served_has_to_be_started_again(shop: Shop) -> None:
    assert shop.vm("down", "--hard").returncode == 0
    shop.up("--port", str(shop.ports))
    done = shop.verb("status")
    assert "`org start current` serves again" in done.stderr
    assert "current    not served" in done.stdout
    assert shop.told("recover")["reason"] == "nothing-to-do"
    shop.told("start", "current")
    assert shop.asked("current")["menu"] == "milk\n"
