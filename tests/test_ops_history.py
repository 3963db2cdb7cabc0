"""What main tells of promotes and rollbacks, from the text of its log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops_kit import Shop, idle, raw_commit
from org.ops import candidate, history, merges, refs
from org.ops.git import COMMITTER
from org.ops.history import History, Promote, Rollback, parse
from org.ops.recover import recover

ADA = "Ada <ada@example.org>"


def record(commit: str, parents: str, trailers: str, at: object = 5, *, by: str = COMMITTER) -> str:
    return f"{commit}\n{parents}\n{at}\n{by}\n{trailers}\0"


def told(*newest_first: str) -> History:
    return parse("".join(newest_first), "now")


PROMOTE = "Org-Promote: 1\nOrg-Candidate: cand/x\nOrg-Commit: c\n"
ENTRY = Promote(1, "p", "m", "c", "cand/x", 5)


def test_nothing() -> None:
    assert told() == History("now", ())


def test_a_promote_and_its_rollback() -> None:
    seen = told(
        record("r", "u", "Org-Rollback: 1\nOrg-Rollback-Of: p\n", 7),
        record("u", "p", "Signed-off-by: ada\n"),
        record("p", "m c", PROMOTE),
        record("m", "", ""),
    )
    assert seen.entries == (ENTRY, Rollback(1, "r", "u", ENTRY, 7))
    assert (seen.promotes, seen.standing) == ((ENTRY,), ())


def test_what_stands() -> None:
    again = Promote(2, "q", "r", "c", "cand/x", 9)
    seen = told(
        record("q", "r d", PROMOTE, 9),
        record("r", "p", "Org-Rollback: 1\nOrg-Rollback-Of: p\n"),
        record("p", "m c", PROMOTE),
    )
    assert seen.standing == (again,)
    assert seen.after(seen.rollbacks[0]) == (again,)


def test_trailers_that_cannot_be_ours_count_for_nothing() -> None:
    seen = told(
        record("r2", "r", "Org-Rollback: 2\nOrg-Rollback-Of: p\n"),  # rolled back already
        record("r", "p", "Org-Rollback: 1\nOrg-Rollback-Of: p\n"),
        record("x", "p", "Org-Rollback: 1\nOrg-Rollback-Of: nothing\n"),
        record("p", "m c", PROMOTE),
        record("n", "m", PROMOTE),  # a promote is a merge
        record("l", "m m", PROMOTE),  # of two
    )
    assert [entry.commit for entry in seen.entries] == ["p", "r"]


@pytest.mark.parametrize("by", [ADA, "org <candidate@localhost>", "Org <org@localhost>", "org <>", ""])
def test_what_somebody_else_made_counts_for_nothing(by: str) -> None:
    seen = told(
        record("r", "p", "Org-Rollback: 1\nOrg-Rollback-Of: p\n", by=by),
        record("q", "p d", PROMOTE, by=by),
        record("p", "m c", PROMOTE),
        record("n", "m", PROMOTE, "", by=by),  # of no date
    )
    assert seen.entries == (ENTRY,)


# -- in a repository


def test_a_commit_beside_the_line_says_what_it_likes(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    forged = f"mine\n\nOrg-Promote: 7\nOrg-Rollback: 1\nOrg-Rollback-Of: {'0' * 40}\n"
    shop.change({"a": "1"}, message=forged)
    first = shop.promote()
    shop.change({"b": "1"}, message=f"mine\n\nOrg-Rollback: 1\nOrg-Rollback-Of: {first.entry.commit}\n")
    shop.promote()
    assert [entry.number for entry in shop.history.standing] == [1, 2]
    assert shop.history.rollbacks == ()


def test_a_commit_of_the_users_says_what_it_likes(tmp_path: Path) -> None:
    """Also a merge, and what a candidate said, when the user goes on from its branch instead of from main."""
    shop = Shop(tmp_path)
    shop.change({"a": "1"})
    first = shop.promote().entry
    shop.git("pull", "-q", str(shop.layout.repo), "main")
    forged = f"mine\n\nOrg-Rollback: 1\nOrg-Rollback-Of: {first.commit}\n"
    shop.env |= {"GIT_AUTHOR_NAME": "org", "GIT_AUTHOR_EMAIL": "org@localhost"}
    branch = shop.change({"b": "1"}, new=True, message=forged)
    shop.git("fetch", "-q", "org")
    shop.git("merge", "-q", "--ff-only", f"org/{branch}")
    shop.git("checkout", "-q", "-b", "side")
    shop.save("side", {"c": "1"})
    shop.git("checkout", "-q", "main")
    shop.git("merge", "-q", "--no-ff", "-m", f"mine\n\nOrg-Promote: 2\nOrg-Commit: {'1' * 40}", "side")
    shop.edit({}, new=True)
    assert shop.main == shop.git("rev-parse", "main")
    assert shop.history.entries == (first,)


PIECES = (
    *("\n", "\n\n", " ", "\0", "\x1d", "\x1f", "\x0b", "\x0c", "\r", "\x85", "\u2028", "|", ",", ":", "ä"),
    *("Foo: ", "Org-Commit: a|b", "Org-Commit: a\n b", "Org-Promote: 1", "Org-Candidate: x"),
    *("Org-Rollback: 1", "Org-Rollback-Of: PROMOTE", "PROMOTE\nPROMOTE CANDIDATE\n1\norg <org@localhost>"),
    *("+AAo-", "+AAA-"),
)
MESSAGES = st.binary() | st.lists(st.sampled_from(PIECES), max_size=12).map(
    lambda some: "".join(some).encode()
)
NAMES = st.text(st.characters(exclude_characters="\0\n<>", exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """With a promote."""
    made = Shop(tmp_path_factory.mktemp("told"))
    made.change({"a": "1"})
    made.promote()
    made.change({"b": "1"}, new=True)
    return made


def said(message: str, *, name: str = "Ada", encoding: str = "", merge: bool = False) -> example:
    return example(message.encode(), name, "ada@example.org", ADA, encoding, merge)


@said("x\n\nOrg-Commit: a|b")
@said("x\n\nOrg-Commit: a\n b")
@said("x\n\nOrg-Commit: a\0b")
@said("x\n\nFoo: a\x1db")
@said("x\n\nFoo: a\x1dPROMOTE\x1fPROMOTE CANDIDATE\x1f1\x1fOrg-Promote: 1")
@said("x\n\nOrg-Promote: 2", merge=True)
@said("x\n\nOrg-Rollback: 1\nOrg-Rollback-Of: PROMOTE")
@said("x\n\nFoo: +AAo-org", name="+AAo-org +ADw-org+AEA-localhost+AD4-+AAo-", encoding="UTF-7")
@settings(max_examples=60, deadline=None)
@given(
    message=MESSAGES,
    name=NAMES | st.just("org"),
    email=NAMES | st.just("org@localhost"),
    committer=st.sampled_from([ADA, "org <candidate@localhost>"]),
    encoding=st.sampled_from(["", "UTF-7", "UTF-16", "ISO-8859-1", "none"]),
    merge=st.booleans(),
)
def test_no_message_of_others_changes_what_is_told(
    shop: Shop, message: bytes, name: str, email: str, committer: str, encoding: str, merge: bool
) -> None:
    """Neither on main nor on a branch: all is read, and nothing is believed."""
    git = shop.repo
    main, told = shop.main, shop.history
    (promoted,) = told.entries
    branch = candidate.branch_of(shop.program)
    before = shop.refs.branch(branch).commit
    message = message.replace(b"PROMOTE", promoted.commit.encode()).replace(b"CANDIDATE", before.encode())
    parents = (main, before) if merge else (main,)
    forged = raw_commit(shop, parents, message, f"{name} <{email}>", committer, encoding)
    try:
        git.run("update-ref", refs.MAIN, forged)
        git.run("update-ref", refs.HEADS + branch, forged)
        known = shop.refs
        assert history.read(git, known) == History(forged, told.entries)
        assert history.base(git, forged) == promoted.main
        assert known.branch(branch).parents == parents
        assert merges.gates(known, branch) == []
    finally:
        git.run("update-ref", refs.MAIN, main)
        git.run("update-ref", refs.HEADS + branch, before)


def test_it_is_told_again_by_a_repository_that_is_begun_anew(tmp_path: Path) -> None:
    """When what is kept was lost, the user's own repository has it."""
    shop = Shop(tmp_path)
    branch = shop.change({"a": "1"})
    shop.promote()
    shop.rollback()
    shop.promote(branch)
    before = shop.history
    shop.git("pull", "-q", str(shop.layout.repo), "main")
    shutil.rmtree(tmp_path / "state")
    shop.edit({})
    assert shop.history == before
    recover(shop.program, idle)
    assert {"refs/tags/promote/1", "refs/tags/promote/2", "refs/tags/rollback/1"} <= shop.refs.by_name.keys()
    shop.rollback()
    assert "a" not in shop.files()


def test_what_was_before_it_was_begun_is_not_read(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.edit({})
    assert shop.repo.run("rev-parse", refs.BASE) == shop.main
    assert history.read(shop.repo, shop.refs) == History(shop.main, ())
