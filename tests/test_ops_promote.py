"""Promotes and rollbacks in real repositories: what main becomes, and when it is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops_kit import PASS, Shop, idle, passing, put
from org.errors import Conflict, ExitCode, Inconclusive, OrgError, Stale, UsageError
from org.ops import candidate, verdicts
from org.ops.layout import Layout
from org.ops.merges import Gate
from org.ops.program import Program
from org.ops.promote import promote
from org.ops.rollback import rollback

TEN = "".join(f"line {number}\n" for number in range(10))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def lines(**changed: str) -> str:
    """Ten lines, some of them changed: `lines(_2="two")`."""
    text = TEN
    for number, words in changed.items():
        text = text.replace(f"line {number[1:]}\n", f"{words}\n")
    return text


# -- promote


def test_what_is_promoted_is_the_merge_that_was_judged(shop: Shop) -> None:
    branch = shop.change({"menu.txt": "tea\ncoffee\n"})
    before = shop.main
    judged: list[Gate] = []

    def judge(program: Program, gate: Gate) -> Mapping[str, object]:
        judged.append(gate)
        return PASS

    done = promote(shop.program, "", judge, idle)
    assert [gate.merge for gate in judged] == [done.entry.commit] == [shop.main]
    assert (done.entry.number, done.entry.main, done.entry.branch, done.swapped) == (1, before, branch, False)
    assert shop.refs.main.parents == (before, shop.refs.branch(branch).commit)
    assert shop.files() == {"menu.txt": "tea\ncoffee\n"}


def test_a_promote_can_be_named_by_its_tag_and_its_note(shop: Shop) -> None:
    shop.change({"menu.txt": "cocoa\n"})
    done = shop.promote()
    kept = {**PASS, "merge": done.entry.commit}
    tag = shop.repo.run("cat-file", "tag", "promote/1")
    assert f"object {done.entry.commit}\n" in tag
    assert f"Org-Verdict: {verdicts.digest(kept)}" in tag
    assert verdicts.read(shop.repo, done.entry.commit) == kept


def test_main_goes_on_from_what_others_promoted(shop: Shop) -> None:
    first = shop.change({"a": "1"})
    second = shop.change({"b": "2"}, new=True)
    shop.promote(first)
    shop.promote(second)
    assert shop.files() == {"menu.txt": "tea\n", "a": "1", "b": "2"}
    assert [entry.branch for entry in shop.history.promotes] == [first, second]


def test_the_gate_that_was_passed_before_is_not_run_again(shop: Shop) -> None:
    shop.change({"a": "1"})
    gate = shop.gate()

    def judge(program: Program, gate: Gate) -> Mapping[str, object]:
        raise AssertionError("judged again")

    assert promote(shop.program, "", judge, idle).entry.commit == gate.merge


def test_a_gate_is_pinned_once(shop: Shop) -> None:
    shop.change({"a": "1"})
    first = shop.gate()
    assert shop.gate() == first
    assert shop.refs.by_name["refs/org/gate/1"].commit == first.merge


@pytest.mark.parametrize(
    ("verdict", "kind", "said"),
    [
        ({"verdict": "fail", "why": "slower"}, OrgError, "has failed the gate: slower"),
        ({"verdict": "inconclusive", "why": "no data"}, Inconclusive, "could not decide on .*: no data"),
        ({"verdict": "great"}, OrgError, "has failed the gate"),
        ({}, OrgError, "has failed the gate"),
    ],
)
def test_nothing_but_a_pass_moves_main(
    shop: Shop, verdict: dict[str, object], kind: type[OrgError], said: str
) -> None:
    shop.change({"a": "1"})
    before = shop.main
    for judge in (lambda program, gate: verdict, passing):  # the second time it is known, and not judged
        with pytest.raises(kind, match=said) as caught:
            promote(shop.program, "", judge, idle)
        assert caught.value.exit_code == (ExitCode.INCONCLUSIVE if kind is Inconclusive else ExitCode.FAILED)
    assert shop.main == before


def test_a_verdict_on_another_main_is_stale(shop: Shop) -> None:
    first = shop.change({"a": "1"})
    second = shop.change({"b": "2"}, new=True)
    shop.gate(first)
    shop.promote(second)
    with pytest.raises(Stale, match="main has moved"):
        shop.promote(first)
    shop.gate(first)
    shop.promote(first)
    assert shop.files() == {"menu.txt": "tea\n", "a": "1", "b": "2"}


def test_main_that_moves_while_the_gate_is_run_makes_it_stale(shop: Shop) -> None:
    first = shop.change({"a": "1"})
    second = shop.change({"b": "2"}, new=True)

    def judge(program: Program, gate: Gate) -> Mapping[str, object]:
        shop.promote(second)
        return PASS

    with pytest.raises(Stale, match="main has moved"):
        promote(shop.program, first, judge, idle)
    assert "a" not in shop.files()


def test_what_is_on_main_already_is_stale(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    with pytest.raises(Stale, match="promote 1"):
        shop.promote()


def test_a_candidate_without_a_change_is_refused(shop: Shop) -> None:
    shop.edit({"a": "1"})
    with pytest.raises(OrgError, match="changes nothing") as caught:
        shop.promote()
    assert "org candidate commit" in caught.value.hint


def test_a_conflict_names_the_files(shop: Shop) -> None:
    first = shop.change({"menu.txt": "coffee\n", "x": "1"})
    second = shop.change({"menu.txt": "cocoa\n", "y": "1"}, new=True)
    shop.promote(first)
    with pytest.raises(Conflict, match=r"menu\.txt") as caught:
        shop.promote(second)
    assert caught.value.files == ("menu.txt",)


@pytest.mark.parametrize(
    "name", ["main", "cand/none", "--upload-pack=x", "cand/../main", "-x", "cand/", "*", "\n"]
)
def test_a_name_that_is_no_candidate(shop: Shop, name: str) -> None:
    shop.change({"a": "1"})
    with pytest.raises(UsageError, match="no such candidate"):
        shop.promote(name)


def test_a_rename_and_an_edit_go_together(shop: Shop) -> None:
    shop.save("long", {"long.txt": TEN})
    renamed = shop.change({"moved.txt": TEN})
    (shop.layout.candidate / "long.txt").unlink()
    shop.change({})
    edited = shop.change({"long.txt": lines(_3="three")}, new=True)
    shop.promote(renamed)
    shop.promote(edited)
    assert shop.files() == {"menu.txt": "tea\n", "moved.txt": lines(_3="three")}


# -- rollback


def test_rollbacks_take_back_the_newest_first_and_each_once(shop: Shop) -> None:
    states = [{"menu.txt": "tea\n"}]
    for number in range(3):
        shop.change({f"file-{number}": f"{number}", "menu.txt": f"tea {number}\n"})
        shop.promote()
        states.append(shop.files())
    for number in (3, 2, 1):
        done = shop.rollback()
        assert (done.entry.of.number, done.entry.number) == (number, 4 - number)
        assert shop.files() == states[number - 1]
    with pytest.raises(OrgError, match="no promote to roll back"):
        shop.rollback()
    assert len(shop.history.entries) == 6
    assert shop.repo.run("rev-parse", "rollback/3^{commit}") == shop.main


def test_a_rollback_keeps_what_came_after(tmp_path: Path) -> None:
    """The tree is what `git revert -m 1` makes."""
    shop = Shop(tmp_path, {"long.txt": TEN})
    shop.change({"long.txt": lines(_2="two"), "new.txt": "new\n"})
    done = shop.promote()
    shop.git("pull", "-q", str(shop.layout.repo), "main")
    shop.save("mine", {"long.txt": lines(_2="two", _8="eight")})
    shop.change({"other": "1"}, new=True)  # takes in what the user committed
    shop.rollback()
    assert shop.files() == {"long.txt": lines(_8="eight")}
    shop.git("revert", "-m", "1", "--no-edit", done.entry.commit)
    assert shop.git("rev-parse", "HEAD^{tree}") == shop.refs.main.tree


def test_a_rollback_that_does_not_fit_names_the_files(shop: Shop) -> None:
    shop.change({"menu.txt": "coffee\n"})
    shop.promote()
    shop.git("pull", "-q", str(shop.layout.repo), "main")
    shop.save("mine", {"menu.txt": "coffee with milk\n"})
    shop.change({"other": "1"}, new=True)
    before = shop.main
    with pytest.raises(Conflict) as caught:
        shop.rollback()
    assert (caught.value.files, shop.main) == (("menu.txt",), before)


def test_a_rollback_needs_no_repository_of_the_users(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    here = shop.program
    os.rename(shop.checkout / ".git", shop.checkout / "gone")
    rollback(here, idle)
    assert not here.layout.pending.exists()


# -- and again


def test_after_a_rollback_the_same_candidate_brings_everything_back(shop: Shop) -> None:
    branch = shop.change({"a": "1", "menu.txt": "coffee\n"})
    first = shop.promote()
    shop.rollback()
    again = shop.promote()
    assert (again.entry.branch, again.entry.number) == (branch, 2)
    assert shop.files() == {"menu.txt": "coffee\n", "a": "1"} == shop.files(first.entry.commit)
    shop.rollback()
    assert shop.files() == {"menu.txt": "tea\n"}
    shop.promote()
    assert shop.files() == {"menu.txt": "coffee\n", "a": "1"}


def test_after_a_rollback_the_candidate_can_be_mended_and_promoted(shop: Shop) -> None:
    branch = shop.change({"a": "wrong", "menu.txt": "coffee\n"})
    shop.promote()
    shop.rollback()
    assert shop.change({"a": "right"}) == branch
    shop.promote()
    assert shop.files() == {"menu.txt": "coffee\n", "a": "right"}
    # What is built on it knows that it stands again, and is merged as usual.
    with pytest.raises(Stale):
        shop.promote(branch)


def test_what_is_built_on_a_reapplied_candidate_is_merged_from_there(tmp_path: Path) -> None:
    shop = Shop(tmp_path, {"long.txt": TEN})
    branch = shop.change({"long.txt": lines(_4="four")})
    shop.promote()
    shop.rollback()
    shop.promote(branch)
    folder = shop.layout.candidate
    put(folder, {"long.txt": lines(_4="four and more")})
    assert candidate.commit(shop.program, "more", shop.env)[0] == branch
    shop.promote(branch)
    assert shop.files() == {"long.txt": lines(_4="four and more")}


def test_a_new_candidate_that_knows_of_the_rollback_does_not_bring_back_the_old(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    shop.rollback()
    shop.change({"b": "2"}, new=True)
    shop.promote()
    assert shop.files() == {"menu.txt": "tea\n", "b": "2"}


def test_a_candidate_that_builds_on_two_that_were_rolled_back_brings_both(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    second = shop.change({"b": "2"})
    shop.promote(second)
    shop.rollback()
    shop.rollback()
    assert shop.files() == {"menu.txt": "tea\n"}
    shop.promote(second)
    assert shop.files() == {"menu.txt": "tea\n", "a": "1", "b": "2"}


# -- what is served


def test_what_is_served_is_swapped_to_the_files_of_main(shop: Shop) -> None:
    shop.change({"a": "1"})
    served: list[str] = []

    def swap(layout: Layout, commit: str, folder: Path) -> bool:
        served.append(commit)
        assert (folder / "menu.txt").read_text() == "tea\n"
        assert not (folder / ".git").exists()
        return True

    promoted = shop.promote(swap=swap)
    rolled_back = shop.rollback(swap=swap)
    assert promoted.swapped and rolled_back.swapped
    assert served == [promoted.entry.commit, rolled_back.entry.commit]


def test_one_that_does_not_come_up_can_be_rolled_back(shop: Shop) -> None:
    shop.change({"a": "1"})

    def broken(layout: Layout, commit: str, folder: Path) -> bool:
        raise OrgError("it does not come up")

    with pytest.raises(OrgError, match="come up"):
        shop.promote(swap=broken)
    assert shop.layout.pending.exists()
    shop.rollback()
    assert shop.files() == {"menu.txt": "tea\n"}
    assert not shop.layout.pending.exists()
    assert [tag for tag in shop.refs.by_name if "tags" in tag] == [
        "refs/tags/promote/1",
        "refs/tags/rollback/1",
    ]


# -- as commands


def test_one_object_says_what_came_of_it(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    gate = shop.gate()
    told = [
        json.loads(shop.org(verb, "--json").stdout) for verb in ("promote", "promote", "rollback", "history")
    ]
    promoted, stale, rolled_back, history = told
    assert promoted["reason"] == "promoted"
    assert (promoted["code"], promoted["commit"], promoted["branch"]) == (0, gate.merge, branch)
    assert promoted["pull"].endswith(f"pull --no-rebase {shop.layout.repo} main")
    assert (stale["code"], stale["reason"]) == (5, "stale")
    assert (rolled_back["reason"], rolled_back["of"]) == ("rolled-back", 1)
    assert [(entry["kind"], entry["number"]) for entry in history["entries"]] == [
        ("promote", 1),
        ("rollback", 1),
    ]
    assert {one["v"] for one in told} == {1}


def test_lines_for_a_person(shop: Shop) -> None:
    shop.change({"a": "1"})
    gate = shop.gate()
    done = shop.org("promote")
    assert (done.returncode, done.stderr) == (0, "")
    pull = done.stdout.splitlines()[-1].removeprefix("into your checkout: ")
    subprocess.run(pull, shell=True, env=shop.env, check=True, capture_output=True)
    assert shop.git("rev-parse", "HEAD") == gate.merge
    assert shop.org("history").stdout.endswith(f"promote 1: {gate.branch}\n")
    again = shop.org("promote")
    assert (again.returncode, again.stderr) == (5, f"org: {gate.branch} is on main already: promote 1\n")


def test_of_eight_at_once_one_wins(shop: Shop) -> None:
    shop.change({"a": "1"})
    gate = shop.gate()
    argv = [sys.executable, "-m", "org", "promote", "--json"]
    racers = [
        subprocess.Popen(
            argv, cwd=shop.checkout, env=shop.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]
    told = [json.loads(racer.communicate()[0])["reason"] for racer in racers]
    assert sorted(racer.returncode for racer in racers)[0] == 0
    assert told.count("promoted") == 1
    assert set(told) <= {"promoted", "stale", "busy"}
    assert shop.main == gate.merge
    assert len(shop.history.promotes) == 1


def test_eight_different_candidates_at_once(shop: Shop) -> None:
    branches = [shop.change({f"file-{number}": "1"}, new=True) for number in range(8)]
    gates = [shop.gate(branch) for branch in branches]
    argv = [sys.executable, "-m", "org", "promote"]
    racers = [
        subprocess.Popen(
            [*argv, branch], cwd=shop.checkout, env=shop.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for branch in branches
    ]
    for racer in racers:
        racer.communicate()
    codes = [racer.returncode for racer in racers]
    assert codes.count(0) == 1
    assert set(codes) <= {0, 5, 6}
    assert shop.main == gates[codes.index(0)].merge
