"""Where the verbs of generations act: on a host with a machine, without one, and in a machine."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from generation_kit import site
from ops_kit import Shop
from org.cli.vm.generation import carried_by, names_of
from org.errors import Busy, ExitCode, UsageError
from org.ops import control, family, ours, place
from org.ops.layout import Layout
from org.ops.planning import make_plan
from org.sandbox.vm import layout
from test_ops_rescue import broken, run

__all__ = ["broken"]


@contextmanager
def machine(shop: Shop, *, listens: bool = True) -> Iterator[Path]:
    """What a machine that is up looks like from outside; nobody answers in it."""
    folder = Path(shop.env["XDG_STATE_HOME"], "org/machines/default")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image").touch()
    with (folder / "lock").open("w") as lock, socket.socket(socket.AF_UNIX) as door:
        lock.write(str(os.getpid()))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        if listens:
            door.bind(str(folder / "ctl.sock"))
        yield folder


@contextmanager
def waits(shop: Shop, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`org WORDS`, as far as that it waits for the machine."""
    argv = [sys.executable, "-m", "org", *words]
    with subprocess.Popen(
        argv,
        cwd=shop.checkout,
        env=shop.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as verb:
        assert verb.stderr is not None
        said = verb.stderr.readline()
        assert said == "org: waiting for the machine `default`, which is starting or ending\n"
        yield verb


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "user")


def test_a_machine_that_is_up_is_where_they_act(shop: Shop) -> None:
    with machine(shop):
        for verb in (["status"], ["logs", "-f"], ["candidate", "edit"]):
            done = shop.org(*verb)
            assert done.returncode == ExitCode.ENVIRONMENT
            assert done.stderr.startswith("org: the machine `default` is not up: silent\n")
        done = shop.org("history", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"], told["reason"]) == (7, 7, "environment")
    assert (told["message"], done.stderr) == ("the machine `default` is not up: silent", "")


def test_settings_that_are_off_are_one_json_object_too(shop: Shop) -> None:
    config = Path(shop.env["HOME"], ".config/org/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text("model = [\n")
    with machine(shop):
        done = shop.org("status", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"], done.stderr) == (ExitCode.USAGE, 2, "")
    assert str(config) in told["message"]


def test_a_machine_that_is_not_there_is_named_as_it_was(shop: Shop) -> None:
    done = shop.org("vm", "generation", "--name", "other", "status")
    assert (done.returncode, "`org vm up --name other` makes it" in done.stderr) == (ExitCode.USAGE, True)


def test_a_page_that_cannot_be_written_is_refused_before_it_is_made(shop: Shop, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shop.change({"menu.txt": "coffee\n"})
    for there in (page / "below", page):
        page.write_text("before")
        done = shop.org("fitness", "--json", "--report", str(there), "no-such-branch")
        told = json.loads(done.stdout)
        assert ("cannot write" in told["message"]) == (there != page)
        assert page.read_text() == "before"


def test_what_else_a_programs_file_says_is_in_nobodys_way(shop: Shop) -> None:
    shop.save("more", {"org.toml": '[generation]\nstart = "shop"\n[later]\nnew = 1\n'})
    with machine(shop):
        assert "is not up: silent" in shop.org("status").stderr


def test_here_is_here_though_one_is_up(shop: Shop) -> None:
    with machine(shop):
        assert shop.org("candidate", "edit", "--here").returncode == 0
        assert shop.org("history", "--here").stdout == "nothing was promoted yet\n"
        assert shop.org("start", "--here", "current").returncode == ExitCode.USAGE  # it is not trusted


def test_one_that_is_down_is_not_thought_of(shop: Shop) -> None:
    with machine(shop):
        pass  # the lock and the socket are there, and nobody's
    assert shop.org("candidate", "edit").returncode == 0
    assert shop.org("history").stdout == "nothing was promoted yet\n"


def test_one_that_starts_is_waited_for(shop: Shop) -> None:
    with machine(shop, listens=False) as folder, waits(shop, "status") as verb:
        (folder / "ctl.sock").touch()
        out, err = verb.communicate()
    assert (verb.returncode, out) == (ExitCode.ENVIRONMENT, "")
    assert "the machine `default` is not up" in err  # it was asked


def test_one_that_ends_is_waited_for(shop: Shop) -> None:
    assert shop.org("candidate", "edit").returncode == 0
    with ExitStack() as held:
        held.enter_context(machine(shop, listens=False))
        with waits(shop, "history") as verb:
            held.close()
            assert verb.communicate() == ("nothing was promoted yet\n", "")


def test_one_that_does_not_get_done_with_its_start_is_in_the_way(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_MOST_WAIT_S", 0.0)
    with machine(shop, listens=False), pytest.raises(Busy, match="is starting or ending"):
        place.machine_is_up(shop.env)


def test_a_program_that_was_begun_in_one_that_is_down_says_so(shop: Shop) -> None:
    with machine(shop):
        pass
    name = shop.layout.root.name
    layout.fetched(Path(shop.env["XDG_STATE_HOME"], "org"), "default", f"programs/{name}").mkdir(parents=True)
    for verb in (["status"], ["recover"], ["start", "current"], ["candidate", "edit"]):
        done = shop.org(*verb)
        assert done.returncode == ExitCode.ENVIRONMENT
        assert done.stderr.startswith("org: the machine `default` is down, and ")
        assert "`org vm up`" in done.stderr
    assert shop.org("candidate", "edit", "--here").returncode == 0
    told = shop.org("status").stdout  # of what was begun here too
    assert told.startswith("where      on this host, not in the machine `default`\n")


@pytest.mark.parametrize("option", ["--foreground", "--systemd", "--tmux"])
def test_what_is_of_this_host_alone_says_so(shop: Shop, option: str) -> None:
    with machine(shop):
        done = shop.org("start", "current", option)
    assert done.returncode == ExitCode.USAGE
    assert f"`{option}` is of this host" in done.stderr


def test_words_that_are_off_are_said_without_the_machine(shop: Shop) -> None:
    with machine(shop):
        assert "invalid choice: 'both'" in shop.org("start", "both").stderr
        assert shop.org("promote", "--help").returncode == 0


def test_a_rescue_goes_without_the_machine(shop: Shop, broken: Path) -> None:
    shop.change({"menu.txt": "poison\n"})
    shop.promote()
    with machine(shop):
        assert "SyntaxError" in run(shop, broken, "-m", "org", "rollback").stderr
        done = run(shop, broken, "-m", "org", "rollback", "--here")
    assert (done.returncode, done.stderr) == (0, "")
    assert shop.files() == {"menu.txt": "tea\n"}


# -- in a machine


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place, "_GUEST", tmp_path)


def test_the_ports_are_those_that_a_machine_passes_on(guest: None) -> None:
    assert place.ports((1, 2)) == (7001, 7002)


def test_generations_run_as_users_of_the_machine(
    guest: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    us = family.Account(os.getuid(), os.getgid(), "/home/org")
    monkeypatch.setattr(
        family, "account_for", lambda paths, name: (us, "") if name == "org" else (None, "no")
    )
    kept = Layout(tmp_path / "program")
    folder = kept.worktree("c0ffee")
    folder.mkdir(parents=True)
    (folder / "org.toml").write_text('[generation]\nstart = "shop"\ncontract = 1\n')
    current = make_plan(kept, "current", "c0ffee", folder, {})
    assert (current.uid, current.more) == (
        us.uid,
        {"HOME": "/home/org", "XDG_STATE_HOME": "/home/org/.local/state"},
    )
    candidate = make_plan(kept, "candidate", "c0ffee", folder, {})
    assert (candidate.uid, candidate.shared, candidate.more["ORG_SANDBOX"]) == (-1, "no", "local")


def test_elsewhere_they_are_the_programs_own() -> None:
    assert place.ports((1, 2)) == (1, 2)
    assert (place.name(), place.other_place(), place.merge()) == ("host", "", "")
    assert place.seen("http://127.0.0.1:7001") == "http://127.0.0.1:7001"


def test_what_is_named_is_named_as_outside(monkeypatch: pytest.MonkeyPatch, guest: None, shop: Shop) -> None:
    outside = {
        "ports": {"7001": 17001},
        "files": {"/root/x": "/home/ada/page.html"},
        "merge": "git -C x merge",
    }
    monkeypatch.setenv(place.OUTSIDE, json.dumps(outside))
    assert place.seen("http://127.0.0.1:7001") == "http://127.0.0.1:17001"
    assert place.seen("http://127.0.0.1:7002") == "http://127.0.0.1:7002"
    assert (place.called("/root/x"), place.called("/root/y")) == ("/home/ada/page.html", "/root/y")
    shop.edit({})
    assert shop.program.pull == f"git -C x merge {shop.main[:12]}"


def test_a_supervisor_that_is_kept_stays_when_nothing_is_served(tmp_path: Path) -> None:
    with site(tmp_path) as one:
        words = ours.words("org.ops.supervisor", str(one.layout.root), "--stay")
        with subprocess.Popen(words, env=ours.environment(os.environ), stderr=subprocess.DEVNULL) as kept:
            one.until(one.layout.supervisor_socket.exists)
            assert one.status()["supervisor"]["pid"] == kept.pid
            one.serve(1)
            assert control.stop(one.layout, "current")
            control.reexec(one.layout)
            assert one.status()["supervisor"]["pid"] == kept.pid
            kept.terminate()
            assert kept.wait() == 0


def test_a_verb_from_outside_waits_for_the_supervisor_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(place.OUTSIDE, "{}")
    with site(tmp_path) as one:
        one.layout.run.mkdir()
        one.layout.supervisor_socket.touch()  # as one that was killed leaves it
        later = ["sh", "-c", 'sleep 0.5; exec "$@"', "sh"]  # after it was asked
        words = [*later, *ours.words("org.ops.supervisor", str(one.layout.root), "--stay")]
        with subprocess.Popen(words, env=ours.environment(os.environ), stderr=subprocess.DEVNULL) as kept:
            assert one.status()["supervisor"]["pid"] == kept.pid
            kept.terminate()


# -- what goes in and out


def test_files_that_a_verb_names_are_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text('[[task]]\nid = "one"\nprompt = "?"\ncheck.python = "score/it.py"\n')
    carried = carried_by("fitness", ["--report", "page.html", "--tasks=my.toml", "--json"])
    folder = carried.read[tmp_path / "my.toml"].removesuffix("/my.toml")
    assert carried.read[tmp_path / "score/it.py"] == f"{folder}/score/it.py"
    assert list(carried.written) == [tmp_path / "page.html"]
    tasks, report = carried.words
    assert (tasks[:14], tasks.endswith(f"{folder}/my.toml")) == ("--tasks=/root/", True)
    assert (report[:15], report.endswith(".html")) == ("--report=/root/", True)
    assert carried_by("fitness", ["--json"]).words == []
    assert carried_by("promote", ["--json"]).words == []
    with pytest.raises(UsageError):
        carried_by("fitness", ["--no-such"])
    with pytest.raises(UsageError):
        carried_by("fitness", ["--tasks", "missing.toml"])


def test_a_program_is_called_alike_on_both_sides(shop: Shop) -> None:
    names = names_of(shop.program)
    name = shop.layout.root.name
    assert names.repository == f"/srv/org-programs/{name}.git"
    assert names.kept.startswith(f"/srv/org-programs/org/programs/{name}-")
    assert names.job == f"generations-{name}"
