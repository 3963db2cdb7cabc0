"""What a verdict looks like, in a terminal and as a page; and what is read of other verdicts."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest

from fitness_kit import parsed
from org.errors import ConfigError
from org.ops.fitness import anchor, guards, plot, report, sequential
from org.ops.fitness.gates import passed
from org.ops.fitness.pairs import Half, Pair
from org.ops.fitness.rules import Rules, read

EVIL = "<script>alert(1)</script>\"'&"


def verdict(word: str = "pass", pairs: int = 75, planned: int = 100, worse_by: float = 0.0) -> dict[str, Any]:
    rng = random.Random(5)
    rule = sequential.plan(planned)
    asked = []
    for number in range(pairs):
        ours, theirs = (
            Half(float(rng.random() < 0.7 - down), 0.2 + rng.random(), rng.randrange(10, 90))
            for down in (0.0, worse_by)
        )
        asked.append(Pair(f"task-{number}", number, rng.random() < 0.5, ours, theirs))
    return {
        "verdict": word,
        "why": f"because {EVIL}",
        "branch": "cand/20260801-101500",
        **{name: letter * 40 for name, letter in (("merge", "a"), ("main", "b"), ("tree", "c"))},
        "inputs": {"gate_code": "sha256:e"},
        "attempt": 1,
        "alpha": 0.05,
        "model": "org/main",
        "suite": "sha256:d",
        "tasks": "",
        "findings": [{"gate": "files", "passed": True, "about": EVIL}],
        "planned": planned,
        "margin": rule.margin,
        "bounds": [[at, rule.bound(number)] for number, at in enumerate(rule.looks, 1)],
        "costs": asdict(guards.costs(asked)),
        "pairs": [asdict(pair) for pair in asked],
        "superior": False,
        "anchor": "f" * 40,
    }


# -- the page


@pytest.mark.parametrize("word", ["pass", "fail", "inconclusive"])
def test_a_page_is_whole_and_needs_nothing_else(word: str) -> None:
    reader = parsed(report.html(verdict(word)))
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert reader.links == []
    assert reader.tags.count("tr") == 76
    assert f"because {EVIL}" in "".join(reader.words)
    assert "The mean difference after 75 of 100 pairs" in "".join(reader.words)


def test_a_page_without_pairs_has_the_gates() -> None:
    bare = {
        name: value for name, value in verdict("fail").items() if name not in ("pairs", "costs", "bounds")
    }
    reader = parsed(report.html(bare))
    assert "svg" not in reader.tags
    assert EVIL in reader.words


def test_a_page_of_pairs_that_all_failed() -> None:
    bad = verdict("fail", pairs=5)
    for pair in bad["pairs"]:
        pair["candidate"] |= {"error": EVIL, "tokens": None, "seconds": 0.0, "score": 0.0}
        pair["discarded"] = "the model server failed"
    bad["costs"] = {"errors": 5, "seconds": (0.0, 0.0), "tokens": (0.0, 0.0)}
    assert "the model server failed" in parsed(report.html(bad)).words


# -- the path


def test_the_path_passes_where_the_rule_does() -> None:
    found = verdict(pairs=100)
    path = plot.path_of(found)
    differences = [pair["candidate"]["score"] - pair["current"]["score"] for pair in found["pairs"]]
    for number, mark in enumerate(path.marks, 1):
        look = sequential.decide(sequential.plan(100), differences[: mark.pairs]).looks
        if len(look) == number:
            assert look[-1].passes == (path.means[mark.pairs - 1] > mark.passes)
            assert look[-1].fails == (path.means[mark.pairs - 1] < mark.fails)
    assert path.means[-1] == pytest.approx(sequential.estimate(differences).mean)


@pytest.mark.parametrize(("pairs", "planned"), [(1, 12), (12, 12), (30, 100), (100, 100), (400, 400)])
def test_the_drawing_keeps_its_size(pairs: int, planned: int) -> None:
    lines = plot.draw(plot.path_of(verdict(pairs=pairs, planned=planned, worse_by=0.3)))
    assert len(lines) == 15
    assert max(map(len, lines)) <= 90
    assert any("•" in line for line in lines)
    assert f"{planned} pairs" in lines[-2]


# -- the anchor


def judged(main: str, *, superior: bool = False, suite: str = "s", score: float = 0.75) -> dict[str, Any]:
    return {"main": main, "suite": suite, "model": "m", "superior": superior, "known": {"t": score}}


def test_the_first_anchor_is_the_first_current() -> None:
    assert anchor.find([], "m0", "s", "m") == anchor.Anchor("m0", {})
    promotes = [judged("m0"), judged("m1", score=0.5)]
    assert anchor.find(promotes, "m2", "s", "m") == anchor.Anchor("m0", {"t": 0.75})
    unasked = {**judged("m"), "known": {}}
    assert anchor.find([unasked, *promotes, unasked], "m3", "s", "m") == anchor.Anchor("m0", {"t": 0.75})


def test_who_was_better_is_the_next() -> None:
    """By the scores that it had as current: those with which it was better were its luckiest."""
    promotes = [judged("m0"), judged("m1", superior=True), judged("m2", score=0.9), judged("m3")]
    assert anchor.find(promotes, "m4", "s", "m") == anchor.Anchor("m2", {"t": 0.9})
    assert anchor.find(promotes[:2], "m2", "s", "m") == anchor.Anchor("m2", {})  # that is current


def test_another_suite_or_model_begins_anew() -> None:
    promotes = [judged("m0", suite="old"), judged("m1")]
    assert anchor.find(promotes, "m2", "s", "m").commit == "m1"
    assert anchor.find(promotes, "m2", "s", "other") == anchor.Anchor("m2", {})
    assert anchor.find([None], "m1", "s", "m") == anchor.Anchor("m1", {})


# -- reports of tests


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set()),
        ("<a", set()),
        ('<testsuites><testsuite><testcase classname="a" name="b"/></testsuite></testsuites>', {"a::b"}),
        ('<s><testcase name="b"><failure/></testcase><testcase name="c"/></s>', {"::c"}),
        ('<s><testcase name="b"><skipped/></testcase><testcase name="b"><error/></testcase></s>', set()),
        ('<s><testcase name="b"/><testcase name="b"><failure/></testcase></s>', set()),
        ('<?xml version="1.0" encoding="foo"?><s><testcase name="b"/></s>', set()),
        ('<?xml version="1.0" encoding="shift_jis"?><s><testcase name="b"/></s>', set()),
        ('<?xml version="1.0" encoding="utf-16"?><s><testcase name="b"/></s>', set()),
        ("<a>" * 100_000, set()),
    ],
)
def test_who_passed(text: str, names: set[str]) -> None:
    assert passed(text.encode()) == names


# -- what main says


def test_what_is_not_said_is_usual() -> None:
    assert read("").ask.path == "/v1/chat/completions"
    assert read("[generation]\nunknown = 1").watch_s == Rules().watch_s == 300
    assert read("[generation]\nprotected = ['a/']").protected == ("fitness.toml", "a/")
    assert read("[generation]\nprobes = ['GET /x']").probes == (("GET", "/x"),)
    assert read("[generation]\ntests = 'run {report}'").tests == ("run", "{report}")
    assert read("[generation.fitness]\npairs = 12").budget.pairs == 12
    assert read("[generation]\nprobes = ['GET /x']\nfitness = { pairs = 0 }").budget.pairs == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "no TOML"),
        ("generation = 1", "is no table"),
        ("[generation]\nask = 1", "ask .* must be a table"),
        ("[generation.ask]\npath = 'x'", "path .* must be a path"),
        ("[generation.ask]\nmodel = 1", "model .* must be a text"),
        ("[generation.ask]\ntoken = '/etc/passwd'", "token .* below the state folder"),
        ("[generation.ask]\ntoken = 'a/../../b'", "token .* below the state folder"),
        ("[generation.fitness]\npairs = -1", "pairs .* between 0 and 10000"),
        ("[generation.fitness]\npairs = 0", "pairs .* must not be 0 without `tests` or `probes`"),
        ("[generation.fitness]\npairs = 1.5", "pairs .* between"),
        ("[generation]\nwatch = -1", "watch .* between 0"),
        ("[generation]\nwatch = nan", "watch .* between 0"),
        ("[generation]\nprobes = ['x']", "probes .* must be such as"),
        ("[generation]\nprotected = 'x'", "protected .* list of texts"),
        ("[generation]\ntests = 'pytest'", "tests .* JUnit"),
        ("[generation]\ntests = '\"'", "tests .* no closing quotation"),
        (f"[generation]\nwatch = {'1' * 5000}", "no TOML"),
        (f"[generation]\nwatch = {'[' * 5000}{']' * 5000}", "nested too deeply"),
    ],
)
def test_what_is_off_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(text)
    assert "\n" not in str(caught.value)
