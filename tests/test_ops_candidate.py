"""The candidate: its branch, its folder, and how what is in there becomes a commit."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from command import ORG, Terminal
from ops_kit import Shop, idle, put
from org.errors import Busy, Conflict, EnvironmentProblem, OrgError, UsageError
from org.ops import candidate, user, workfolder
from org.ops.candidate import Opened
from org.ops.recover import recover


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def git(folder: Path, *words: str) -> str:
    """As somebody runs it who works in the folder."""
    return subprocess.run(
        ["git", "-c", "user.name=Bob", "-c", "user.email=b@example.org", *words],
        cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


# -- edit


def test_it_begins_on_main_and_is_found_again(shop: Shop) -> None:
    first = candidate.edit(shop.program)
    assert first.branch.startswith("cand/")
    assert shop.refs.branch(first.branch).commit == shop.main
    assert (first.folder / "menu.txt").read_text() == "tea\n"
    put(first.folder, {"menu.txt": "coffee\n"})
    again = candidate.edit(shop.program)
    assert (again.branch, again.folder) == (first.branch, first.folder)
    assert (again.folder / "menu.txt").read_text() == "coffee\n"


def test_the_folder_is_a_clone_of_its_own(shop: Shop) -> None:
    opened = candidate.edit(shop.program)
    assert git(opened.folder, "status", "--porcelain") == ""
    assert git(opened.folder, "branch", "--show-current") == opened.branch
    assert not (opened.folder / ".git/objects/info/alternates").exists()
    assert not list((opened.folder / ".git").glob("hooks/*"))
    ours = {path.stat().st_ino for path in (shop.layout.repo / "objects").rglob("*") if path.is_file()}
    theirs = {path.stat().st_ino for path in (opened.folder / ".git/objects").rglob("*") if path.is_file()}
    assert theirs and not ours & theirs


def test_after_a_promote_a_new_one_begins(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    shop.promote()
    opened = candidate.edit(shop.program)
    assert opened.branch != branch
    assert shop.refs.branch(opened.branch).commit == shop.main
    assert (opened.folder / "a").read_text() == "1"
    assert candidate.edit(shop.program).branch == opened.branch


def test_after_a_rollback_it_is_the_same_again(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    shop.promote()
    shop.rollback()
    assert candidate.edit(shop.program).branch == branch


def test_what_is_not_committed_is_never_lost(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    put(shop.layout.candidate, {"b": "2"})
    shop.promote()
    assert candidate.edit(shop.program).branch == branch
    with pytest.raises(UsageError, match="not committed"):
        candidate.edit(shop.program, new=True)
    assert (shop.layout.candidate / "b").read_text() == "2"
    shop.change({})
    shop.promote()
    assert shop.files() == {"menu.txt": "tea\n", "a": "1", "b": "2"}


def test_one_that_was_never_worked_on_begins_again_on_a_main_that_moved(shop: Shop) -> None:
    shop.edit({})
    shop.save("mine", {"x": "1"})
    opened = candidate.edit(shop.program)
    assert (opened.folder / "x").read_text() == "1"
    assert shop.refs.branch(opened.branch).commit == shop.main


def test_another_can_be_begun_and_the_first_still_promoted(shop: Shop) -> None:
    first = shop.change({"a": "1"})
    second = candidate.edit(shop.program, new=True)
    assert second.branch != first
    assert not (second.folder / "a").exists()
    shop.promote(first)
    assert shop.files() == {"menu.txt": "tea\n", "a": "1"}


def test_an_earlier_one_can_be_gone_on_with(shop: Shop) -> None:
    first = shop.change({"a": "1"})
    second = shop.change({"b": "2"}, new=True)
    put(shop.layout.candidate, {"b": "3"})
    with pytest.raises(UsageError, match="not committed"):
        candidate.edit(shop.program, first)
    with pytest.raises(UsageError, match="no such candidate"):
        candidate.edit(shop.program, "cand/20000101-000000")
    assert (shop.layout.candidate / "b").read_text() == "3"
    assert candidate.edit(shop.program, second).branch == second
    shop.change({})
    opened = candidate.edit(shop.program, first)
    assert (opened.branch, (opened.folder / "a").read_text()) == (first, "1")
    assert not (opened.folder / "b").exists()
    assert candidate.edit(shop.program).branch == first


def test_a_folder_that_is_gone_is_made_again(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    subprocess.run(["rm", "-rf", str(shop.layout.candidate)], check=True)
    opened = candidate.edit(shop.program)
    assert (opened.branch, (opened.folder / "a").read_text()) == (branch, "1")


# -- nothing that was done in the folder is lost


def damage_state(shop: Shop) -> None:
    shop.layout.candidate_state.write_text("{")
    with pytest.raises(EnvironmentProblem, match="is not what org wrote"):
        candidate.edit(shop.program)
    shop.layout.candidate_state.unlink()  # as the hint says


def lose_branch(shop: Shop) -> None:
    shop.repo.run("update-ref", "-d", f"refs/heads/{candidate.branch_of(shop.program)}")


def lose_repository(shop: Shop) -> None:
    subprocess.run(["rm", "-rf", str(shop.layout.repo)], check=True)


@pytest.mark.parametrize("damage", [damage_state, lose_branch, lose_repository])
@pytest.mark.parametrize("committed", [True, False])
def test_when_what_is_known_of_it_is_lost(
    shop: Shop, damage: Callable[[Shop], None], committed: bool
) -> None:
    folder = shop.edit({"new.py": "hours of work"})
    branch = candidate.branch_of(shop.program)
    if committed:
        candidate.commit(shop.program, "work", shop.env)
    damage(shop)
    opened = candidate.edit(shop.program)
    if committed and damage is damage_state:  # then it is on its branch
        assert opened.beside == ()
        assert shop.files(f"refs/heads/{branch}")["new.py"] == "hours of work"
        return
    assert opened.beside == (folder.with_name("candidate-1"),)
    assert (opened.beside[0] / "new.py").read_text() == "hours of work"
    assert not (opened.folder / "new.py").exists()
    said = shop.org("candidate", "edit")
    assert f"remove what nobody needs: {opened.beside[0]}" in said.stderr


@pytest.mark.parametrize("step", ["set_aside", "clone", "let_go"])
@pytest.mark.parametrize("after", [False, True])
def test_when_it_is_killed_while_another_takes_its_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    act = getattr(workfolder, step)

    def killed(*words: object) -> None:
        if after:
            act(*words)
        raise KeyboardInterrupt

    shop.save("ignore", {".gitignore": ".env\n"})
    branch = shop.change({"a": "1"})
    put(shop.layout.candidate, {".env": "SECRET=1"})
    shop.promote()
    with monkeypatch.context() as patch:
        patch.setattr(workfolder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            candidate.edit(shop.program)
    recover(shop.program, idle)
    opened = candidate.edit(shop.program)
    assert opened.branch != branch
    assert (opened.folder / "a").read_text() == "1"
    kept = [folder / ".env" for folder in (opened.folder, *opened.beside)]
    assert [path.read_text() for path in kept if path.exists()] == ["SECRET=1"]


def test_what_git_ignores_goes_along_to_the_next(shop: Shop) -> None:
    shop.save("ignore", {".gitignore": ".env\ndata/\n*.pyc\n", "src/it.py": "1"})
    folder = shop.edit({".env": "SECRET=1", "data/deep/big": "1", "src/it.pyc": "x", "old/odd.pyc": "y"})
    (folder / "src/link.pyc").symlink_to("/etc/passwd")
    shop.change({"src/it.py": "2"})
    shop.promote()
    opened = candidate.edit(shop.program)
    assert opened.beside == ()
    there = {
        name: (folder / name).read_text() for name in (".env", "data/deep/big", "src/it.pyc", "old/odd.pyc")
    }
    assert there == {".env": "SECRET=1", "data/deep/big": "1", "src/it.pyc": "x", "old/odd.pyc": "y"}
    assert os.readlink(folder / "src/link.pyc") == "/etc/passwd"
    assert (folder / "src/it.py").read_text() == "2"


def test_what_git_ignores_and_has_no_place_any_more_stays_beside(shop: Shop) -> None:
    shop.save("ignore", {".gitignore": "*.env\n"})
    shop.change({"a": "1"})
    put(shop.layout.candidate, {"my.env": "mine", "conf/my.env": "mine too", "ok.env": "fine"})
    shop.save("theirs", {".gitignore": "", "my.env": "theirs"})
    (shop.checkout / "conf").symlink_to("/etc")
    shop.git("add", "-A")
    shop.git("commit", "-q", "-m", "link")
    opened = candidate.edit(shop.program, new=True)
    (beside,) = opened.beside
    assert (opened.folder / "my.env").read_text() == "theirs"
    assert (opened.folder / "ok.env").read_text() == "fine"
    assert (beside / "my.env").read_text() == "mine"
    assert (beside / "conf/my.env").read_text() == "mine too"


@pytest.mark.parametrize("words", [["branch", "idea"], ["stash", "-q"], ["checkout", "-q", "--detach"], []])
def test_commits_of_the_folders_own_stay_beside(shop: Shop, words: list[str]) -> None:
    folder = shop.edit({"a": "1"})
    candidate.commit(shop.program, "x", shop.env)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "by hand, with a long story")
    git(folder, *(words or ["pack-refs", "--all"]))
    shop.promote()
    opened = candidate.edit(shop.program)
    (beside,) = opened.beside
    assert "by hand" in git(beside, "log", "--all", "--format=%s")
    assert candidate.edit(shop.program) == Opened(opened.branch, folder, "", (beside,))
    subprocess.run(["rm", "-rf", str(beside)], check=True)
    assert candidate.edit(shop.program).beside == ()


def test_a_folder_of_which_all_is_kept_is_not(shop: Shop) -> None:
    shop.change({"a": "1"})
    git(shop.layout.candidate, "status")
    git(shop.layout.candidate, "fetch", "-q", "org")
    shop.promote()
    assert candidate.edit(shop.program).beside == ()
    assert not list(shop.layout.root.glob("candidate-*"))


@pytest.mark.parametrize("made", ["file", "link", "dangling"])
def test_what_is_no_folder_makes_room(shop: Shop, tmp_path: Path, made: str) -> None:
    branch = shop.change({"a": "1"})
    folder = shop.layout.candidate
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    put(tmp_path / "other", {"theirs": "1"})
    if made == "file":
        folder.write_text("hi")
    else:
        folder.symlink_to(tmp_path / ("other" if made == "link" else "nowhere"))
    opened = candidate.edit(shop.program)
    assert (opened.branch, (folder / "a").read_text(), folder.is_symlink()) == (branch, "1", False)
    assert [os.path.lexists(path) for path in opened.beside] == [True]
    assert (tmp_path / "other/theirs").read_text() == "1"


def test_a_hostile_git_folder_is_not_followed(shop: Shop, tmp_path: Path) -> None:
    folder = shop.edit({})
    shop.change({"a": "1"})
    shop.promote()
    subprocess.run(["rm", "-rf", str(folder / ".git/refs")], check=True)
    (folder / ".git/refs").symlink_to("/")
    opened = candidate.edit(shop.program)
    assert [path.name for path in opened.beside] == ["candidate-1"]


# -- main is brought in


def test_a_conflict_has_a_way_out(shop: Shop) -> None:
    branch = shop.change({"menu.txt": "cocoa\n", "b": "1"})
    shop.save("coffee", {"menu.txt": "coffee\n", "c": "1"})
    done = shop.org("promote")
    assert done.returncode == 4
    assert f"main and {branch} do not go together: menu.txt\n" in done.stderr
    said = shop.org("candidate", "update", "--json")
    told = json.loads(said.stdout)
    assert (said.returncode, told["reason"], told["files"], told["main"]) == (
        0,
        "updated",
        ["menu.txt"],
        shop.main,
    )
    folder = shop.layout.candidate
    assert (folder / "menu.txt").read_text() == (f"<<<<<<< {branch}\ncocoa\n=======\ncoffee\n>>>>>>> main\n")
    assert ((folder / "b").read_text(), (folder / "c").read_text()) == ("1", "1")
    with pytest.raises(Conflict):
        shop.promote()
    put(folder, {"menu.txt": "coffee\ncocoa\n"})
    before = shop.refs.branch(branch).commit
    _, commit = candidate.commit(shop.program, "both", shop.env)
    assert shop.refs.branch(branch).parents == (before, shop.main)
    with pytest.raises(OrgError, match="has all of main already"):
        candidate.update(shop.program)
    shop.promote()
    both = {"menu.txt": "coffee\ncocoa\n", "b": "1", "c": "1"}
    assert shop.files() == both
    shop.rollback()
    assert shop.files() == {"menu.txt": "coffee\n", "c": "1"}
    assert "+cocoa" in candidate.diff(shop.program)
    shop.promote()
    assert shop.files() == both
    assert shop.refs.branch(branch).commit == commit


def test_the_hint_of_a_conflict_is_the_way_out(shop: Shop) -> None:
    first = shop.change({"menu.txt": "cocoa\n"})
    second = shop.change({"menu.txt": "coffee\n"}, new=True)
    shop.promote(second)
    with pytest.raises(Conflict) as caught:
        shop.promote(first)
    commands = [words for words in caught.value.hint.split("`") if words.startswith("org ")]
    assert commands[:2] == [f"org candidate edit {first}", "org candidate update"]
    for command in commands[:2]:
        assert shop.org(*command.split()[1:]).returncode == 0
    put(shop.layout.candidate, {"menu.txt": "cocoa, coffee\n"})
    assert shop.org(*commands[2].split()[1:], "-m", "both").returncode == 0
    shop.promote(first)
    assert shop.files() == {"menu.txt": "cocoa, coffee\n"}


def test_what_fits_is_kept_by_a_commit_too(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    shop.save("theirs", {"c": "1"})
    updated = candidate.update(shop.program)
    assert (updated.files, updated.note) == ((), "took in 1 commit of yours")
    assert (updated.folder / "c").read_text() == "1"
    assert "c/c" not in candidate.diff(shop.program)  # that is main's
    candidate.commit(shop.program, "with theirs", shop.env)
    assert shop.main in shop.refs.branch(branch).parents
    assert "b/a" in candidate.diff(shop.program)


def test_what_was_rolled_back_is_not_lost_by_an_update(shop: Shop) -> None:
    shop.change({"menu.txt": "cocoa\n", "b": "1"})
    shop.promote()
    shop.rollback()
    shop.git("pull", "-q", str(shop.layout.repo), "main")
    shop.save("theirs", {"c": "1"})
    candidate.update(shop.program)
    assert (shop.layout.candidate / "menu.txt").read_text() == "cocoa\n"
    candidate.commit(shop.program, "again", shop.env)
    shop.promote()
    assert shop.files() == {"menu.txt": "cocoa\n", "b": "1", "c": "1"}


def test_an_update_comes_after_a_commit(shop: Shop) -> None:
    folder = shop.edit({"a": "1"})
    shop.save("theirs", {"c": "1"})
    with pytest.raises(UsageError, match="not committed"):
        candidate.update(shop.program)
    assert not (folder / "c").exists()


def test_main_is_not_said_to_be_in_a_folder_that_was_made_again(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    shop.save("theirs", {"c": "1"})
    candidate.update(shop.program)
    subprocess.run(["rm", "-rf", str(shop.layout.candidate)], check=True)
    folder = shop.edit({"a": "2"})
    assert not (folder / "c").exists()
    candidate.commit(shop.program, "x", shop.env)
    assert len(shop.refs.branch(branch).parents) == 1
    shop.promote()
    assert shop.files() == {"menu.txt": "tea\n", "a": "2", "c": "1"}


@pytest.mark.parametrize("mine", ["my.env", "my.env/deep", "conf"])
def test_what_git_ignores_is_in_the_way_of_main(shop: Shop, mine: str) -> None:
    shop.save("ignore", {".gitignore": "my.env\nconf\n"})
    shop.change({"a": "1"})
    put(shop.layout.candidate, {mine: "mine"})
    shop.save("theirs", {".gitignore": "", "my.env": "theirs", "conf/it": "theirs"})
    with pytest.raises(UsageError, match=f"{mine} is in the way"):
        candidate.update(shop.program)
    assert (shop.layout.candidate / mine).read_text() == "mine"
    (shop.layout.candidate / mine).rename(shop.layout.root / "moved")
    assert candidate.update(shop.program).files == ()


def test_a_folder_in_place_of_a_file_comes_in(shop: Shop) -> None:
    shop.save("more", {"deep/a": "1", "flat": "1"})
    shop.change({"b": "1"})
    for name in ("deep/a", "flat"):
        (shop.checkout / name).unlink()
    (shop.checkout / "deep").rmdir()
    shop.save("other", {"deep": "2", "flat/a": "2"})
    candidate.update(shop.program)
    candidate.commit(shop.program, "x", shop.env)
    shop.promote()
    assert shop.files() == {"menu.txt": "tea\n", "b": "1", "deep": "2", "flat/a": "2"}


# -- commit


@pytest.mark.parametrize("message", ["", "  \n"])
def test_a_commit_needs_words(shop: Shop, message: str) -> None:
    shop.edit({"a": "1"})
    with pytest.raises(UsageError, match="needs words"):
        candidate.commit(shop.program, message, shop.env)


def test_a_diff_is_of_what_a_promote_brings_back(shop: Shop) -> None:
    shop.change({"a": "1"})
    before = candidate.diff(shop.program)
    shop.promote()
    assert candidate.diff(shop.program) == ""
    shop.rollback()
    assert candidate.diff(shop.program) == before


def test_who_promotes_is_told_what_is_not_committed(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    assert candidate.uncommitted(shop.program, "") == ""
    put(shop.layout.candidate, {"b": "2"})
    shop.gate()
    said = shop.org("promote")
    assert said.returncode == 0
    assert "what is not committed in the candidate's folder is not part of it" in said.stderr
    assert candidate.uncommitted(shop.program, "cand/20000101-000000") == ""
    subprocess.run(["git", "init", "-q", str(shop.layout.candidate / "inner")], check=True)
    assert "inner/ is a Git repository of its own" in candidate.uncommitted(shop.program, branch)
    shop.layout.candidate_state.write_text("{")
    assert "is not what org wrote" in candidate.uncommitted(shop.program, branch)
    shop.layout.candidate_state.unlink()
    assert candidate.uncommitted(shop.program, branch) == ""


def test_a_commit_is_of_all_files_and_by_the_user(shop: Shop) -> None:
    folder = shop.edit({"a": "1", "deep/er/b": "2", ".gitignore": "*.log\n", "x.log": "noise"})
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "menu.txt").unlink()
    branch, commit = candidate.commit(shop.program, "Breakfast\n\nand lunch", shop.env)
    assert set(shop.files(commit)) == {"a", "deep/er/b", ".gitignore", "run", "link"}
    assert shop.files(commit)["link"] == "/etc/passwd"
    assert shop.repo.run("ls-tree", commit, "run").startswith("100755")
    who = shop.repo.run("log", "-1", "--format=%an <%ae>, %cn: %B", branch)
    assert who == "Ada <ada@example.org>, org: Breakfast\n\nand lunch"


def test_an_author_is_who_the_environment_says(shop: Shop) -> None:
    eve = {"GIT_AUTHOR_NAME": "Eve", "GIT_AUTHOR_EMAIL": "eve@example.org"}
    assert user.author(shop.env | eve).items() >= eve.items()
    ada = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org"}
    assert user.author(shop.env | {"GIT_AUTHOR_NAME": " "}).items() >= ada.items()


def test_an_author_who_has_no_name_is_org(shop: Shop, tmp_path: Path) -> None:
    """But never the committer that tells of promotes."""
    named = {"GIT_COMMITTER_EMAIL": "candidate@localhost"}
    assert user.author({"PATH": os.environ["PATH"], "HOME": str(tmp_path)}) == named


def test_a_folder_in_place_of_a_file_and_the_other_way_round(shop: Shop) -> None:
    folder = shop.edit({"deep/a": "1"})
    candidate.commit(shop.program, "one", shop.env)
    (folder / "menu.txt").unlink()
    (folder / "deep/a").unlink()
    (folder / "deep").rmdir()
    put(folder, {"menu.txt/inner": "1", "deep": "now a file"})
    _, commit = candidate.commit(shop.program, "two", shop.env)
    assert shop.files(commit) == {"menu.txt/inner": "1", "deep": "now a file"}


def test_a_file_that_is_ignored_but_known_is_kept(shop: Shop) -> None:
    shop.save("mine", {".gitignore": "*.log\n"})
    (shop.checkout / "kept.log").write_text("1")
    shop.git("add", "-f", "kept.log")
    shop.git("commit", "-q", "-m", "log")
    shop.edit({"kept.log": "2", "other.log": "1"})
    _, commit = candidate.commit(shop.program, "x", shop.env)
    assert shop.files(commit)["kept.log"] == "2"
    assert "other.log" not in shop.files(commit)


def test_a_submodule_stays_what_it_is(shop: Shop) -> None:
    shop.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor")
    shop.git("commit", "-q", "-m", "module")
    shop.edit({"a": "1"})
    _, commit = candidate.commit(shop.program, "x", shop.env)
    assert "160000 commit " + "1" * 40 in shop.repo.run("ls-tree", commit)


def test_what_is_no_file_is_left_out(shop: Shop) -> None:
    folder = shop.edit({"a": "1"})
    os.mkfifo(folder / "pipe")
    (folder / "menu.txt").unlink()
    os.mkfifo(folder / "menu.txt")
    _, commit = candidate.commit(shop.program, "x", shop.env)
    assert shop.files(commit) == {"a": "1"}


def test_no_change_is_no_commit(shop: Shop) -> None:
    shop.edit({})
    with pytest.raises(OrgError, match="no file has changed"):
        candidate.commit(shop.program, "x", shop.env)


def test_what_was_committed_in_the_folder_itself_counts_by_its_files(shop: Shop) -> None:
    folder = shop.edit({"a": "1"})
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "by hand")
    branch, commit = candidate.commit(shop.program, "kept", shop.env)
    assert shop.files(commit) == {"menu.txt": "tea\n", "a": "1"}
    assert shop.refs.branch(branch).parents == (shop.main,)


def test_a_folder_without_its_git_is_as_good(shop: Shop) -> None:
    folder = shop.edit({"a": "1"})
    subprocess.run(["rm", "-rf", str(folder / ".git")], check=True)
    _, commit = candidate.commit(shop.program, "x", shop.env)
    assert shop.files(commit) == {"menu.txt": "tea\n", "a": "1"}
    assert "+2" in shop_diff_after(shop, "2")


def shop_diff_after(shop: Shop, text: str) -> str:
    put(shop.layout.candidate, {"a": text})
    return candidate.diff(shop.program)


def test_a_link_in_place_of_the_folder_is_not_followed(shop: Shop, tmp_path: Path) -> None:
    folder = shop.edit({})
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is gone"):
        candidate.commit(shop.program, "x", shop.env)


def test_links_inside_are_not_followed(shop: Shop, tmp_path: Path) -> None:
    put(tmp_path / "secret", {"key": "s3cret"})
    folder = shop.edit({"deep/key": "mine"})
    candidate.commit(shop.program, "one", shop.env)
    (folder / "deep/key").unlink()
    (folder / "deep").rmdir()
    (folder / "deep").symlink_to(tmp_path / "secret")
    _, commit = candidate.commit(shop.program, "two", shop.env)
    assert shop.files(commit)["deep"] == str(tmp_path / "secret")
    assert "s3cret" not in str(shop.files(commit))


def test_a_diff_leaves_nothing_behind(shop: Shop) -> None:
    shop.edit({"a": "1"})
    before = shop.repo.run("count-objects", "-v")
    assert candidate.diff(shop.program).endswith("+1\n\\ No newline at end of file\n")
    assert shop.repo.run("count-objects", "-v") == before
    assert not list(shop.layout.root.glob(".[a-z]*"))


def test_a_diff_is_of_what_was_done_and_not_of_what_main_did(shop: Shop) -> None:
    branch = shop.change({"a": "1"})
    other = shop.change({"b": "1"}, new=True)
    shop.promote(branch)
    patch = candidate.diff(shop.program)
    assert "b/b" in patch and "a/a" not in patch
    assert other != branch


def test_folders_may_be_called_anything(tmp_path: Path) -> None:
    shop = Shop(tmp_path / 'a:b "c\\d')
    branch = shop.change({"a": "1"})
    assert "+1" in candidate.diff(shop.program)
    shop.promote(branch)
    assert shop.files() == {"menu.txt": "tea\n", "a": "1"}


# -- as commands


def test_the_way_of_a_candidate(shop: Shop) -> None:
    opened = shop.org("candidate", "edit")
    folder = Path(opened.stdout.removesuffix("\n"))
    assert folder.is_dir()
    assert "new remote `org`" in opened.stderr
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    put(folder, {"menu.txt": "coffee\n"})
    diff = shop.org("candidate", "diff").stdout
    assert "-tea\n+coffee\n" in diff
    committed = json.loads(shop.org("candidate", "commit", "-m", "Coffee", "--json").stdout)
    assert committed["reason"] == "committed"
    assert shop.refs.branch(committed["branch"]).commit == committed["commit"]
    assert shop.org("candidate", "diff").stdout == diff
    assert json.loads(shop.org("candidate", "edit", "--json").stdout) == {
        "v": 1, "code": 0, "reason": "editing", "where": "host",
        "branch": committed["branch"], "folder": str(folder), "beside": [],
    }  # fmt: skip
    again = shop.org("candidate", "commit", "-m", "Coffee")
    assert (again.returncode, again.stderr) == (1, "org: no file has changed since the last commit\n")


def test_a_diff_can_be_applied(shop: Shop) -> None:
    text = "ünï\x1b[31m\r\n" * 3
    shop.edit({"menu.txt": text})
    done = subprocess.run(
        [*ORG, "candidate", "diff"], cwd=shop.checkout, env=shop.env, capture_output=True, check=True
    )
    subprocess.run(["git", "apply", "-"], cwd=shop.checkout, env=shop.env, input=done.stdout, check=True)
    assert (shop.checkout / "menu.txt").read_bytes() == text.encode()


def test_in_a_terminal_a_file_drives_nothing(shop: Shop) -> None:
    shop.edit({"menu.txt": "\x1b]0;evil\x07coffee\n"})
    with Terminal([*ORG, "candidate", "diff"], shop.env, shop.checkout) as terminal:
        assert terminal.exit_code() == 0
    assert "evil\ufffdcoffee" in terminal.raw
    assert "\x1b" not in terminal.raw


def test_two_at_once_do_not_get_in_each_others_way(shop: Shop) -> None:
    shop.edit({"a": "1"})
    with shop.program.hold("candidate commit"), pytest.raises(Busy):
        candidate.commit(shop.program, "x", shop.env)


@pytest.mark.parametrize(
    "words", [["candidate"], ["candidate", "nosuch"], ["candidate", "commit"], ["promote", "a", "b"]]
)
def test_words_that_are_off(shop: Shop, words: list[str]) -> None:
    assert shop.org(*words).returncode == 2
