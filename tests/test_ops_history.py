"""What main tells of promotes and rollbacks, from the text of its log."""

from __future__ import annotations

import shutil
from pathlib import Path

from ops_kit import Shop, idle
from org.ops import history, refs
from org.ops.history import History, Promote, Rollback, parse
from org.ops.recover import recover


def record(commit: str, parents: str, trailers: str, at: int = 5) -> str:
    return f"\x1d{commit}\x1f{parents}\x1f{at}\x1f{trailers}\n"


def told(*newest_first: str) -> History:
    return parse("\n".join(newest_first), "now")


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
    )
    assert [entry.commit for entry in seen.entries] == ["p", "r"]


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
