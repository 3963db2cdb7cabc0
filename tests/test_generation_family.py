"""What descends from a generation: kept within limits, and gone when it is."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import generation_kit
from generation_kit import Site, alive, get, wait_for
from org.ops import control, family, logfile
from org.ops.family import Account
from org.ops.generation import Generation
from org.ops.layout import Layout
from org.ops.listener import bind
from org.ops.plan import Plan
from org.ops.planning import make_plan

NOBODY = 54_321
"""A user that nobody is."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with generation_kit.site(tmp_path) as made:
        yield made


def test_a_daemon_that_left_everything_behind_goes_too(site: Site) -> None:
    site.serve(1, "daemon")
    note = site.layout.worktree(f"{1:040x}") / "daemon.pid"
    site.until(lambda: note.exists() and note.read_text())
    daemon = int(note.read_text())
    assert alive(daemon)
    environ = Path(f"/proc/{daemon}/environ").read_bytes()
    assert b"ORG_" not in environ
    assert os.getsid(daemon) != site.status()["current"]["pid"]
    control.stop(site.layout, "current")
    assert not alive(daemon)


def test_what_was_started_goes_with_a_generation_that_is_killed(site: Site) -> None:
    served = site.serve(1, "daemon")
    note = site.layout.worktree(f"{1:040x}") / "daemon.pid"
    site.until(lambda: note.exists() and note.read_text())
    first = int(note.read_text())
    os.kill(served["pid"], 9)
    site.until(lambda: not alive(first))
    site.until(lambda: site.status()["current"]["state"] == "serving")


def test_what_a_keeper_that_is_killed_leaves_goes_too(site: Site) -> None:
    """And nothing that others keep."""
    candidate = site.serve(2, colour="candidate")
    served = site.serve(1, "daemon")
    note = site.layout.worktree(f"{1:040x}") / "daemon.pid"
    site.until(lambda: note.exists() and note.read_text())
    daemon = int(note.read_text())
    stat = Path(f"/proc/{served['pid']}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), 9)
    site.until(lambda: not alive(served["pid"]) and not alive(daemon))
    site.until(lambda: site.status()["current"]["state"] == "serving")
    assert site.status()["candidate"]["pid"] == candidate["pid"]
    assert site.status()["candidate"]["restarts"] == 0


def test_a_disk_that_is_full_ends_nobody(site: Site) -> None:
    site.layout.run.mkdir()
    logs = (site.layout.log("current"), site.layout.supervisor_log)
    for log in logs:
        log.symlink_to("/dev/full")
    served = site.serve(1, "flood")
    site.until(lambda: site.status()["current"]["log"]["lost"] > 200_000)
    status = site.status()
    assert (status["current"]["pid"], status["current"]["health"]["ok"]) == (served["pid"], True)
    assert status["current"]["log"]["why"] == "No space left on device"
    assert status["supervisor"]["log"]["lost"] > 0
    for log in logs:
        log.unlink()
    assert site.serve(2)["old_said_draining"]
    assert "starts" in site.log()
    assert "serves" in site.notes()


def test_its_log_is_bounded(site: Site) -> None:
    site.serve(1, "flood")
    log = site.layout.log("current")
    site.until(lambda: b"the flood is over" in logfile.last_lines(log, 5))
    sizes = [path.stat().st_size for path in (log, log.with_name(log.name + ".1"))]
    assert max(sizes) <= 4 << 20
    assert sum(sizes) > 4 << 20
    assert sorted(path.name for path in site.layout.run.glob("current.log*")) == [
        "current.log",
        "current.log.1",
    ]


def test_a_candidate_is_limited_and_sees_no_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_API_KEY", "sesame")
    monkeypatch.setenv("AWS_SECRET", "open")
    served = site.serve(1, colour="candidate")
    site.serve(2)
    status = site.status()
    limits = Path(f"/proc/{served['pid']}/limits").read_text()
    rows = {line[:25].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}
    candidate = status["candidate"]["containment"]
    assert rows["Max processes"] == [str(candidate["limits"]["RLIMIT_NPROC"])] * 2
    assert rows["Max file size"] == [str(2 << 30)] * 2
    assert rows["Max core file size"] == ["0", "0"]
    assert candidate["own_user"] or candidate["not_prevented"]
    assert status["current"]["containment"] == {
        "user": candidate["user"] if not candidate["own_user"] else status["current"]["containment"]["user"],
        "own_user": False,
        "shared_because": "",
        "limits": {},
        "not_prevented": [],
    }
    environment = get(status["candidate"]["port"])["env"]
    assert "ORG_API_KEY" not in environment
    assert "ORG_API_KEY" in get(site.port)["env"]
    assert "AWS_SECRET" not in get(site.port)["env"]


def test_a_candidate_may_have_a_key_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORG_CANDIDATE_API_KEY", "its own")
    site.serve(1, colour="candidate")
    environment = get(site.status()["candidate"]["port"])["env"]
    assert "ORG_API_KEY" in environment
    assert "ORG_CANDIDATE_API_KEY" not in environment


BOMB = """
import os
from org.ops import family
family.adopt_orphans()
account = family.Account({uid}, {uid}) if {uid} else None
pid = os.fork()
if not pid:
    if account:
        os.setgroups([]); os.setgid({uid}); os.setuid({uid})
    family.set_limits({{"RLIMIT_NPROC": {most}}})
    while True:
        try:
            os.fork()
        except OSError:
            pass
while len(family.descendants(os.getpid())) < {enough}:
    pass
print(len(family.descendants(os.getpid())), family.sweep(os.getpid()), len(family.descendants(os.getpid())))
"""


def test_a_fork_bomb_stops_at_its_limit_and_is_swept() -> None:
    """As root the limit holds for other users alone; for anybody else it counts what runs already."""
    root = os.geteuid() == 0
    running = family.limits_for(None)["RLIMIT_NPROC"] - family.MOST_PROCESSES
    words = {"uid": NOBODY if root else 0, "most": 40 if root else running + 40, "enough": 30}
    done = subprocess.run(
        [sys.executable, "-c", BOMB.format(**words)], capture_output=True, text=True, check=True, timeout=120
    )
    before, left, after = map(int, done.stdout.split())
    assert before <= 60
    assert (left, after) == (0, 0)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process under another user")


@needs_root
def test_who_may_read_the_files_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("cand", "x", NOBODY, NOBODY, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"cand": entry}.__getitem__)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    assert family.account_for([tmp_path]) == (Account(NOBODY, NOBODY, "/"), "")
    tmp_path.chmod(0o700)
    assert family.account_for([tmp_path]) == (None, f"`cand` may not read {tmp_path}")


@needs_root
def test_a_user_of_its_own_has_a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "program")
    folder = layout.worktree("c0ffee")
    for made in (folder, layout.run, layout.repo):
        made.mkdir(parents=True)
    (folder / "org.toml").write_text('[generation]\nstart = "shop"')
    monkeypatch.setattr(family, "account_for", lambda paths, name: (Account(NOBODY, NOBODY), ""))
    plan = make_plan(layout, "candidate", "c0ffee", folder, {"HOME": "/root"})
    home = layout.candidate_home
    assert (plan.uid, plan.shared, plan.more["HOME"]) == (NOBODY, "", str(home))
    assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (NOBODY, 0o700)
    modes = {path: path.stat().st_mode & 0o777 for path in (layout.root, layout.generations, layout.repo)}
    assert list(modes.values()) == [0o711, 0o711, 0o700]


@needs_root
async def test_under_a_user_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plan = Plan(
        colour="candidate",
        commit="c0ffee",
        folder="/",
        nonce="n",
        argv=(
            "/bin/sh",
            "-c",
            'echo said; touch "$ORG_HEALTH_SOCK" && echo touched; kill $PPID || exec sleep 600',
        ),
        env={"PATH": os.defpath},
        more={},
        log=str(log),
        run=str(tmp_path),
        ready_s=1,
        drain_s=1,
        speaks=True,
        uid=NOBODY,
        gid=NOBODY,
        limits=family.limits_for(Account(NOBODY, NOBODY)),
    )
    with bind(0) as listener:
        generation = await Generation.start(plan, listener)
    status = Path(f"/proc/{generation.pid}/status").read_text().split()
    at = status.index("Uid:")
    assert set(status[at + 1 : at + 5]) == {str(NOBODY)}
    assert status[status.index("Groups:") + 1].endswith(":")
    await asyncio.to_thread(wait_for, lambda: "ermitted" in log.read_text())
    assert "said\ntouched\n" in log.read_text()
    generation.kill()
    assert (await generation.ended).how == "SIGKILL"
    generation.leave()
