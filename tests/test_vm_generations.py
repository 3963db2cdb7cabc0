"""Generations in a machine: the verbs as they are typed on its host, and what then runs in there."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command import ORG
from machine_kit import Owner, copy_suspended, processes_of, two_ports
from org.errors import ExitCode
from org.sandbox.vm.layout import MachineFolder

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
        self.changed = False
        """Whether it is no longer as it was kept."""
        self._kept = self.folder / "kept"
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

    def open(self) -> None:
        self.up("--port", str(self.ports))

    def keep(self) -> None:
        """Close, and keep all as it is then, to `rewind`."""
        assert b"suspended" in self.vm("down").stdout
        shutil.copytree(self.project, self._kept / "project")
        copy_suspended(self.machine.folder, MachineFolder(self._kept / "machine"))

    def rewind(self) -> None:
        """Have all be again as it was kept, and open."""
        assert self.vm("down", "--hard").returncode == 0
        for path in (self.project, self.machine.folder.path):
            shutil.rmtree(path)
        shutil.copytree(self._kept / "project", self.project)
        copy_suspended(MachineFolder(self._kept / "machine"), self.machine.folder)
        assert self.run("trust").returncode == 0  # of each folder one form is trusted, the last
        self.open()

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

    def becomes(self, true: Callable[[], bool]) -> bool:
        """Wait until it is; whether it is in time."""
        deadline = time.monotonic() + 300
        while not (done := true()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return done

    def asked(self, colour: str) -> dict[str, Any]:
        """What is served at a port of this host, once the relay has it."""
        there = "7002" if colour == "candidate" else "7001"
        network: dict[str, Any] = {"serving": {}}
        deadline = time.monotonic() + 120
        while network["serving"].get(there) != "":  # to try it out may take the port from who is to have it
            assert time.monotonic() < deadline, network
            network = asyncio.run(self.machine.up_or_gone()).facts["network"]
            time.sleep(0.02)
        url = f"http://127.0.0.1:{network['inbound'][there]}/"
        with urllib.request.urlopen(url, timeout=60) as answer:
            said: dict[str, Any] = json.load(answer)
            return said


@pytest.fixture(scope="module")
def shop(installed: Owner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """With a machine that is up, in which org is installed and nothing was begun."""
    one = Shop(tmp_path_factory.mktemp("gen"))
    copy_suspended(installed.machine.folder, one.machine.folder)
    one.open()
    yield one
    assert one.vm("rm", "-y").returncode == 0
    assert processes_of(one.machine) == []


@pytest.fixture(scope="module")
def began(shop: Shop) -> dict[str, Any]:
    """What the verbs said that began to serve both: tea is current, coffee the candidate."""
    assert shop.run("trust").returncode == 0
    current = shop.told("start", "current")
    commit = shop.change("coffee")
    done = shop.verb("start", "candidate")
    assert done.returncode == 0, done.stderr
    shop.keep()
    shop.open()
    return {"current": current, "commit": commit, "candidate": done.stderr}


@pytest.fixture
def serving(shop: Shop, began: dict[str, Any]) -> Shop:
    """Serves both, for tests that leave it so."""
    if shop.changed:
        shop.rewind()
        shop.changed = False
    return shop


@pytest.fixture
def changing(serving: Shop) -> Shop:
    """Serves both, to be changed."""
    serving.changed = True
    return serving


def test_what_is_not_trusted_here_is_not_started_there(shop: Shop) -> None:
    other = shop.folder / "other"
    shutil.copytree(shop.project, other)
    words = [*ORG, "start", "current"]
    done = subprocess.run(words, cwd=other, env=shop.env, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert f"`org trust {other}`" in done.stderr
    assert shop.there(f"ls -d {STATE}/other*").returncode == 2  # nothing was sent


def test_current_is_served_in_the_machine_and_seen_here(serving: Shop, began: dict[str, Any]) -> None:
    told = began["current"]
    assert (told["where"], told["url"]) == ("guest", f"http://127.0.0.1:{serving.ports}")
    said = serving.asked("current")
    assert (said["commit"], said["menu"]) == (serving.git("rev-parse", "HEAD"), "tea\n")
    assert said["model"] == "some-model"


def test_the_candidate_is_served_beside_it(serving: Shop, began: dict[str, Any]) -> None:
    assert "in the machine, and there contained by a user of its own" in began["candidate"]
    said = serving.asked("candidate")
    assert (said["commit"], said["menu"]) == (began["commit"], "coffee\n")
    assert serving.asked("current")["menu"] == "tea\n"
    branch = serving.told("candidate", "edit")["branch"]
    assert serving.git("rev-parse", f"org/{branch}") == began["commit"]


def test_each_runs_as_somebody_else_and_sees_nothing_of_the_other(serving: Shop) -> None:
    assert [serving.asked(colour)["uid"] for colour in ("current", "candidate")] == [1000, 1001]
    secrets = (
        f"{KEPT}/repo.git/HEAD",
        f"{KEPT}/run/current.log",
        f"{STATE}/*.git/HEAD",
        "/home/org/.profile",
    )
    seen = " ".join(secrets)
    assert serving.there(f"cat {seen} > /dev/null").returncode == 0  # they are there
    paths = serving.there(f"echo {seen}").stdout.decode()
    for user in ("cand", "job"):
        look = f"for path in {paths.strip()}; do cat $path; done; ls {STATE}/org/programs"
        done = serving.there(look, user)
        assert done.stdout == b""
        assert done.stderr.count(b"Permission denied") == len(paths.split()) + 1


def test_status_says_where(serving: Shop) -> None:
    told = serving.told("status")
    assert (told["where"], told["current"]["state"], told["candidate"]["state"]) == (
        "guest",
        "serving",
        "serving",
    )
    assert told["candidate"]["url"] == f"http://127.0.0.1:{serving.ports + 1}"
    assert told["candidate"]["containment"]["user"] == "cand"
    assert told["current"]["state_home"] == "/home/org/.local/state"  # where the watch finds its token
    lines = serving.verb("status").stdout.splitlines()
    assert lines[0] == "where      in the machine; the addresses are this host's"
    ports = serving.vm("status").stdout.decode()
    assert f"port 7001 of the guest at 127.0.0.1:{serving.ports}: served" in ports
    assert f"port 7002 of the guest at 127.0.0.1:{serving.ports + 1}: served" in ports
    assert "org: " in serving.verb("logs", "candidate").stdout


def test_promote_and_rollback_move_main_there_and_are_seen_here(changing: Shop) -> None:
    before = changing.git("rev-parse", "HEAD")
    changing.passes()
    promoted = changing.told("promote")
    assert (promoted["swapped"], promoted["pull"]) == (
        True,
        f"git -C {changing.project} merge {promoted['commit'][:12]}",
    )
    assert changing.git("rev-parse", "org/main") == promoted["commit"]
    assert (changing.asked("current")["commit"], changing.asked("current")["menu"]) == (
        promoted["commit"],
        "coffee\n",
    )
    assert (changing.git("rev-parse", "HEAD"), changing.git("status", "--porcelain")) == (before, "")
    assert changing.told("status")["watch"]["state"] == "watching"  # by whoever outlived the verb
    back = changing.told("rollback")
    assert changing.asked("current")["menu"] == "tea\n"
    assert changing.git("rev-parse", "org/main") == back["commit"]
    kinds = [entry["kind"] for entry in changing.told("history")["entries"]]
    assert kinds == ["promote", "rollback"]


def test_a_verdict_is_given_there_and_its_page_comes_out(changing: Shop) -> None:
    folder = changing.told("candidate", "edit", "--new")["folder"]
    assert changing.there(f"echo '# mine' > {folder}/fitness.toml").returncode == 0
    changing.told("candidate", "commit", "-m", "judge otherwise")
    (changing.folder / "tasks.toml").write_text(
        '[[task]]\nid = "a"\nprompt = "?"\ncheck.python = "score.py"\n'
    )
    (changing.folder / "score.py").write_text("print(1)\n")
    page = changing.folder / "page.html"
    done = changing.verb("fitness", "--tasks", "../tasks.toml", "--report", str(page))
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert "fitness.toml" in done.stdout
    assert f"written: {page}" in done.stdout
    assert page.read_text().startswith("<!doctype html>")


def test_one_that_eats_all_memory_is_ended_alone_and_taken_back(changing: Shop) -> None:
    served = changing.told("status")["current"]["pid"]
    changing.change("everything")
    changing.told("start", "candidate")
    said = "it wanted more than 96 MiB of memory"
    assert changing.becomes(
        lambda: changing.there(f"grep '{said}' {KEPT}/run/supervisor.log").returncode == 0
    )
    told = changing.told("status")
    assert told["candidate"]["restarts"] >= 1
    assert (told["current"]["pid"], told["current"]["restarts"]) == (served, 0)
    assert changing.asked("current")["menu"] == "tea\n"
    changing.told("stop", "candidate")
    changing.passes()
    promoted = changing.told("promote")
    taken_back = f"grep rolled-back {KEPT}/run/watch.json"
    assert changing.becomes(lambda: changing.there(taken_back).returncode == 0)
    told = changing.told("status")
    assert told["watch"]["commit"] == promoted["commit"]
    assert changing.asked("current")["menu"] == "tea\n"
    assert changing.there("ls -d /tmp/org-*").stdout.count(b"\n") == 1  # current's


def test_the_gate_outlives_one_that_eats_all_memory(changing: Shop) -> None:
    served = changing.told("status")["current"]["pid"]
    changing.change("everything")
    page = changing.folder / "hungry.html"
    done = changing.verb("fitness", "--report", str(page))
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert "it wanted more than 96 MiB of memory" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert changing.told("status")["current"]["pid"] == served


def test_a_verb_that_is_killed_there_is_an_error_here(serving: Shop) -> None:
    verb = serving.start("logs", "-f", "current")
    assert verb.stdout is not None
    assert verb.stdout.readline()
    assert serving.there("kill -KILL $(pgrep -f '[o]rg logs -f current')").returncode == 0
    _, err = verb.communicate(timeout=600)
    assert verb.returncode == ExitCode.ENVIRONMENT
    assert "`org logs` was ended in the machine, by signal 9" in err


def test_nobody_is_not_a_user_of_it(serving: Shop) -> None:
    done = serving.vm("exec", "--user", "no-such", "--", "true")
    assert (done.returncode, b"no user 'no-such'" in done.stderr) == (ExitCode.USAGE, True)


def test_another_program_is_told_who_has_the_ports(changing: Shop) -> None:
    other = changing.folder / "another"
    shutil.copytree(changing.project, other)
    for words in (["trust"], ["start", "current"]):
        command = [*ORG, *words]
        done = subprocess.run(
            command, cwd=other, env=changing.env, capture_output=True, text=True, check=False
        )
    assert done.returncode == ExitCode.ENVIRONMENT
    assert f"port 7001 is taken: {changing.project} is served there" in done.stderr
    assert "`org stop current`" in done.stderr


def test_new_commits_of_this_host_go_in(changing: Shop) -> None:
    (changing.project / "menu.txt").write_text("milk\n")
    commit = changing.save("milk")
    assert changing.told("start", "current")["commit"] == commit
    assert changing.asked("current")["menu"] == "milk\n"


def test_what_is_trusted_here_comes_in_there_whichever_verb_takes_it_in(changing: Shop) -> None:
    before = changing.asked("current")["commit"]
    (changing.project / "org.toml").write_text(f'{SETTINGS}env.NEW = "1"\n')
    commit = changing.save("more")
    done = changing.verb("candidate", "edit")
    assert done.returncode == ExitCode.USAGE
    assert f"`org trust {changing.project}`" in done.stderr
    assert changing.asked("current")["commit"] == before
    trusted = [*ORG, "trust", str(changing.project)]
    assert subprocess.run(trusted, env=changing.env, capture_output=True, check=False).returncode == 0
    changing.told("candidate", "edit")
    assert changing.told("status")["main"]["commit"] == commit


def test_here_is_here(shop: Shop) -> None:
    done = shop.verb("history", "--here")
    assert done.returncode == ExitCode.USAGE
    assert f"nothing was begun with {shop.project} yet" in done.stderr
    done = shop.verb("start", "current", "--foreground")
    assert (done.returncode, "--here" in done.stderr) == (ExitCode.USAGE, True)


def test_what_is_served_sleeps_and_wakes_with_the_machine(serving: Shop) -> None:
    before = serving.told("status")["current"]["pid"]
    down = serving.vm("down")
    assert b"suspended; `org vm up` wakes it" in down.stdout, down.stderr
    asleep = serving.verb("status")
    assert asleep.returncode == ExitCode.ENVIRONMENT
    assert "the machine `default` is down" in asleep.stderr
    serving.open()
    told = serving.told("status")["current"]
    assert (told["pid"], told["restarts"]) == (before, 0)
    assert serving.asked("current")["menu"] == "tea\n"


def test_a_supervisor_that_is_killed_is_followed_by_one_that_finds_everything(serving: Shop) -> None:
    before = serving.told("status")
    assert serving.there(f"kill -KILL {before['supervisor']['pid']}").returncode == 0
    after = serving.told("status")
    assert after["supervisor"]["pid"] != before["supervisor"]["pid"]
    assert after["current"]["pid"] == before["current"]["pid"]


def test_after_a_power_cut_what_was_served_has_to_be_started_again(changing: Shop) -> None:
    assert changing.vm("down", "--hard").returncode == 0
    up = changing.vm("up", "--port", str(changing.ports))
    assert b"what it served has ended: `org start current` serves again" in up.stderr
    done = changing.verb("status")
    assert "`org start current` serves again" in done.stderr
    assert "current    not served" in done.stdout
    assert changing.told("recover")["reason"] == "nothing-to-do"
    changing.told("start", "current")
    assert changing.asked("current")["menu"] == "tea\n"
