"""The user's own repository: which branch is their main, what is taken in of it, and where it has gone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops_kit import Shop, idle
from org.errors import Conflict, EnvironmentProblem, UsageError
from org.ops import candidate, program
from org.ops.recover import recover


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def typed(shop: Shop, hint: str) -> None:
    """Do what a hint says."""
    path = f"{Path(sys.executable).parent}:{shop.env['PATH']}"
    command = hint.split("`")[1]
    subprocess.run(
        command, shell=True, cwd=shop.checkout, env=shop.env | {"PATH": path}, check=True, capture_output=True
    )


# -- which branch is their main


def test_it_stays_the_branch_that_it_was(shop: Shop) -> None:
    """Whatever is checked out: work in progress is nobody's main."""
    shop.git("branch", "-m", "trunk")
    shop.edit({})
    shop.git("checkout", "-q", "-b", "wip")
    shop.save("wip", {"x": "1"})
    assert candidate.edit(shop.program, new=True).note == ""
    assert "x" not in shop.files()
    shop.git("branch", "-q", "main")
    assert candidate.edit(shop.program, new=True).note == ""


def test_one_that_is_gone_is_not_replaced_by_another_branch(shop: Shop) -> None:
    shop.edit({})
    before = shop.main
    shop.git("checkout", "-q", "-b", "wip")
    shop.save("wip", {"x": "1"})
    shop.git("branch", "-q", "master")
    shop.git("branch", "-q", "-D", "main")
    with pytest.raises(UsageError, match="no branch main any more") as caught:
        shop.edit({}, new=True)
    assert shop.main == before
    assert str(shop.layout.branch) in caught.value.hint
    shop.layout.branch.unlink()  # as it says
    assert candidate.edit(shop.program, new=True).note == "took in 1 commit of yours"
    assert shop.layout.branch.read_text() == "master"


def test_a_commit_that_no_branch_names_is_none(shop: Shop) -> None:
    shop.git("checkout", "-q", "--detach")
    shop.git("branch", "-q", "-D", "main")
    for _ in range(2):
        with pytest.raises(UsageError, match="no branch `main`, and none is checked out") as caught:
            shop.edit({})
        shop.git("branch", "-f", "other")
    typed(shop, caught.value.hint)
    shop.edit({})


@pytest.mark.parametrize("name", ["caf\u00e9", "a\u00a0b", "a\u2028b", "a|b", "-x", "a\x85b"])
def test_it_may_have_any_name(shop: Shop, name: str) -> None:
    shop.git("update-ref", f"refs/heads/{name}", "main")
    shop.git("symbolic-ref", "HEAD", f"refs/heads/{name}")
    shop.git("update-ref", "-d", "refs/heads/main")
    shop.edit({})
    shop.git("pack-refs", "--all")
    assert shop.program.main().branch == name
    assert shop.program.main().commit == shop.main


def test_what_to_type_never_merges_into_another_branch(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    shop.save("mine", {"x": "1"})
    shop.git("checkout", "-q", "-b", "feature")
    feature = shop.git("rev-parse", "HEAD")
    with pytest.raises(Conflict) as caught:
        shop.promote()
    typed(shop, caught.value.hint.replace("main`", "main --no-edit`"))
    assert shop.git("rev-parse", "feature") == feature
    assert candidate.edit(shop.program, new=True).note.startswith("took in")
    pull = ["git", "-C", str(shop.checkout), "pull", "--no-rebase", str(shop.layout.repo), "main"]
    assert shop.program.pull == shlex.join(pull)


def test_one_that_was_begun_anew_is_told_with_what_brings_both_together(shop: Shop) -> None:
    shop.edit({})
    (shop.checkout / "x").write_text("1")
    shop.git("add", "x")
    shop.git("commit", "-q", "--amend", "-m", "begin again")
    with pytest.raises(Conflict, match="no commit in common") as caught:
        shop.edit({}, new=True)
    typed(shop, caught.value.hint.replace("histories`", "histories --no-edit`"))
    assert candidate.edit(shop.program, new=True).note.startswith("took in")
    assert shop.files() == {"menu.txt": "tea\n", "x": "1"}


# -- what is taken in


def test_a_partial_clone_is_named(shop: Shop, tmp_path: Path) -> None:
    shop.save("two", {"menu.txt": "coffee\n"})
    shop.git("config", "uploadpack.allowFilter", "true")
    words = ("clone", "-q", "--filter=blob:none", f"file://{shop.checkout}", str(tmp_path / "partial"))
    shop.git(*words)
    found = program.find(tmp_path / "partial", shop.env)
    with pytest.raises(EnvironmentProblem, match="partial clone") as caught:
        candidate.edit(found)
    typed(shop, caught.value.hint)
    candidate.edit(found)


AUTHOR = b"author A <a@b> 5 +0000"
OLD = (
    (AUTHOR, b"author A <a@b> 5 +051800"),
    (AUTHOR, b"author A <a@b>5 +0000"),
    (AUTHOR, b"author A<a@b> 5 +0000"),
    (AUTHOR, b"author A a@b 5 +0000"),
    (AUTHOR, b"author <a@b> 5 +0000"),
    (AUTHOR, b"author A <a@b> 05 +0000"),
    (AUTHOR, b"author A <a@b> never +0000"),
    (AUTHOR, b"author A <a@b> 99999999999999999999 +0000"),
    (AUTHOR, AUTHOR + b"\n" + AUTHOR),
    (b"old", b"o\0ld"),
)


@pytest.mark.parametrize("was", OLD, ids=range(len(OLD)))
def test_old_commits_are_taken_in_with_what_is_odd_about_them(shop: Shop, was: tuple[bytes, bytes]) -> None:
    tree, parent = shop.git("rev-parse", "main^{tree}"), shop.git("rev-parse", "main")
    raw = f"tree {tree}\nparent {parent}\n".encode() + AUTHOR + b"\ncommitter A <a@b> 5 +0000\n\nold\n"
    shop.git("update-ref", "refs/heads/main", shop.literally("commit", raw.replace(*was)))
    shop.change({"a": "1"})
    shop.promote()
    assert recover(shop.program, idle) == ()
    shop.rollback()


def test_a_committer_who_never_was_at_any_time_is_taken_in_too(shop: Shop) -> None:
    tree = shop.git("rev-parse", "main^{tree}")
    raw = f"tree {tree}\n".encode() + AUTHOR + b"\ncommitter A <a@b> never +0000\n\nold\n"
    shop.git("update-ref", "refs/heads/main", shop.literally("commit", raw))
    shop.change({"a": "1"})
    shop.promote()
    assert [entry.number for entry in shop.history.entries] == [1]


def test_old_trees_are_taken_in(shop: Shop) -> None:
    blob, inner = shop.git("rev-parse", "main:org.toml"), shop.git("rev-parse", "main^{tree}")
    raw = b"040000 inner\0" + bytes.fromhex(inner) + b"100644 org.toml\0" + bytes.fromhex(blob)
    tree = shop.literally("tree", raw)
    shop.git("update-ref", "refs/heads/main", shop.git("commit-tree", tree, "-m", "old"))
    shop.change({"a": "1"})
    shop.promote()
    assert recover(shop.program, idle) == ()


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        (b".git", b"40000", "hasDotgit"),
        (b".GIT", b"40000", "hasDotgit"),
        (b"..", b"40000", "hasDotdot"),
        (b".gitmodules", b"120000", "gitmodulesSymlink"),
        (b"a/b", b"40000", "fullPathname"),
    ],
)
def test_a_tree_that_git_would_trip_over_is_not_taken_in(
    shop: Shop, name: bytes, mode: bytes, said: str
) -> None:
    blob = shop.git("hash-object", "-w", "--stdin", input="x")
    inner = shop.git("mktree", input=f"100644 blob {blob}\tconfig\n") if mode == b"40000" else blob
    raw = mode + b" " + name + b"\0" + bytes.fromhex(inner) + b"100644 org.toml\0" + bytes.fromhex(blob)
    tree = shop.literally("tree", raw)
    shop.git("update-ref", "refs/heads/main", shop.git("commit-tree", tree, "-m", "bad"))
    with pytest.raises(EnvironmentProblem, match=said):
        shop.edit({})


# -- where it has gone


def test_one_that_is_gone_is_named(shop: Shop) -> None:
    shop.edit({})
    here = shop.program
    os.rename(shop.checkout / ".git", shop.checkout / "gone")
    with pytest.raises(EnvironmentProblem, match=f"your repository is gone: {shop.checkout}"):
        candidate.edit(here)


def test_one_that_was_moved_is_told_where_what_is_kept_lies(shop: Shop, tmp_path: Path) -> None:
    shop.change({"a": "1"})
    promoted = shop.promote().entry
    shop.checkout = shop.checkout.rename(tmp_path / "moved here")
    for verb in (["candidate", "edit"], ["history"]):
        done = shop.org(*verb)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{shop.checkout} was {tmp_path}/shop before" in done.stderr
    typed(shop, done.stderr)
    assert shop.history.entries == (promoted,)
    shop.git("fetch", "-q", "org")
    shop.rollback()


def test_a_copy_is_a_program_of_its_own(shop: Shop, tmp_path: Path) -> None:
    shop.edit({})
    shutil.copytree(shop.checkout, tmp_path / "copy")
    assert "of its own" in candidate.edit(program.find(tmp_path / "copy", shop.env)).note
