"""The same message to both generations, and how it looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fitness_kit import Bakery, parsed
from org.errors import ExitCode
from org.ops.fitness.arena import place_of
from org.ops.fitness.compare import Compared, Made, calls_in, html, lines

CALLS = ("sh `ls -la`", "sh `python build.py` (+3 lines)")
BOTH = Compared(
    "why <is> that?",
    7,
    (
        Made(
            "current",
            "a" * 40,
            "Because of the first reason, which is long enough to be wrapped.\n\nYes.",
            CALLS,
            1.23,
            40,
        ),
        Made("candidate", "b" * 40, "", (), 2.0, None, "no answer within 2 s \x1b[2J"),
    ),
)


def test_side_by_side() -> None:
    shown = list(lines(BOTH, 100))
    assert shown[0] == f"{'current aaaaaaaaaaaa':48} │ candidate bbbbbbbbbbbb"
    assert shown[1] == f"{'1.2 s, 40 tokens, 2 tool calls':48} │ 2.0 s, 0 tool calls"
    assert shown[3] == f"{'→ sh `ls -la`':48} │ no answer within 2 s  [2J"
    assert all(len(line) <= 100 for line in shown)
    assert [line[:48].strip() for line in shown[5:]] == [
        "Because of the first reason, which is long",
        "enough to be wrapped.",
        "",
        "Yes.",
    ]


def test_one_after_the_other() -> None:
    shown = list(lines(BOTH, 60))
    assert shown[0] == "current aaaaaaaaaaaa"
    assert "candidate bbbbbbbbbbbb" in shown
    assert not any("│" in line or "\x1b" in line for line in shown)


def test_calls_are_found_whatever_is_around_them() -> None:
    thoughts = "hm [a `b]\ncoder: [sh `ls -l`]\n\n[python `x[1]`` (+3 lines)]\n[sh `ls`] and so on\n[sh ls]"
    assert list(calls_in(thoughts)) == ["sh `ls -l`", "python `x[1]`` (+3 lines)"]
    assert list(calls_in("[a `" * 200_000)) == []
    assert list(calls_in("[a `] (+1" * 200_000)) == []


def test_no_more_is_shown_than_anybody_reads() -> None:
    long = replace(BOTH, sides=tuple(replace(made, text="w" * (3 << 20)) for made in BOTH.sides))
    assert len(list(lines(long, 40))) < 1000
    assert "… and 3125728 characters more" in html(long)
    assert len(html(long)) < 100_000


def test_as_a_page() -> None:
    words = parsed(html(BOTH)).words
    assert "why <is> that?" in words
    assert "sh `ls -la`" in words


@pytest.fixture
def bakery(tmp_path: Path) -> Iterator[Bakery]:
    made = Bakery(tmp_path)
    yield made
    made.close()


def test_both_are_asked(bakery: Bakery, tmp_path: Path) -> None:
    bakery.change({"mode": "half"})
    page = tmp_path / "out.html"
    done = bakery.org("compare", "double 21", "--json", "--report", str(page))
    told = json.loads(done.stdout)
    assert (done.returncode, told["reason"]) == (0, "compared")
    assert (told["current"]["text"], told["candidate"]["text"]) == ("42", "no idea")
    assert (told["current"]["commit"], told["current"]["tokens"]) == (bakery.main, 10)
    assert "double 21" in parsed(page.read_text()).words
    shown = bakery.org("compare", "double 21", COLUMNS="120")
    assert "42" in shown.stdout
    assert " │ " in shown.stdout
    assert list(place_of(bakery.layout).root.glob("*/run/*.keeper")) == []


def test_who_does_not_start_is_shown_beside_who_answers(bakery: Bakery) -> None:
    bakery.change({"mode": "dead"})
    done = bakery.org("compare", "double 21", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"], told["reason"]) == (1, 1, "unanswered")
    assert (told["current"]["text"], told["current"]["error"]) == ("42", "")
    assert "the oven is cold" in told["candidate"]["error"]
    shown = bakery.org("compare", "double 21", COLUMNS="60").stdout
    assert "42" in shown.splitlines()
    assert "the oven is cold" in shown


def test_who_does_not_answer_is_a_failure(bakery: Bakery, tmp_path: Path) -> None:
    bakery.change({"mode": "endpoint"})
    done = bakery.org("compare", "double 21 \udcff", "--report", str(tmp_path / "out.html"))
    assert done.returncode == ExitCode.FAILED
    assert "the model server is down" in done.stdout
    assert "double 21 ?" in parsed((tmp_path / "out.html").read_text()).words


def test_there_has_to_be_a_candidate(bakery: Bakery) -> None:
    assert bakery.org("compare", "hello").returncode == ExitCode.USAGE
    bakery.change({"x": "1"})
    assert bakery.org("compare", "hello", "--timeout", "0").returncode == ExitCode.USAGE
