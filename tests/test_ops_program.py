"""The program around a folder, what begins with it, and the user's commits that come in."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from ops_kit import SETTINGS, Shop, idle
from org.errors import ConfigError, Conflict, EnvironmentProblem, UsageError
from org.ops import candidate, program
from org.ops.layout import Layout, state_folder
from org.ops.recover import recover
from org.ops.refs import THEIRS


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of each file below, but for the configuration of Git."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path != folder / ".git" / "config"
    }


# -- names


def test_where_it_lies(tmp_path: Path) -> None:
    assert state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/org")
    assert state_folder({"XDG_STATE_HOME": "x", "HOME": "/h"}) == Path("/h/.local/state/org")
    one, other = (Layout.of({"HOME": "/h"}, Path(path)) for path in ("/a/shop", "/b/shop.git"))
    assert one.root.parent == other.root.parent == Path("/h/.local/state/org/programs")
    assert one.root.name.startswith("shop-") and len(one.root.name) == len("shop-") + 8
    assert one.root.name != other.root.name


@pytest.mark.parametrize(
    ("called", "begins"), [(b"a" * 250, "a" * 100 + "-"), ("ü" * 120, "ü" * 50 + "-"), (b"caf\xe9", "caf-")]
)
def test_a_name_that_is_long_or_no_text_is_cut(called: bytes | str, begins: str) -> None:
    root = Layout.of({"HOME": "/h"}, Path("/a", os.fsdecode(called))).root
    assert root.name.startswith(begins) and len(root.name) == len(begins) + 8
    assert Layout.of({"HOME": "/h"}, Path("/b", os.fsdecode(called))).root != root


def test_one_program_wherever_one_stands_in_it(shop: Shop, tmp_path: Path) -> None:
    shop.edit({})
    (shop.checkout / "deep" / "er").mkdir(parents=True)
    shop.git("worktree", "add", "-q", str(tmp_path / "beside"))
    (tmp_path / "link").symlink_to(shop.checkout)
    theirs = [tmp_path / name for name in ("shop/deep/er", "beside", "link", "shop/.git")]
    for folder in (*theirs, shop.layout.candidate, shop.layout.repo, shop.layout.root):
        assert program.find(folder, shop.env) == shop.program


def test_a_bare_repository_is_one_too(shop: Shop, tmp_path: Path) -> None:
    shop.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    found = program.find(tmp_path / "bare.git", shop.env)
    assert found.layout.root.name.startswith("bare-")
    candidate.edit(found)


def test_outside_of_any_repository(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Git repository"):
        program.find(tmp_path, {"HOME": str(tmp_path)})


def test_what_was_never_begun(shop: Shop) -> None:
    for words in (["history"], ["rollback"], ["recover"], ["candidate", "diff"], ["promote"]):
        done = shop.org(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "`org candidate edit`" in done.stderr
    assert not (shop.folder / "state").exists()


# -- begin


def test_nobody_else_can_read_it(shop: Shop) -> None:
    shop.edit({})
    assert stat.S_IMODE(shop.layout.root.stat().st_mode) == 0o700


def test_the_checkout_is_told_of_a_remote_and_otherwise_left_alone(shop: Shop) -> None:
    (shop.checkout / "menu.txt").write_text("dirty")
    (shop.checkout / "new").write_text("untracked")
    before = everything(shop.checkout)
    note = candidate.edit(shop.program).note
    assert "new remote `org`" in note
    assert candidate.edit(shop.program).note == ""
    shop.change({"a": "1"})
    shop.promote()
    shop.rollback()
    assert everything(shop.checkout) == before
    assert shop.git("remote", "get-url", "org") == str(shop.layout.repo)
    shop.git("fetch", "-q", "org")
    assert shop.git("rev-parse", "org/main") == shop.main
    assert shop.git("tag") == ""


def test_a_remote_of_that_name_is_left_alone(shop: Shop) -> None:
    shop.git("remote", "add", "org", "https://example.org/x")
    assert "of its own" in candidate.edit(shop.program).note
    assert shop.git("remote", "get-url", "org") == "https://example.org/x"


def test_one_that_was_killed_while_it_began_is_begun(shop: Shop) -> None:
    (shop.layout.root / ".repo-1" / "objects").mkdir(parents=True)
    shop.program.checkout.add_remote(shop.layout.repo)
    assert "new remote" in candidate.edit(shop.program).note
    assert not list(shop.layout.root.glob(".repo-*"))
    assert shop.git("remote", "get-url", "--all", "org") == str(shop.layout.repo)


def test_nobody_pushes_into_it(shop: Shop) -> None:
    shop.edit({})
    before = shop.main
    shop.save("mine", {"x": "1"})
    for refspec in ("main", "main:refs/heads/cand/20000101-000000", "main:refs/tags/promote/1"):
        with pytest.raises(subprocess.CalledProcessError):
            shop.git("push", str(shop.layout.repo), refspec)
    assert shop.main == before


def test_the_users_branch_may_be_named_otherwise(shop: Shop) -> None:
    shop.git("branch", "-m", "trunk")
    shop.change({"a": "1"})
    shop.promote()
    assert shop.git("rev-parse", "trunk") == shop.refs.by_name[THEIRS].commit


def test_another_branch_that_is_checked_out_does_not_matter(shop: Shop) -> None:
    main = shop.git("rev-parse", "main")
    shop.git("checkout", "-q", "-b", "feature")
    shop.save("feature", {"x": "1"})
    shop.edit({})
    assert shop.main == main


def test_an_empty_repository_has_nothing_to_begin_with(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env={"PATH": os.environ["PATH"]})
    with pytest.raises(UsageError, match="no commit yet"):
        candidate.edit(program.find(tmp_path, {"HOME": str(tmp_path)}))


@pytest.mark.parametrize(("text", "said"), [(None, "not on main"), ("[room]", "how a generation starts")])
def test_main_must_say_how_a_generation_starts(shop: Shop, text: str | None, said: str) -> None:
    shop.git("rm", "-q", "--cached", "org.toml") if text is None else shop.save("x", {"org.toml": text})
    shop.git("commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(ConfigError, match=said):
        shop.edit({})
    assert not shop.program.begun
    shop.save("y", {"org.toml": SETTINGS})
    shop.edit({})
    assert not list(shop.layout.root.glob(".repo-*"))


def test_a_shallow_repository_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.save("two", {"x": "1"})
    shop.git("clone", "-q", "--depth=1", f"file://{shop.checkout}", str(tmp_path / "shallow"))
    with pytest.raises(EnvironmentProblem, match="not all of its history") as caught:
        candidate.edit(program.find(tmp_path / "shallow", shop.env))
    assert "--unshallow" in caught.value.hint


def test_a_repository_that_borrows_its_objects_is_taken_in_whole(shop: Shop, tmp_path: Path) -> None:
    shop.git("clone", "-q", "--shared", ".", str(tmp_path / "borrowing"))
    found = program.find(tmp_path / "borrowing", shop.env)
    candidate.edit(found)
    assert not (found.layout.repo / "objects/info/alternates").exists()
    os.rename(shop.checkout, tmp_path / "gone")
    found.look().run("fsck", "--strict")


def test_damaged_history_is_not_taken_in(shop: Shop) -> None:
    blob = shop.git("hash-object", "-w", "--stdin", input="x")
    tree = shop.git(
        "mktree", "--missing", input=f"100644 blob {'1' * 40}\tgone\n100644 blob {blob}\torg.toml\n"
    )
    shop.git("update-ref", "refs/heads/main", shop.git("commit-tree", tree, "-m", "bad"))
    with pytest.raises(EnvironmentProblem, match="cannot be taken in"):
        shop.edit({})
    assert not shop.program.begun


# -- what the user commits


def test_the_users_commits_come_in(shop: Shop) -> None:
    shop.edit({})
    mine = shop.save("mine", {"x": "1"})
    assert candidate.edit(shop.program).note == "took in 1 commit of yours"
    assert shop.main == mine
    shop.change({"a": "1"})
    shop.save("more", {"x": "2"})
    shop.save("and more", {"x": "3"})
    assert shop.promote().notes == ("took in 2 commits of yours",)
    assert shop.files() == {"menu.txt": "tea\n", "x": "3", "a": "1"}


def test_a_user_who_lags_behind_changes_nothing(shop: Shop) -> None:
    shop.change({"a": "1"})
    shop.promote()
    before = shop.main
    assert candidate.edit(shop.program, new=True).note == ""
    assert shop.main == before


def test_when_the_user_merges_main_into_theirs_the_history_stays(shop: Shop) -> None:
    """Their merge has ours as its second parent: taken over as it is, it would hide every promote."""
    shop.change({"a": "1"})
    shop.promote()
    shop.save("mine", {"x": "1"})
    shop.git("pull", "-q", "--no-rebase", "--no-edit", str(shop.layout.repo), "main")
    shop.change({"b": "1"}, new=True)
    assert [entry.number for entry in shop.history.standing] == [1]
    shop.promote()
    assert shop.files() == {"menu.txt": "tea\n", "a": "1", "x": "1", "b": "1"}
    shop.git("pull", "-q", "--ff-only", str(shop.layout.repo), "main")
    shop.rollback()
    shop.rollback()
    assert shop.files() == {"menu.txt": "tea\n", "x": "1"}


def test_when_both_have_gone_further_the_user_is_told_what_to_type(shop: Shop) -> None:
    shop.change({"menu.txt": "coffee\n"})
    shop.promote()
    shop.save("mine", {"x": "1"})
    with pytest.raises(Conflict, match="each gone further") as caught:
        shop.promote()
    assert caught.value.files == ()
    command = shlex.split(caught.value.hint.split("`")[1])
    subprocess.run([*command, "--no-edit"], env=shop.env, check=True, capture_output=True)
    assert candidate.edit(shop.program, new=True).note.startswith("took in")
    assert shop.files() == {"menu.txt": "coffee\n", "x": "1"}


def test_when_both_have_gone_further_in_the_same_file_it_is_named(shop: Shop) -> None:
    shop.change({"menu.txt": "coffee\n"})
    shop.promote()
    shop.save("mine", {"menu.txt": "cocoa\n"})
    with pytest.raises(Conflict, match=r"do not fit in menu\.txt") as caught:
        shop.promote()
    assert caught.value.files == ("menu.txt",)
    done = shop.org("promote", "--json")
    assert done.returncode == 4
    assert '"files": ["menu.txt"]' in done.stdout
    shop.rollback()  # which asks nobody
    assert shop.files() == {"menu.txt": "tea\n"}


def test_the_users_main_is_found_in_whatever_way_git_keeps_it(shop: Shop) -> None:
    shop.edit({})
    mine = shop.save("mine", {"x": "1"})
    shop.git("pack-refs", "--all")
    assert shop.program.main().commit == mine
    shop.git("branch", "other")
    shop.git("symbolic-ref", "refs/heads/main", "refs/heads/other")
    assert shop.program.main().commit == mine


@pytest.mark.parametrize("text", [b"gibberish\xff", b"gitdir: /nowhere", b"\xff", b""])
def test_a_link_that_leads_nowhere_is_said(shop: Shop, text: bytes) -> None:
    folder = shop.folder / "linked"
    folder.mkdir()
    (folder / ".git").write_bytes(text)
    with pytest.raises(EnvironmentProblem, match="does not lead to a Git repository"):
        program.find(folder, shop.env)


def test_what_says_of_which_repository_it_is_can_be_made_again(shop: Shop) -> None:
    folder = shop.edit({})
    before = shop.layout.source.read_bytes()
    shop.layout.source.unlink()
    with pytest.raises(EnvironmentProblem, match="it is not known of which repository") as caught:
        program.find(folder, shop.env)
    assert "`org recover`, in that repository" in caught.value.hint
    assert recover(shop.program, idle) == ("wrote again of which repository this is",)
    assert shop.layout.source.read_bytes() == before
    assert recover(program.find(folder, shop.env), idle) == ()
