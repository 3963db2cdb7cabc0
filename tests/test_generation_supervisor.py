"""One process that serves generations one after another, on one socket."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import generation_kit
from generation_kit import DEADLINE_S, Site, alive, get
from org.errors import ExitCode, OrgError
from org.ops import control, listener
from org.ops.generation import Generation
from org.ops.plan import Times
from org.ops.planning import make_plan


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with generation_kit.site(tmp_path) as made:
        yield made


def test_from_start_to_stop(site: Site) -> None:
    assert site.status() == {}
    told = site.serve(1)
    assert get(site.port)["pid"] == told["pid"]
    current = site.status()["current"]
    assert (current["state"], current["commit"], current["pid"]) == ("serving", f"{1:040x}", told["pid"])
    assert current["health"]["ok"]
    supervisor = site.status()["supervisor"]["pid"]
    assert control.stop(site.layout, "current")
    assert not alive(told["pid"])
    site.until(lambda: not alive(supervisor))
    assert site.status() == {}
    assert not control.stop(site.layout, "current")
    with pytest.raises(ConnectionRefusedError):
        get(site.port)


def test_a_swap_and_the_same_again(site: Site) -> None:
    first = site.serve(1)
    second = site.serve(2)
    assert second["old_said_draining"]
    assert get(site.port)["pid"] == second["pid"]
    again = site.serve(2)
    assert (again["already"], again["pid"]) == (True, second["pid"])
    site.until(lambda: not alive(first["pid"]))
    assert site.status()["current"]["previous"] == f"{1:040x}"
    assert control.swap(site.layout, *site.commit(3, "well"))
    assert get(site.port)["commit"] == f"{3:040x}"


def test_no_swap_when_nothing_is_served(site: Site) -> None:
    assert not control.swap(site.layout, *site.commit(1, "well"))


@pytest.mark.parametrize(
    ("mode", "message", "words"),
    [
        ("fail", "ended before it was healthy: exit code 3", "no such table: prices"),
        ("mute", "not healthy after 1 s", "it said nothing"),
        ("wrong", "says that it is 'another'", "it said nothing"),
        ("shy", "did not take connections", "it said nothing"),
    ],
)
def test_one_that_does_not_come_up_changes_nothing(site: Site, mode: str, message: str, words: str) -> None:
    first = site.serve(1)
    timeout = {} if mode == "fail" else {"ready_timeout": 1 if mode != "wrong" else 60}
    with pytest.raises(OrgError, match=message) as raised:
        site.serve(2, mode, **timeout)
    assert words in raised.value.hint
    assert raised.value.exit_code == ExitCode.ENVIRONMENT
    assert get(site.port)["pid"] == first["pid"]
    assert site.status()["current"]["commit"] == f"{1:040x}"


def test_what_cannot_be_started_at_all(site: Site) -> None:
    with pytest.raises(OrgError, match="exit code 127") as raised:
        site.serve(1, start=["./missing"])
    assert "cannot start `./missing`" in raised.value.hint
    assert "current" not in site.status()


def test_a_port_that_somebody_has(site: Site) -> None:
    (site.folder / "other").mkdir()
    other = Site(site.folder / "other")
    other.port = site.port
    site.serve(1)
    with pytest.raises(OrgError, match=rf"port {site.port} is taken: pid \d+ \(") as raised:
        other.serve(1)
    assert raised.value.exit_code == ExitCode.ENVIRONMENT


def test_it_is_started_again_when_it_ends(site: Site) -> None:
    first = site.serve(1)
    os.kill(first["pid"], signal.SIGKILL)
    site.until(lambda: site.status()["current"].get("pid", first["pid"]) != first["pid"])
    assert get(site.port)["commit"] == f"{1:040x}"
    assert site.status()["current"]["restarts"] == 1
    assert "ended: SIGKILL (crash 1); again in 0.5 s" in site.notes()


def test_the_one_before_comes_back(site: Site) -> None:
    site.serve(1)
    site.serve(2, "crash")
    site.until(lambda: site.status()["current"]["trouble"] and site.status()["current"]["state"] == "serving")
    current = site.status()["current"]
    assert current["commit"] == f"{1:040x}"
    assert current["trouble"].startswith(f"{2:040x}"[:12] + " crashed 3 times: ")
    assert get(site.port)["commit"] == f"{1:040x}"


def test_one_that_ignores_that_it_is_to_end(site: Site) -> None:
    deaf = site.serve(1, "deaf", drain_timeout=4)
    told = site.serve(2)
    assert told["old_said_draining"] is False
    (draining,) = site.status()["current"]["draining"]
    assert (draining["pid"], draining["accepts"]) == (deaf["pid"], True)
    site.until(lambda: not alive(deaf["pid"]))
    assert {get(site.port)["pid"] for _ in range(5)} == {told["pid"]}


def test_its_supervisor_is_killed(site: Site) -> None:
    served = site.serve(1)
    before = site.status()["supervisor"]["pid"]
    os.kill(before, signal.SIGKILL)
    site.until(lambda: not alive(before))
    assert get(site.port)["pid"] == served["pid"]
    status = site.status()
    assert status["supervisor"]["pid"] != before
    assert (status["current"]["pid"], status["current"]["health"]["ok"]) == (served["pid"], True)
    told = site.serve(2)
    assert told["old_said_draining"]
    assert get(site.port)["pid"] == told["pid"]
    site.until(lambda: not alive(served["pid"]))


def test_the_supervisor_becomes_its_next_image(site: Site) -> None:
    served = site.serve(1)
    site.serve(2)
    before = site.status()
    control.reexec(site.layout)
    after = site.status()
    assert after["supervisor"]["pid"] == before["supervisor"]["pid"]
    assert after["supervisor"]["image"] != before["supervisor"]["image"]
    assert after["current"]["pid"] == before["current"]["pid"] != served["pid"]
    assert after["current"]["previous"] == f"{1:040x}"
    assert get(site.port)["commit"] == f"{2:040x}"


def test_a_keeper_is_killed(site: Site) -> None:
    served = site.serve(1)
    stat = Path(f"/proc/{served['pid']}/stat").read_text()
    keeper = int(stat.rpartition(")")[2].split()[1])
    (door,) = site.layout.run.glob("*.keeper")
    os.kill(keeper, signal.SIGKILL)
    site.until(lambda: not alive(served["pid"]))
    site.until(lambda: site.status()["current"]["state"] == "serving")
    assert not door.exists()
    assert get(site.port)["commit"] == f"{1:040x}"


def test_what_follows_has_the_environment_of_what_was_started(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the shell in which something is promoted, nor of whoever started the supervisor."""
    site.serve(9, colour="candidate")
    monkeypatch.setenv("ORG_API_KEY", "sesame")
    site.serve(1)
    monkeypatch.delenv("ORG_API_KEY")
    control.swap(site.layout, *site.commit(2, "well"))
    assert "ORG_API_KEY" in get(site.port)["env"]
    pid = site.status()["supervisor"]["pid"]
    control.reexec(site.layout)
    assert b"sesame" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    control.swap(site.layout, *site.commit(3, "well"))
    assert "ORG_API_KEY" in get(site.port)["env"]
    os.kill(pid, signal.SIGKILL)
    site.until(lambda: not alive(pid))
    control.swap(site.layout, *site.commit(4, "well"))
    assert "ORG_API_KEY" in get(site.port)["env"]
    assert get(site.port)["commit"] == f"{4:040x}"
    site.serve(5)
    assert "ORG_API_KEY" not in get(site.port)["env"]


def test_what_is_coming_up_is_stopped_too(site: Site) -> None:
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(site.serve, 1, "mute", ready_timeout=3000)
        site.until(lambda: site.status().get("current", {}).get("state") == "starting")
        control.stop(site.layout, "current")
        with pytest.raises(OrgError, match="ended before it was healthy: SIGKILL"):
            starting.result()
    assert "current" not in site.status()


def test_several_ask_at_once(site: Site) -> None:
    """Each for a commit that does not come up, and one that does."""
    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(site.serve, number, "fail") for number in range(1, 5)]
        for failing in asking:
            with pytest.raises(OrgError, match="exit code 3"):
                failing.result()
        asking = [pool.submit(site.serve, 9) for _ in range(4)]
        told = [serving.result() for serving in asking]
    assert sorted(one["already"] for one in told) == [False, True, True, True]
    assert {one["pid"] for one in told} == {get(site.port)["pid"]}


async def test_of_two_that_are_left_behind_the_one_that_serves_is_found(site: Site) -> None:
    """A supervisor was killed before it told the other one to go; whichever of both hears of it first."""
    told = await asyncio.to_thread(site.serve, 1)
    plan = make_plan(site.layout, "current", *site.commit(2, "well"), {"PATH": os.environ["PATH"]})
    with listener.bind(0) as other:
        waiting = await Generation.start(plan, other)
    await waiting.becomes_healthy(DEADLINE_S)
    supervisor = site.status()["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    await asyncio.to_thread(site.until, lambda: not alive(supervisor))
    status = site.status()["current"]
    assert (status["commit"], status["pid"]) == (f"{1:040x}", told["pid"])
    assert (await waiting.ended).code is None  # it has another supervisor now, who ends it
    await asyncio.to_thread(site.until, lambda: not alive(waiting.pid))
    waiting.leave()


@pytest.mark.parametrize("mode", ["deep", "hang"])
def test_whatever_a_generation_answers_about_its_health(site: Site, mode: str) -> None:
    """It is not well; it can be asked for, swapped and stopped all the same, and is not started again."""
    served = site.serve(1, mode)
    supervisor = site.status()["supervisor"]["pid"]
    current = site.status()["current"]
    assert (current["state"], current["pid"], current["restarts"]) == ("serving", served["pid"], 0)
    assert (current["health"]["ok"], current["health"]["status"]) == (False, "silent")
    assert control.swap(site.layout, *site.commit(2, mode))
    assert control.swap(site.layout, *site.commit(3, "well"))
    assert get(site.port)["commit"] == f"{3:040x}"
    assert site.status()["supervisor"]["pid"] == supervisor
    assert control.stop(site.layout, "current", now=True)


def test_what_nobody_expected_ends_one_request_alone(site: Site) -> None:
    served = site.serve(1)
    supervisor = site.status()["supervisor"]["pid"]
    with pytest.raises(OrgError, match="the supervisor could not do that: OverflowError: ") as raised:
        control.serve(site.layout, "candidate", *site.commit(2, "well"), 70_000)
    assert raised.value.exit_code == ExitCode.ENVIRONMENT
    assert raised.value.hint == f"see {site.layout.supervisor_log}"
    assert "Traceback (most recent call last):" in site.notes()
    status = site.status()
    assert (status["supervisor"]["pid"], status["current"]["pid"]) == (supervisor, served["pid"])
    assert site.serve(2)["old_said_draining"]


def test_nobody_waits_for_one_that_is_to_be_stopped_now(site: Site) -> None:
    """Nor does it have more time than it was given, whatever its files say."""
    commit = site.commit(1, "deaf", drain_timeout=3000)
    told = control.serve(site.layout, "candidate", *commit, 0, Times(60.0, 600.0))
    site.serve(2)
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(control.stop, site.layout, "candidate")
        site.until(lambda: site.status()["candidate"]["draining"])
        (draining,) = site.status()["candidate"]["draining"]
        assert 0 < draining["killed_in_s"] <= 600
        assert control.stop(site.layout, "candidate", now=True)
        assert stopping.result()
    assert not alive(told["pid"])
    assert "candidate" not in site.status()
    assert get(site.port)["commit"] == f"{2:040x}"


def test_one_that_serves_is_stopped_now(site: Site) -> None:
    deaf = site.serve(1, "deaf", drain_timeout=3000)
    assert control.stop(site.layout, "current", now=True)
    assert not alive(deaf["pid"])


def test_what_was_before_is_known_when_its_supervisor_was_killed(site: Site) -> None:
    def killed() -> None:
        pid = site.status()["supervisor"]["pid"]
        os.kill(pid, signal.SIGKILL)
        site.until(lambda: not alive(pid))

    site.serve(1)
    site.serve(2, "crash")
    site.until(lambda: site.status()["current"]["trouble"] and site.status()["current"]["state"] == "serving")
    before = site.status()["current"]
    killed()
    after = site.status()["current"]
    assert (after["commit"], after["trouble"], after["previous"]) == (f"{1:040x}", before["trouble"], "")
    site.serve(3)
    killed()
    current = site.status()["current"]
    assert (current["previous"], current["trouble"]) == (f"{1:040x}", "")

    def is_killed_until_the_one_before_is_back() -> bool:
        current = site.status()["current"]
        if not current["trouble"] and "pid" in current:
            with suppress(ProcessLookupError):  # it has ended since, or was killed before
                os.kill(current["pid"], signal.SIGKILL)
        return bool(current["trouble"]) and current["state"] == "serving"

    site.until(is_killed_until_the_one_before_is_back)
    assert site.status()["current"]["commit"] == f"{1:040x}"
