"""What a generation is started with, and when it is started again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_kit import free_port
from org.errors import ConfigError, EnvironmentProblem
from org.ops import listener, logfile, settings, trust
from org.ops.layout import Colour, Layout
from org.ops.plan import Plan, Times, command, environment
from org.ops.planning import make_plan
from org.ops.restarts import LONGEST_S, Restarts
from org.ops.unit import file_name, unit

GIVEN = {
    "PATH": "/bin",
    "LC_ALL": "C",
    "XDG_STATE_HOME": "/state",
    "ORG_BASE": "http://127.0.0.1:1/v1",
    "ORG_API_KEY": "sesame",
    "ORG_FAULT": "cas",
    "ORG_LISTEN_FD": "3",
    "PYTHONPATH": "/elsewhere",
    "GIT_DIR": "/theirs",
}


def commit(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "org.toml").write_text(f"[generation]\n{text}\n")
    return folder


def planned(root: Path, colour: Colour, folder: Path) -> Plan:
    return make_plan(Layout(root), colour, "c0ffee", folder, environment(GIVEN, colour))


def test_a_plan_survives_its_way_to_the_keeper(tmp_path: Path) -> None:
    folder = commit(tmp_path / "files", 'start = "{python} -m shop"\ncontract = 1\nenv = {A = "b"}')
    plan = planned(tmp_path, "current", folder)
    assert Plan.from_json(plan.as_json()) == plan
    assert plan.argv[1:] == ("-m", "shop")
    assert Path(plan.argv[0]).is_file()
    assert plan.env == {name: GIVEN[name] for name in list(GIVEN)[:5]}
    assert plan.more == {"A": "b"}
    assert (plan.uid, plan.limits, plan.speaks) == (-1, {}, True)


def test_each_plan_has_a_nonce_of_its_own(tmp_path: Path) -> None:
    folder = commit(tmp_path / "files", 'start = "shop"')
    assert planned(tmp_path, "current", folder).nonce != planned(tmp_path, "current", folder).nonce


def test_a_candidate_keeps_its_state_apart(tmp_path: Path) -> None:
    folder = commit(tmp_path / "files", 'start = "shop"\ncontract = 1')
    plan = planned(tmp_path, "candidate", folder)
    assert plan.more["XDG_STATE_HOME"] == str(tmp_path / "state")
    assert "ORG_API_KEY" not in plan.env
    assert plan.limits["RLIMIT_CORE"] == 0


def test_without_a_contract_it_is_started_behind_a_splice(tmp_path: Path) -> None:
    folder = commit(tmp_path / "files", 'start = ["shop", "--port={port}"]\nenv = {A = "b"}\nhealth = "/up"')
    plan = planned(tmp_path, "current", folder)
    assert plan.argv[1:4] == ("-P", "-m", "org.ops.splice")
    spec = json.loads(plan.argv[4])
    assert (spec["argv"], spec["env"], spec["health"]) == (["shop", "--port={port}"], {"A": "b"}, "/up")
    assert plan.more.keys() == {"PYTHONPATH"}


def test_a_commit_that_does_not_say_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no org\.toml among its files"):
        planned(tmp_path, "current", tmp_path)


def test_places_in_a_command() -> None:
    assert command(["{python}", "{port}{port}", "{other}"], {"python": "/p", "port": "1"}) == (
        "/p",
        "11",
        "{other}",
    )


def test_a_candidate_is_given_a_key_of_its_own_or_none() -> None:
    assert environment({"OPENAI_API_KEY": "a", "ORG_API_KEY": "b"}, "candidate") == {}
    assert environment({"ORG_API_KEY": "b", "ORG_CANDIDATE_API_KEY": "c"}, "candidate") == {
        "ORG_API_KEY": "c"
    }
    assert environment({"ORG_API_KEY": "b", "ORG_CANDIDATE_API_KEY": "c"}, "current") == {"ORG_API_KEY": "b"}


@pytest.mark.parametrize(
    "text",
    [
        *("env = 1", "env = {A = 1}", "contract = 2", "contract = true"),
        *("drain_timeout = 3600.5", "ready_timeout = 1e7", "drain_timeout = nan", "ready_timeout = 0"),
        *('env = {"A=B" = "1"}', 'env = {"" = "1"}', 'env = {"A\\u0000" = "1"}', 'env = {A = "\\u0000"}'),
    ],
)
def test_settings_that_are_off(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[generation\] {text.split()[0]} in org.toml: ") as raised:
        settings.read(f'[generation]\nstart = "x"\n{text}')
    assert raised.value.message.isprintable()


@pytest.mark.parametrize("start", ['""', '[""]', '"a\\u0000"', '["a", "b\\u0000c"]'])
def test_what_no_process_can_be_started_with(start: str) -> None:
    with pytest.raises(ConfigError, match=r"\[generation\] start in org.toml: "):
        settings.read(f"[generation]\nstart = {start}")


@pytest.mark.parametrize("contract", [0, 1])
def test_a_candidate_takes_no_longer_than_it_may(tmp_path: Path, contract: int) -> None:
    text = f'start = "shop"\ncontract = {contract}\nready_timeout = 3000\ndrain_timeout = 3000'
    folder = commit(tmp_path / "files", text)
    plan = make_plan(Layout(tmp_path), "candidate", "c0ffee", folder, {}, Times(60.0, 30.0))
    assert (plan.ready_s, plan.drain_s) == (60.0, 30.0)
    if not contract:
        assert json.loads(plan.argv[4])["drain_s"] == 30.0
    plan = make_plan(Layout(tmp_path), "candidate", "c0ffee", folder, {}, Times(3600.0, 3600.0))
    assert (plan.ready_s, plan.drain_s) == (3000.0, 3000.0)


# -- when it is started again


def test_each_crash_is_waited_for_longer() -> None:
    restarts = Restarts()
    delays = []
    for _ in range(9):
        restarts.crashed(1.0)
        delays.append(restarts.delay_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.floats(0, 200), max_size=80))
def test_a_healthy_minute_is_a_new_beginning(served: list[float]) -> None:
    restarts = Restarts()
    for seconds in served:
        restarts.crashed(seconds)
        assert 0 < restarts.delay_s <= LONGEST_S
        assert restarts.crashes == 1 or seconds < 60
    since = [*([0] if served else []), *(n for n, seconds in enumerate(served) if seconds >= 60)]
    assert restarts.is_hopeless == (bool(served) and len(served) - since[-1] >= 3)
    assert restarts.total == len(served)


# -- trust


def test_only_the_text_that_was_read_is_trusted(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"not trusted: /shop/org\.toml") as raised:
        trust.require(env, Path("/shop"), "text")
    assert "`org trust /shop`" in raised.value.hint
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "trust.json").write_text(json.dumps({"version": 1, "folders": {"/shop": "text"}}))
    trust.require(env, Path("/shop"), "text")
    for folder, text in (("/shop", "other"), ("/other", "text")):
        with pytest.raises(ConfigError, match="not trusted"):
            trust.require(env, Path(folder), text)
    (tmp_path / "org" / "trust.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        trust.require(env, Path("/shop"), "text")


# -- logs


def test_a_log_is_set_aside_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MOST_BYTES", 40)
    log = tmp_path / "log"
    follower = logfile.Follower(log)
    seen = b""
    for number in range(10):
        logfile.append(log, b"line %d of ten\n" % number)
        while data := follower.read():
            seen += data
    follower.close()
    assert seen == b"".join(b"line %d of ten\n" % number for number in range(10))
    assert log.read_bytes() == b"line 8 of ten\nline 9 of ten\n"
    assert logfile.older(log).read_bytes() == b"line 6 of ten\nline 7 of ten\n"
    assert logfile.last_lines(log, 3) == b"line 7 of ten\nline 8 of ten\nline 9 of ten\n"
    assert logfile.last_lines(log, 0) == b""
    assert logfile.last_lines(tmp_path / "none", 3) == b""
    logfile.append(log, b"x" * 100)
    assert log.stat().st_size == 40


def test_a_log_that_cannot_be_written_ends_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log = logfile.Log(path)
    log.append(b"one\ntwo\n")
    log.append(b"half a line")
    log.note("said")
    assert (log.lost, log.why) == (4, "No space left on device")
    path.unlink()
    log.append(b"five\n")
    log.append(b"six\n")
    assert log.lost == 4
    told, *rest = path.read_text().splitlines()
    assert told.endswith(" org: 4 lines before this could not be written: No space left on device")
    assert rest == ["five", "six"]


def test_a_log_is_the_users_alone(tmp_path: Path) -> None:
    logfile.note(tmp_path / "log", "said")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log").read_text().endswith(" org: said\n")


# -- the rest


def test_a_listener_is_asked_for_by_one_alone() -> None:
    port = free_port()
    with listener.bind(port) as held:
        assert (held.getsockname(), held.proto) == (("127.0.0.1", port), 6)
        with pytest.raises(EnvironmentProblem, match=rf"port {port} is taken: pid {os.getpid()}") as raised:
            listener.bind(port)
        assert "`ports`" in raised.value.hint


def test_a_unit_says_words_as_they_are() -> None:
    env = {"ORG_MODEL": 'a "$b" 5%', "XDG_STATE_HOME": "/st", "ORG_API_KEY": "sesame", "HOME": "/root"}
    env |= {"http_proxy": "http://me:sesame@proxy", "https_proxy": "http://proxy"}
    text = unit("100%", "/a b", ["/py thon", "-m", 'say "$x" 50%'], 30.0, env)
    assert 'ExecStart="/py thon" "-m" "say \\"$$x\\" 50%%"' in text
    assert "Description=org: current of 100%%" in text
    assert "WorkingDirectory=/a b" in text
    assert "TimeoutStopSec=45" in text
    assert [line for line in text.splitlines() if line.startswith("Environment=")] == [
        'Environment="ORG_MODEL=a \\"$b\\" 5%%"',
        'Environment="XDG_STATE_HOME=/st"',
        'Environment="https_proxy=http://proxy"',
    ]
    assert "sesame" not in text
    assert file_name("a b%-0123abcd") == "org-a_b_-0123abcd.service"
