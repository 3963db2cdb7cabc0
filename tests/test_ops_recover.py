"""Promotes and rollbacks that are killed: `recover` ends them in one of two states, once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops_kit import Shop, idle, passing
from org.errors import Busy, EnvironmentProblem, OrgError
from org.ops import candidate, git, lock, steps
from org.ops.layout import Layout
from org.ops.promote import promote
from org.ops.recover import recover
from org.ops.rollback import rollback

KILLS = int(os.environ.get("ORG_TEST_KILLS", "12"))
"""How often each verb is killed at a random instant."""
POINTS = [point for name in steps.NAMES for point in (name, f"{name}:after")]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path, {f"folder-{number}/file": f"{number}\n" for number in range(30)})
    made.change({"a": "1", "folder-3/file": "three\n"})
    return made


def swaps_well(layout: Layout, commit: str, folder: Path) -> bool:
    assert (folder / "org.toml").is_file()
    return True


def in_a_child(act: Callable[[], object], *, fault: str = "", kill_after: float | None = None) -> int:
    """Do it in a process of its own, which may be killed; gives the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.environ["ORG_FAULT"] = fault
        act()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)  # what is tested is an instant that nobody chose
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def verify(shop: Shop, before: str, kind: str) -> bool:
    """Recover, and look at everything; whether main has moved."""
    recover(shop.program, swaps_well)
    main = shop.refs.main
    files = shop.files()
    assert files.get("a") == ("1" if (kind == "promote") is (main.commit != before) else None)
    assert files["folder-3/file"] == ("three\n" if "a" in files else "3\n")
    if main.commit != before:
        assert shop.history.entries[-1].commit == main.commit
        assert (shop.layout.worktree(main.commit) / "org.toml").is_file()
    tags = {name for name in shop.refs.by_name if name.startswith("refs/tags/")}
    assert len(tags) == len(shop.history.entries)
    assert recover(shop.program, swaps_well) == ()
    assert not shop.layout.pending.exists()
    assert shop.program.locks() == []
    assert [path.name for path in shop.layout.root.iterdir() if path.name.startswith(".")] == []
    said = shop.repo.run("fsck", "--strict", "--no-dangling", "--no-progress")
    assert said == ""
    return main.commit != before


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_step(shop: Shop, point: str) -> None:
    shop.gate()
    moved = POINTS.index(point) > POINTS.index("cas")
    here = shop.program
    before = shop.main
    assert in_a_child(lambda: promote(here, "", passing, swaps_well), fault=point) == signal.SIGKILL
    assert verify(shop, before, "promote") is moved
    if not moved:
        promote(here, "", passing, swaps_well)
    before = shop.main
    assert in_a_child(lambda: rollback(here, swaps_well), fault=point) == signal.SIGKILL
    assert verify(shop, before, "rollback") is moved


@pytest.mark.parametrize("point", [*steps.NAMES, "cas:after"])
def test_what_follows_a_kill_needs_no_recover(shop: Shop, point: str) -> None:
    """A promote or a rollback puts things right on its way."""
    shop.gate()
    here = shop.program
    in_a_child(lambda: promote(here, "", passing, swaps_well), fault=point)
    if not shop.history.standing:
        promote(here, "", passing, swaps_well)
    rollback(here, swaps_well)
    assert "a" not in shop.files()
    assert recover(here, swaps_well) == ()


def test_the_command_itself_is_killed_at_a_step(shop: Shop) -> None:
    gate = shop.gate()
    done = shop.org("promote", ORG_FAULT="cas:after")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert shop.main == gate.merge
    first, second = shop.org("recover"), shop.org("recover")
    assert first.stdout == "a promote was interrupted after it moved main: it is finished\n"
    assert (second.returncode, second.stdout) == (0, "nothing to recover\n")
    assert shop.org("recover", "--json").stdout == (
        '{"v": 1, "code": 0, "reason": "nothing-to-do", "where": "host", "done": []}\n'
    )


def test_killed_at_any_instant(shop: Shop) -> None:
    chance = random.Random(7)
    here = shop.program
    moves = dict.fromkeys(("promote", "rollback"), 0)
    began = time.monotonic()
    shop.gate()
    promote(here, "", passing, swaps_well)
    takes = time.monotonic() - began
    for number in range(2 * KILLS):
        kind = "rollback" if shop.history.standing else "promote"
        if number % 2 and kind == "promote":  # half of them find the gate made, and are all at moving main
            shop.gate()
        before = shop.main
        act = {
            "promote": lambda: promote(here, "", passing, swaps_well),
            "rollback": lambda: rollback(here, swaps_well),
        }[kind]
        in_a_child(act, kill_after=chance.uniform(0, takes))
        moves[kind] += verify(shop, before, kind)
    assert 0 < sum(moves.values()) < 2 * KILLS


def test_a_candidate_that_is_killed_while_it_is_begun_or_committed(shop: Shop) -> None:
    chance = random.Random(3)
    here = shop.program
    for number in range(KILLS):
        branch = candidate.branch_of(here)
        began = time.monotonic()
        shop.change({"b": f"{number}"})
        shop.promote()
        takes = time.monotonic() - began
        in_a_child(lambda: shop.change({"b": "killed"}), kill_after=chance.uniform(0, takes))
        recover(here, swaps_well)
        assert recover(here, swaps_well) == ()
        opened = candidate.edit(here)
        assert shop.refs.branch(opened.branch)
        assert (opened.folder / "org.toml").is_file()
        if opened.branch == branch or "killed" in (opened.folder / "b").read_text():
            shop.change({"c": f"{number}"})
            shop.promote()


def test_what_is_served_follows_main_as_it_is_now(shop: Shop) -> None:
    """It went further since the kill, and that may be served already: nobody goes back to an older one."""
    shop.gate()
    here = shop.program
    in_a_child(lambda: promote(here, "", passing, swaps_well), fault="cas:after")
    shop.git("pull", "-q", "--no-rebase", str(shop.layout.repo), "main")
    newest = shop.save("mine", {"x": "1"})
    candidate.edit(here)
    served: list[str] = []

    def swap(layout: Layout, commit: str, folder: Path) -> bool:
        assert (folder / "x").read_text() == "1"
        served.append(commit)
        return True

    assert recover(here, swap) == ("a promote was interrupted after it moved main: it is finished",)
    assert served == [newest] == [shop.main]
    assert recover(here, swap) == ()


# -- what a killed one leaves


def test_locks_of_git_that_nobody_holds_are_removed(shop: Shop) -> None:
    shop.gate()
    for name in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock"):
        (shop.layout.repo / name).touch()
    assert len(recover(shop.program, idle)) == 3
    assert recover(shop.program, idle) == ()
    (shop.layout.repo / "refs/heads/main.lock").touch()
    shop.promote()


def test_a_git_command_that_outlives_its_killed_parent_is_waited_for(shop: Shop, tmp_path: Path) -> None:
    """It holds the lock of that parent, so nobody removes what it has locked meanwhile."""
    here = shop.program
    release = tmp_path / "release"
    os.mkfifo(release)

    def parent() -> None:
        with here.hold("promote") as git, release.open("rb") as never_yet:
            subprocess.Popen(["cat"], stdin=never_yet, pass_fds=(git.lock,), start_new_session=True)
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        parent()
    opened = os.open(release, os.O_WRONLY)
    os.waitpid(child, 0)
    waiting = os.fork()
    if waiting == 0:
        os.close(opened)
        recover(here, idle)
        os._exit(0)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    os.close(opened)
    assert os.waitpid(waiting, 0)[1] == 0


def test_tags_are_derived(shop: Shop) -> None:
    shop.promote()
    shop.rollback()
    tags = {name: ref for name, ref in shop.refs.by_name.items() if "tags" in name}
    objects = shop.repo.run("for-each-ref", "refs/tags")
    for name in tags:
        shop.repo.run("update-ref", "-d", name)
    shop.repo.run("update-ref", "refs/tags/promote/1", shop.main)  # points elsewhere
    shop.repo.run("update-ref", "refs/tags/promote/2", shop.main)  # of what never was
    assert len(recover(shop.program, idle)) == 3
    assert shop.repo.run("for-each-ref", "refs/tags") == objects
    assert recover(shop.program, idle) == ()


def test_a_damaged_repository_is_told(shop: Shop) -> None:
    shop.promote()
    for pack in (shop.layout.repo / "objects" / "pack").iterdir():
        pack.unlink()
    with pytest.raises(EnvironmentProblem, match="damaged"):
        recover(shop.program, idle)


@pytest.mark.parametrize("name", ["heads/main", "org/theirs/main", "org/base"])
@pytest.mark.parametrize("text", [None, "", f"{'1' * 40}\n"])
def test_a_reference_that_is_lost_is_told(shop: Shop, name: str, text: str | None) -> None:
    """By every verb, as what it is, with what to do."""
    path = shop.layout.repo / "refs" / name
    path.unlink() if text is None else path.write_text(text)
    for act in (lambda: recover(shop.program, idle), shop.rollback, shop.promote, lambda: shop.edit({})):
        with pytest.raises(EnvironmentProblem, match="the repository is damaged: ") as caught:
            act()
        assert f"move {shop.layout.root} aside" in caught.value.hint


def test_a_repository_that_was_emptied_is_told(shop: Shop) -> None:
    for entry in shop.layout.repo.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for verb in ("recover", "rollback", "status"):
        done = shop.org(verb, "--json")
        assert done.returncode == 7
        assert "the repository is damaged: " in done.stdout


def test_what_is_under_way_and_unreadable_is_told(shop: Shop) -> None:
    shop.layout.pending.write_text("{")
    with pytest.raises(EnvironmentProblem, match=r"pending\.json"):
        recover(shop.program, idle)


def test_a_swap_that_fails_is_tried_again(shop: Shop) -> None:
    def broken(layout: Layout, commit: str, folder: Path) -> bool:
        raise OrgError("it does not come up", "its last words")

    for act in (lambda: shop.promote(swap=broken), lambda: recover(shop.program, broken)):
        with pytest.raises(OrgError, match="come up") as caught:
            act()
        moved = f"main is at {shop.main[:12]} already: `org recover` goes on, `org rollback` takes it back"
        assert caught.value.hint == f"its last words\n{moved}"
    assert len(recover(shop.program, idle)) == 1
    assert shop.files()["a"] == "1"


def test_a_step_that_the_system_refuses_says_what_has_moved(shop: Shop) -> None:
    shop.promote()
    before = shop.main

    def full(layout: Layout, commit: str, folder: Path) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with pytest.raises(EnvironmentProblem, match="the disk is full") as caught:
        shop.rollback(swap=full)
    assert shop.main != before
    assert caught.value.hint.endswith(f"main is at {shop.main[:12]} already: `org recover` goes on")
    assert len(recover(shop.program, idle)) == 1


@pytest.mark.parametrize(
    ("says", "little"),
    [
        ("fatal: unable to write loose object file: No space left on device", 0),
        ("fatal: sha1 file 'index.lock' write error. Out of diskspace", 0),
        ("error: unable to write file menu.txt", 2**62),
    ],
)
def test_a_disk_that_is_full_is_told_and_nothing_has_changed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, little: int
) -> None:
    """Git says so in its own words, or only that it could not write."""
    shop.gate()
    here, before = shop.program, shop.main
    script = f"""#!/bin/sh
case "$*" in *mktag*)
    echo "{says}" >&2; exit 128;;
esac
PATH={os.environ["PATH"]}; exec git "$@"
"""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(script)
    (tmp_path / "bin" / "git").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}/bin")
        patched.setattr(git, "_LITTLE", little)
        with pytest.raises(
            EnvironmentProblem, match="the disk is full: `git mktag` could not write"
        ) as caught:
            promote(here, "", passing, idle)
    assert caught.value.hint == "make room, then `org recover`"
    assert shop.main == before
    shop.promote()


# -- the lock


def test_whoever_holds_the_lock_is_named(shop: Shop) -> None:
    with shop.program.hold("promote"):
        for act in (lambda: shop.promote(), lambda: shop.rollback(), lambda: recover(shop.program, idle)):
            with pytest.raises(Busy, match=rf"`org promote` .* process {os.getpid()}"):
                act()
        done = shop.org("rollback", "--json")
        assert done.returncode == 6
        assert '"reason": "busy"' in done.stdout
    shop.promote()


def test_whoever_has_the_file_open_still_does_not_hold_the_lock(shop: Shop) -> None:
    """As a program that was started under it has for a moment, until it is itself."""
    with shop.program.hold("promote") as git:
        still_open = os.dup(git.lock)
    with shop.program.hold("rollback"):
        os.close(still_open)


def test_a_server_does_not_inherit_the_lock(shop: Shop) -> None:
    with shop.program.hold("start"):
        server = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with lock.hold(shop.layout, "promote"):
            pass
    finally:
        server.kill()
        server.wait()
