"""Git is run so that nothing a hostile repository names is ever executed: each way would leave a mark."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ops_kit import Shop, idle, put
from org.errors import EnvironmentProblem, ExitCode
from org.ops import candidate, git
from org.ops.git import Git, GitFailed
from org.ops.recover import recover


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, {"menu.txt": "tea\n", ".gitattributes": "* filter=evil merge=evil diff=evil\n"})


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A program that leaves a mark beside itself, and passes on what it is given."""
    script = tmp_path / "canary"
    script.write_text(f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/mark\ncat\n')
    script.chmod(0o755)
    return script


def marked(canary: Path) -> str:
    mark = canary.parent / "mark"
    return mark.read_text() if mark.exists() else ""


def hostile_config(canary: Path) -> str:
    """Every setting that names something to run."""
    return f"""
[core]
    hooksPath = {canary.parent}/hooks
    fsmonitor = {canary}
    sshCommand = {canary}
    editor = {canary}
    pager = {canary}
    askPass = {canary}
    gitProxy = {canary}
    alternateRefsCommand = {canary}
[filter "evil"]
    clean = {canary}
    smudge = {canary}
    process = {canary}
    required = true
[merge "evil"]
    driver = {canary}
[diff "evil"]
    textconv = {canary}
    command = {canary}
[diff]
    external = {canary}
[commit]
    gpgSign = true
[tag]
    gpgSign = true
[gpg]
    program = {canary}
[credential]
    helper = {canary}
[uploadpack]
    packObjectsHook = {canary}
[remote "origin"]
    url = ext::{canary}
    uploadpack = {canary}
    promisor = true
[remote "org"]
    url = ext::{canary}
    uploadpack = {canary}
[extensions]
    partialClone = origin
[alias]
    for-each-ref = !{canary}
[gc]
    auto = 1
"""


HOOKS = (
    *("pre-commit", "commit-msg", "post-commit", "post-checkout", "post-merge", "reference-transaction"),
    *(
        "post-rewrite",
        "pre-auto-gc",
        "post-index-change",
        "update",
        "pre-receive",
        "post-receive",
        "fsmonitor-watchman",
    ),
)


def infest(folder: Path, canary: Path) -> None:
    """Turn a Git folder against whoever runs Git there."""
    with (folder / "config").open("a") as config:
        config.write(hostile_config(canary))
    for place in (folder / "hooks", canary.parent / "hooks"):
        place.mkdir(exist_ok=True)
        for name in HOOKS:
            (place / name).unlink(missing_ok=True)
            (place / name).symlink_to(canary)
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info" / "attributes").write_text("* filter=evil merge=evil diff=evil\n")


def go_through_everything(shop: Shop) -> None:
    """Each thing that runs Git, with a merge in which both sides changed the same file."""
    ten = "".join(f"{number}\n" for number in range(10))
    first = shop.change({"menu.txt": "tea\n" + ten}, new=True)
    shop.promote(first)
    second = shop.change({"menu.txt": "coffee\n" + ten}, new=True)
    third = shop.change({"menu.txt": "tea\n" + ten + "cake\n"}, new=True)
    candidate.diff(shop.program)
    shop.promote(second)
    shop.promote(third)
    assert shop.files()["menu.txt"] == "coffee\n" + ten + "cake\n"
    shop.rollback()
    shop.rollback()
    shop.promote(second)
    recover(shop.program, idle)


def test_the_canary_sings(shop: Shop, canary: Path) -> None:
    """What is asserted of it below would fail for Git as it is commonly run."""
    infest(shop.checkout / ".git", canary)
    subprocess.run(["git", "status"], cwd=shop.checkout, env=shop.env, capture_output=True, check=False)
    assert marked(canary)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_users_repository_runs_nothing(shop: Shop, canary: Path, when: str) -> None:
    if when == "after":
        shop.edit({})
    infest(shop.checkout / ".git", canary)
    go_through_everything(shop)
    assert marked(canary) == ""


def test_the_work_folder_runs_nothing(shop: Shop, canary: Path) -> None:
    shop.edit({})
    for number in range(3):
        infest(shop.layout.candidate / ".git", canary)
        shop.change({"a": f"{number}", f"file-{number}": ""})
        candidate.diff(shop.program)
        shop.promote()
        shop.change({"b": f"{number}"})
    assert marked(canary) == ""


def test_our_own_repository_runs_nothing_even_when_somebody_wrote_into_it(shop: Shop, canary: Path) -> None:
    shop.edit({})
    infest(shop.layout.repo, canary)
    for name in ("objects/info/alternates", "info/grafts", "shallow"):
        path = shop.layout.repo / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("/nowhere\n")
    go_through_everything(shop)
    assert (shop.layout.repo / "config").read_text() == git.CONFIG
    assert marked(canary) == ""


def test_another_folder_that_is_named_as_ours_is_not_entered(
    shop: Shop, canary: Path, tmp_path: Path
) -> None:
    """Its configuration, attributes and what it ignores would count."""
    folder = shop.edit({"ignored": "1"})
    shutil.copytree(shop.layout.repo, tmp_path / "evil.git")
    infest(tmp_path / "evil.git", canary)
    (tmp_path / "evil.git" / "info" / "exclude").write_text("ignored\n")
    for path, text in {
        "commondir": f"{tmp_path}/evil.git\n",
        "config.worktree": hostile_config(canary),
        "info/attributes": "* filter=evil merge=evil diff=evil\n",
        "info/exclude": "ignored\n",
        "objects/info/http-alternates": "/nowhere\n",
    }.items():
        put(shop.layout.repo, {path: text})
    shop.change({})
    assert "ignored" in shop.files(f"refs/heads/{candidate.branch_of(shop.program)}")
    assert (folder / "ignored").exists()
    put(shop.layout.repo, {"commondir": f"{tmp_path}/evil.git\n"})
    go_through_everything(shop)
    assert not (shop.layout.repo / "commondir").exists()
    assert marked(canary) == ""


def test_a_folder_where_git_reads_a_file_is_removed(shop: Shop) -> None:
    shop.edit({})
    for name in ("commondir", "shallow", "info/attributes"):
        put(shop.layout.repo, {f"{name}/inner": "x"})
    shop.change({"a": "1"})
    shop.promote()


def test_a_configuration_that_leads_elsewhere_is_replaced(shop: Shop, tmp_path: Path) -> None:
    shop.edit({})
    (tmp_path / "theirs").write_text("[core]\n")
    (shop.layout.repo / "config").unlink()
    (shop.layout.repo / "config").symlink_to(tmp_path / "theirs")
    shop.change({"a": "1"})
    assert not (shop.layout.repo / "config").is_symlink()
    assert (tmp_path / "theirs").read_text() == "[core]\n"


def test_the_callers_environment_counts_for_nothing(
    shop: Shop, canary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "evil.config"
    config.write_text(hostile_config(canary))
    other = tmp_path / "other.git"
    shop.git("init", "-q", "--bare", str(other))
    before = sorted(other.rglob("*"))
    for name, value in {
        "GIT_DIR": str(other),
        "GIT_WORK_TREE": "/",
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_OBJECT_DIRECTORY": str(other / "objects"),
        "GIT_COMMON_DIR": str(other),
        "GIT_NAMESPACE": "evil",
        "GIT_CONFIG": str(config),
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_SYSTEM": str(config),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(canary),
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor={canary}'",
        "GIT_EXTERNAL_DIFF": str(canary),
        "GIT_SSH_COMMAND": str(canary),
        "GIT_EDITOR": str(canary),
        "GIT_PAGER": str(canary),
        "GIT_ASKPASS": str(canary),
        "GIT_EXEC_PATH": str(tmp_path / "hooks"),
        "GIT_TEMPLATE_DIR": str(tmp_path),
        "GIT_REPLACE_REF_BASE": "refs/evil/",
        "GIT_COMMITTER_NAME": "mallory",
        "GIT_AUTHOR_NAME": "mallory",
        "GIT_TRACE": str(tmp_path / "trace"),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".gitconfig").write_text(config.read_text())
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "config").write_text(config.read_text())
    (tmp_path / "git" / "attributes").write_text("* filter=evil merge=evil\n")
    go_through_everything(shop)
    assert marked(canary) == ""
    assert sorted(other.rglob("*")) == before
    assert not (tmp_path / "index").exists()
    assert not (tmp_path / "trace").exists()
    assert "mallory" not in shop.repo.run("log", "--all", "--format=%an %cn")


def test_replacements_and_grafts_show_nothing_else_than_what_is(shop: Shop) -> None:
    """A forged parent or content would let something land that nobody has judged."""
    old = shop.git("rev-parse", "main")
    new = shop.save("new", {"menu.txt": "coffee\n"})
    evil = shop.git("commit-tree", f"{old}^{{tree}}", "-m", "evil")
    shop.git("replace", new, evil)
    (shop.checkout / ".git" / "info" / "grafts").write_text(f"{new}\n")
    shop.edit({})
    assert shop.files()["menu.txt"] == "coffee\n"
    assert shop.refs.main.parents == (old,)
    shop.repo.run("update-ref", f"refs/replace/{new}", old)
    assert shop.files()["menu.txt"] == "coffee\n"


def test_hostile_branch_names_in_the_users_repository(shop: Shop, canary: Path) -> None:
    main = shop.git("rev-parse", "main")
    for name in ("--upload-pack=touch", "-x", f"$({canary})", ";touch", "a|b"):
        shop.git("update-ref", f"refs/heads/{name}", main)
    shop.git("symbolic-ref", "HEAD", f"refs/heads/$({canary})")
    shop.git("update-ref", "-d", "refs/heads/main")
    shop.change({"a": "1"})
    shop.promote()
    assert marked(canary) == ""


def test_a_repository_inside_the_work_folder_is_refused_and_not_entered(shop: Shop, canary: Path) -> None:
    folder = shop.edit({})
    inner = folder / "vendor"
    subprocess.run(["git", "init", "-q", str(inner)], env=shop.env, check=True)
    put(inner, {"file": "1"})
    for words in (["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(inner), *words], env=shop.env, check=True)
    infest(inner / ".git", canary)
    with pytest.raises(Exception, match=r"vendor/ is a Git repository of its own"):
        candidate.commit(shop.program, "x", shop.env)
    assert marked(canary) == ""


def test_names_with_newlines_quotes_and_bytes(shop: Shop) -> None:
    names = ["a\nb", 'quo"te', "tab\tx", "-rf", ":(glob)x", "ünï", os.fsdecode(b"\xff\xfe"), " "]
    shop.change(dict.fromkeys(names, "1"))
    shop.promote()
    assert set(names) <= shop.files().keys()
    assert all((shop.layout.worktree(shop.main) / name).is_file() for name in names)


# -- the command


def test_what_git_says_is_told(shop: Shop) -> None:
    shop.edit({})
    with pytest.raises(GitFailed, match=r"`git cat-file` failed in .*repo\.git: fatal: .*nothing") as caught:
        shop.repo.run("cat-file", "blob", "nothing")
    assert caught.value.code == 128


def test_git_gives_no_advice(shop: Shop) -> None:
    """What went wrong is all that is said."""
    shop.edit({})
    with pytest.raises(GitFailed) as caught:
        shop.repo.run("read-tree", "nothing")
    assert "hint:" not in caught.value.message
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("says", "fine"),
    [
        ("git version 2.38.0", True),
        ("git version 2.50.1 (Apple Git-155)", True),
        ("git version 3.0", True),
        ("git version 2.37.9", False),
        ("git version 1.99", False),
        ("what?", False),
    ],
)
def test_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, fine: bool) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\necho '{says}'\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if fine:
        git.check_version()
    else:
        with pytest.raises(EnvironmentProblem, match="too old") as caught:
            git.check_version()
        assert "2.38" in caught.value.hint


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="no `git`"):
        git.check_version()
    with pytest.raises(EnvironmentProblem, match="no `git`"):
        Git(tmp_path).run("version")
