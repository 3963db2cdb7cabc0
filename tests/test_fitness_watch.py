"""The time after a promote: what is seen, what it means, and that what does badly is taken back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fitness_kit import Bakery
from generation_kit import wait_for
from org.ops import verdicts, watched
from org.ops.fitness import ask, rules, vitals, watch
from org.ops.fitness.vitals import Answers, Sample, Vitals, since
from org.ops.layout import Layout

WELL = Sample(well=True, restarts=0)


# -- what is seen


def test_who_does_well_is_left_alone() -> None:
    found = Vitals(0.0)
    assert [found.look(WELL) for _ in range(100)] == [""] * 100


def test_to_be_unwell_for_a_moment_is_forgiven() -> None:
    found = Vitals(0.0)
    unwell = Sample(well=False, restarts=0)
    assert [found.look(sample) for sample in (unwell, unwell, WELL, unwell, unwell)] == [""] * 5
    assert found.look(unwell) == "it was not well 3 times in a row"


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (Sample(True, 1), ""),
        (Sample(True, 2), "it ended by itself 2 times"),
        (Sample(True, 0, "it was brought back"), "it was brought back"),
        (Sample(True, 0, "", Answers(100, 4)), ""),  # too few to tell
        (Sample(True, 0, "", Answers(100, 8)), "8 of 100 answers failed; 2.0% was usual"),
        (Sample(True, 0, "", Answers(1000, 60)), ""),  # little more than usual
        (Sample(True, 0, "", Answers(0, 0)), ""),
    ],
)
def test_what_is_bad_enough(sample: Sample, why: str) -> None:
    assert Vitals(0.02).look(sample) == why


def test_counters_are_read_and_compared() -> None:
    text = (
        "# TYPE answers counter\n"
        'answers{method="GET",status="200"} 90\nanswers{status="503"} 7\nanswers{status="500"} 3.0\n'
        'answers_more{status="500"} 50\nother 5\nanswers{status="500"} NaN\n'
    )
    assert vitals.answers(text, "answers") == Answers(100, 10)
    written = (
        'answers{status="200"} 1e+06\nanswers{status="500",path="a} b\\"{"} 2.5e1 1700000000000\n'
        'answers{path="status=\\"500",old_status="500"} +3\nanswers{status="500"} -1\n'
        'answers{status="500"} +Inf\nanswers{status="500\n'
    )
    assert vitals.answers(written, "answers") == Answers(1_000_028, 25)
    assert since(Answers(100, 10), Answers(40, 9)) == Answers(60, 1)
    assert since(Answers(5, 1), Answers(40, 9)) == Answers(5, 1)


# -- what is done


@pytest.fixture
def bakery(tmp_path: Path) -> Iterator[Bakery]:
    made = Bakery(tmp_path, more='watch = 120\nmetrics = { path = "/metrics", counter = "bakery_answers" }')
    yield made
    made.close()


@pytest.mark.parametrize(("mode", "why"), [("sick", "not well 3 times"), ("failing", "answers failed")])
def test_what_does_badly_is_taken_back(bakery: Bakery, mode: str, why: str) -> None:
    before = bakery.git("rev-parse", "HEAD")
    assert bakery.org("start", "current").returncode == 0
    bakery.change({"mode": mode})
    bakery.keep({"verdict": "pass"})
    promoted = json.loads(bakery.org("promote", "--json").stdout)
    assert (promoted["swapped"], promoted["watch_s"]) == (True, 120.0)

    def status() -> dict[str, dict[str, str]]:
        told: dict[str, dict[str, str]] = json.loads(bakery.org("status", "--json").stdout)
        return told

    wait_for(lambda: status()["watch"]["state"] == "rolled-back", lambda: json.dumps(status()))
    told = status()
    assert why in told["watch"]["why"]
    assert told["watch"]["commit"] == promoted["commit"]
    assert told["current"]["commit"] == bakery.main != promoted["commit"]
    assert bakery.files(bakery.main) == bakery.files(before)
    note = verdicts.read(bakery.repo, bakery.main)
    assert note is not None
    assert (note["of"], note["why"]) == (promoted["commit"], told["watch"]["why"])
    assert f"{promoted['commit'][:12]} rolled back: " in bakery.org("status").stdout


def test_what_does_well_is_watched_and_left(bakery: Bakery) -> None:
    assert bakery.org("start", "current").returncode == 0
    bakery.change({"mode": "well", "x": "1"})
    bakery.keep({"verdict": "pass"})
    done = bakery.org("promote")
    assert "it is watched for 120 s, and taken back when it does badly" in done.stdout
    assert "for another " in bakery.org("status").stdout
    assert bakery.org("rollback").returncode == 0  # by hand: whoever watches lets it be

    def seen() -> dict[str, str]:
        told: dict[str, str] = json.loads(bakery.org("status", "--json").stdout)["watch"]
        return told

    wait_for(lambda: seen()["state"] == "left", lambda: json.dumps(seen()))
    assert len(bakery.history.entries) == 2


def test_nothing_is_watched_where_nothing_is_served(bakery: Bakery) -> None:
    bakery.change({"mode": "well", "x": "1"})
    bakery.keep({"verdict": "pass"})
    assert json.loads(bakery.org("promote", "--json").stdout)["watch_s"] == 0
    assert json.loads(bakery.org("status", "--json").stdout)["watch"] == {}


def test_a_watch_that_cannot_see_the_answers_says_so(tmp_path: Path) -> None:
    bakery = Bakery(tmp_path, more='watch = 3\nmetrics = { path = "/nothing", counter = "bakery_answers" }')
    try:
        assert bakery.org("start", "current").returncode == 0
        bakery.change({"mode": "well", "x": "1"})
        bakery.keep({"verdict": "pass"})
        assert bakery.org("promote").returncode == 0

        def seen() -> dict[str, str]:
            told: dict[str, str] = json.loads(bakery.org("status", "--json").stdout)["watch"]
            return told

        wait_for(lambda: seen()["state"] == "half-watched", lambda: json.dumps(seen()))
        assert seen()["why"] == "its share of failures is not known: GET /nothing says 404"
        assert "half watched: its share of failures is not known" in bakery.org("status").stdout
    finally:
        bakery.close()


def test_what_is_not_told_to_others_is_told_to_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ask.Door] = []

    def request(door: ask.Door, method: str, path: str, seconds: float) -> tuple[int, bytes]:
        asked.append(door)
        return 200, b'answers{status="500"} 7\n'

    monkeypatch.setattr(ask, "request", request)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of-the-verb"))
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "token").write_text("sesame\n")
    known = rules.read('[generation]\nmetrics = { path = "/m", counter = "answers" }\n'
                       '[generation.ask]\ntoken = "org/token"\n')  # fmt: skip
    served = {"port": 1, "pid": os.getpid(), "state_home": str(tmp_path)}
    assert watch._answers(known, served) == (Answers(7, 7), "")
    assert [door.token for door in asked] == ["sesame"]


def test_only_time_that_the_machine_was_awake_is_watched(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.run.mkdir()
    ends = time.monotonic() + 1000
    state = {"commit": "c", "pid": str(os.getpid()), "state": "watching", "why": ""}
    watched.tell(layout, state | {"until": str(ends)})
    left = float(watched.told(layout)["until"]) - time.time()
    assert left == pytest.approx(ends - time.monotonic(), abs=5)
