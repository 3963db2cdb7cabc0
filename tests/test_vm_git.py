"""Git work in and out of a workspace: with the guest's agent as a process here, and in a real machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

import vm_kit
from guest import image
from machine_kit import MEMORY, Owner, processes_of
from org.errors import Busy, Conflict, EnvironmentProblem, ExitCode, UsageError
from org.ports import Command
from org.sandbox.vm import git, git_guest
from org.sandbox.vm.git import Workspace, check_room, relation, repository_of
from org.sandbox.vm.git_host import Repository, reason
from org.sandbox.vm.git_stream import Intake
from org.sandbox.vm.place import VirtualMachine

NAMED = "git config user.name ada; git config user.email ada@example.org"


class Yard:
    """A guest, a repository of the user's, and what is between them."""

    def __init__(self, guest: vm_kit.Guest, folder: Path) -> None:
        self.guest = guest
        self.repo = folder / "a repository"
        self.repo.mkdir(parents=True)
        self.own = folder / "state" / "shop.git"
        self.workspace = Workspace(guest.channel, "shop", self.own, "org")
        self.here(f"git init -q -b main; {NAMED}; mkdir d; echo 1 > d/one; echo 2 > two; git add .")
        self.here("git commit -q -m first")

    @property
    def repository(self) -> Repository:
        return Repository(self.repo)

    def here(self, script: str) -> str:
        return done_in(self.repo, script)

    async def there(self, script: str) -> str:
        """What a script in the workspace says, as whoever works there."""
        async with self.guest.channel() as channel:
            named = f"export GIT_CEILING_DIRECTORIES={self.guest.folder}; umask 022; {script}"
            result = await channel.exec(Command(["sh", "-ec", named]))
        assert result.exit_code == 0, result.head + result.tail
        return (result.head + result.tail).decode().strip()

    async def push(self) -> git.Pushed:
        return await self.workspace.push(self.repository)

    async def bring(self) -> git.Fetched:
        """Fetch, and deliver to the user's repository."""
        fetched = await self.workspace.fetch()
        await self.workspace.deliver(self.repository)
        return fetched

    def kept(self) -> str:
        """What our own repository holds."""
        if not self.own.is_dir():
            return ""
        return done_in(self.own, "git for-each-ref; find objects -type f | sort; git fsck 2>&1")

    def state(self) -> str:
        """All of the user's repository that a fetch must leave alone."""
        return self.here(
            "git status --porcelain -z | tr '\\0' '\\n'; git for-each-ref refs/heads refs/tags; "
            "cat .git/HEAD .git/config; sha256sum .git/index; ls .git"
        )


def done_in(folder: Path, script: str) -> str:
    done = subprocess.run(["sh", "-ec", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest_asyncio.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    async with vm_kit.agent() as guest:
        monkeypatch.setitem(git_guest.ENV, "GIT_CEILING_DIRECTORIES", str(guest.folder))
        yield Yard(guest, tmp_path)


# -- in


async def test_a_push_makes_the_workspace_a_checkout(yard: Yard) -> None:
    yard.here("echo later > two; echo new > 'a new one'")
    pushed = await yard.push()
    assert (pushed.branch, pushed.commit) == ("main", yard.here("git rev-parse HEAD"))
    assert pushed.left == ("two", "a new one")
    assert (
        await yard.there("git status --porcelain; cat d/one two; git branch --show-current") == "1\n2\nmain"
    )
    assert await yard.there("git log --format=%H") == pushed.commit
    await yard.there("echo more > more; git add .; git commit -q -m 'one of theirs'")


async def test_a_push_goes_on_from_the_last(yard: Yard) -> None:
    await yard.push()
    yard.here("git rm -q d/one; echo 3 > three; git add .; git commit -q -m second; git switch -q -c other")
    assert (await yard.push()).branch == "other"
    assert await yard.there("git status --porcelain; git branch --show-current; ls") == "other\nthree\ntwo"
    assert await yard.there("git branch --format='%(refname:short)'") == "main\nother"


async def test_the_same_again_changes_nothing(yard: Yard) -> None:
    first = await yard.push()
    assert await yard.push() == first
    assert await yard.there("git status --porcelain; git log --format=%s") == "first"


@pytest.mark.parametrize(
    ("work", "told"),
    [
        ("echo theirs > two", "two"),
        ("echo theirs > three", "three"),
        ("echo theirs > two; git add two", "two"),
        ("echo three > .git/info/exclude; echo theirs > three", "three"),
        ("git commit -q --allow-empty -m theirs", "has commits"),
        ("git switch -q --detach; git commit -q --allow-empty -m theirs", "has commits"),
    ],
)
async def test_work_in_the_workspace_is_not_overwritten(yard: Yard, work: str, told: str) -> None:
    await yard.push()
    await yard.there(work)
    look = "git status --porcelain --ignored; cat two; cat three || :; git rev-parse HEAD; git branch"
    before = await yard.there(look)
    yard.here("echo ours > two; echo ours > three; git add .; git commit -q -m second")
    with pytest.raises(Conflict, match=told) as caught:
        await yard.push()
    assert "org vm fetch" in caught.value.hint
    assert await yard.there(look) == before


async def test_other_work_in_it_stays(yard: Yard) -> None:
    await yard.there("echo theirs > kept")
    await yard.push()
    await yard.there("echo theirs > two")
    yard.here("echo 3 > three; git add .; git commit -q -m second")
    await yard.push()
    assert (
        await yard.there("cat kept two three; git status --porcelain") == "theirs\ntheirs\n3\n M two\n?? kept"
    )


async def test_what_was_fetched_and_merged_may_be_overwritten(yard: Yard) -> None:
    await yard.push()
    await yard.there("echo theirs > two; echo theirs > three")
    await yard.bring()
    yard.here("git merge -q org/shop/workspace; echo ours > two; git commit -q -a -m ours")
    await yard.push()
    assert await yard.there("git status --porcelain; cat two three") == "ours\ntheirs"
    await yard.there("echo again > two")
    yard.here("echo 4 > two; git commit -q -a -m more")
    with pytest.raises(Conflict):
        await yard.push()


async def test_an_ignored_file_is_no_less_work_beside_what_may_be_overwritten(yard: Yard) -> None:
    await yard.push()
    await yard.there("echo theirs > two; echo three > .git/info/exclude; echo theirs > three")
    await yard.bring()
    yard.here("git merge -q org/shop/workspace; echo 3 > three; git add .; git commit -q -m ours")
    look = "git status --porcelain --ignored; cat two three; git rev-parse HEAD; git branch; git diff"
    before = await yard.there(look)
    with pytest.raises(Conflict, match="three"):
        await yard.push()
    assert await yard.there(look) == before
    await yard.there("rm three")
    await yard.push()
    assert await yard.there("git status --porcelain; cat three; git branch --show-current") == "3\nmain"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("rm -rf .git; git init -q", "no commit"),
        ("git switch -q --detach", "no branch"),
        ("rm -rf .git", "no git repository"),
        (
            f"rm -rf .git; git init -q --object-format=sha256; {NAMED}; git add .; git commit -q -m a",
            "SHA-256",
        ),
    ],
)
async def test_what_cannot_be_pushed_is_refused(yard: Yard, script: str, told: str) -> None:
    yard.here(script)
    with pytest.raises(UsageError, match=told):
        await yard.workspace.push(await repository_of(yard.repo))
    assert await yard.there("ls -A") == ""


async def test_hooks_and_settings_of_the_user_do_not_matter(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.here(
        "printf '#!/bin/sh\\ntouch ran; exit 1' > .git/hooks/pre-push; chmod +x .git/hooks/pre-push; "
        "cp .git/hooks/pre-push .git/hooks/reference-transaction; "
        "git config push.pushOption told; git config push.followTags true; git config protocol.version 2; "
        "git config remote.pushDefault gone; git config fetch.prune true; git config fetch.fsckObjects false"
    )
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "none")
    monkeypatch.setenv("GIT_TRACE", "1")
    await yard.push()
    await yard.bring()
    assert not (yard.repo / "ran").exists()


async def test_a_shallow_repository_goes_in_and_comes_out(yard: Yard, tmp_path: Path) -> None:
    yard.here("git commit -q --allow-empty -m second; git commit -q --allow-empty -m third")
    done_in(tmp_path, f"git clone -q --depth 1 'file://{yard.repo}' shallow; cd shallow; {NAMED}")
    shallow = Repository(tmp_path / "shallow")
    await yard.workspace.push(shallow)
    await yard.there("echo theirs > two; git commit -q -a -m theirs")
    await yard.workspace.fetch()
    await yard.workspace.deliver(shallow)
    assert done_in(shallow.path, "git log --format=%s org/shop/main") == "theirs\nthird"


# -- out


async def test_a_fetch_brings_branches_and_leaves_the_rest_alone(yard: Yard) -> None:
    await yard.push()
    await yard.there("echo theirs > two; git commit -q -a -m theirs; git branch side; git tag v1")
    yard.here("echo dirty > d/one; echo staged > three; git add three")
    before = yard.state()
    fetched = await yard.bring()
    assert fetched.best == "main"
    assert sorted(fetched.branches) == ["main", "side", "workspace"]
    assert yard.state() == before
    assert yard.here("git log --format=%s org/shop/main") == "theirs\nfirst"
    assert yard.here("git for-each-ref --format='%(refname)' | sort").split() == [
        "refs/heads/main",
        "refs/remotes/org/shop/main",
        "refs/remotes/org/shop/side",
        "refs/remotes/org/shop/workspace",
    ]


async def test_what_is_not_committed_comes_too_and_nothing_there_changes(yard: Yard) -> None:
    yard.here("echo left > .gitignore; git add .; git commit -q -m ignore")
    await yard.push()
    await yard.there("echo theirs > two; echo staged > d/one; git add d; rm d/one; echo new > 'a new one'")
    await yard.there("echo left > left; printf '#!/bin/sh\\nexit 1' > .git/hooks/pre-commit")
    look = "git status --porcelain --ignored; git for-each-ref refs/heads; git rev-parse HEAD; git stash list"
    before = await yard.there(f"{look}; sha256sum .git/index; ls -A")
    fetched = await yard.bring()
    assert fetched.best == "workspace"
    assert await yard.there(f"{look}; sha256sum .git/index; ls -A") == before
    assert yard.here("git diff --name-status main org/shop/workspace").split("\n") == [
        "A\ta new one",
        "D\td/one",
        "M\ttwo",
    ]
    assert yard.here("git rev-parse org/shop/workspace~") == yard.here("git rev-parse main")
    assert (await yard.bring()).branches == fetched.branches


async def test_no_name_that_a_shell_would_read_is_proposed(yard: Yard) -> None:
    await yard.push()
    await yard.there("echo 3 > two; git commit -q -a -m theirs; git branch -m ';id;$(id)`id`'")
    fetched = await yard.bring()
    assert ";id;$(id)`id`" in fetched.branches
    assert fetched.best == "workspace"


async def test_a_merge_with_conflicts_comes_as_it_lies_there(yard: Yard) -> None:
    await yard.push()
    await yard.there(
        "git switch -q -c side; echo a > two; git commit -q -a -m a; git switch -q main; echo b > two; "
        "git commit -q -a -m b; git merge side || git status --porcelain | grep -q '^UU two'"
    )
    assert (await yard.bring()).best == "workspace"
    assert "<<<<<<<" in yard.here("git show org/shop/workspace:two")
    yard.here("git commit -q --allow-empty -m ours")
    with pytest.raises(Conflict):
        await yard.push()


@pytest.mark.parametrize("broken", ["true", "mkdir .git", "echo gitdir: /nowhere > .git"])
async def test_a_workspace_that_is_no_repository_comes_too(yard: Yard, broken: str) -> None:
    await yard.there(f"{broken}; echo theirs > file; mkdir below; echo 1 > below/it")
    before = await yard.there("find . | sort")
    fetched = await yard.bring()
    assert fetched.best == "workspace"
    assert await relation(yard.repository, fetched.branches["workspace"]) == "unrelated"
    assert await yard.there("find . | sort") == before
    assert not Path("/tmp", "org-git" + str(yard.guest.workspace).replace("/", "-")).exists()
    assert yard.here("git ls-tree -r --name-only org/shop/workspace") == "below/it\nfile"


async def test_an_empty_workspace_is_named(yard: Yard) -> None:
    with pytest.raises(UsageError, match="nothing in the workspace"):
        await yard.workspace.fetch()
    await yard.there("git init -q")
    with pytest.raises(UsageError, match="nothing in the workspace"):
        await yard.workspace.fetch()


async def test_what_cannot_be_read_is_named(yard: Yard) -> None:
    await yard.push()
    secret = yard.guest.workspace / "secret"
    secret.write_text("x")
    secret.chmod(0)
    if vm_kit.NOBODY != "65534":
        assert secret.stat().st_uid == os.geteuid()
    with pytest.raises(EnvironmentProblem, match="secret"):
        await yard.workspace.fetch()


async def test_only_where_it_was_pushed_from(yard: Yard, tmp_path: Path) -> None:
    assert not await yard.workspace.pushed_from(yard.repository)
    await yard.push()
    yard.here("git worktree add -q -b other '../another place'")
    done_in(tmp_path, "git init -q elsewhere")
    assert await yard.workspace.pushed_from(yard.repository)
    assert await yard.workspace.pushed_from(Repository(tmp_path / "another place"))
    assert not await yard.workspace.pushed_from(Repository(tmp_path / "elsewhere"))


async def test_how_what_came_stands_to_what_is_checked_out(yard: Yard) -> None:
    await yard.push()
    first = (await yard.bring()).branches["workspace"]
    await yard.there("echo theirs > two")
    later = (await yard.bring()).branches["workspace"]
    assert await relation(yard.repository, first) == "contained"
    assert await relation(yard.repository, later) == "new"
    yard.here("git switch -q --orphan empty")
    assert await relation(yard.repository, later) == "first"


async def test_a_branch_called_like_the_workspace_does_not_hide_it(yard: Yard) -> None:
    await yard.push()
    await yard.there("git branch workspace; echo theirs > two")
    await yard.bring()
    assert yard.here("git show org/shop/workspace:two") == "theirs"


async def test_one_at_a_time(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    await yard.push()
    monkeypatch.setattr(git_guest, "UPLOAD", "echo > begun; sleep 600")
    first = asyncio.create_task(yard.workspace.fetch())
    while not (yard.guest.workspace / "begun").exists():  # noqa: ASYNC110 -- a file of another process
        await asyncio.sleep(0.01)
    with pytest.raises(Busy):
        await yard.push()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize(("room", "fits"), [("room-1", True), ("a.lock", False), ("a..b", False)])
async def test_a_room_whose_name_no_branch_can_have_is_refused(room: str, fits: bool) -> None:
    if fits:
        await check_room(room)
    else:
        with pytest.raises(UsageError):
            await check_room(room)
    for room in ("main", "cand"):
        with pytest.raises(UsageError, match="would be called as those of candidates"):
            await check_room(room)


# -- a guest that lies

COMMITTED = """
import hashlib, subprocess, sys
def put(kind, data):
    words = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(words, input=data, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
def tree(*entries):
    return put("tree", b"".join(m.encode() + b" " + n + b"\\0" + bytes.fromhex(s) for m, n, s in entries))
blob = lambda data: put("blob", data)
who = b"a <a@a> 1 +0000"
def commit(root):
    return put("commit", b"tree %s\\nauthor %s\\ncommitter %s\\n\\nevil\\n" % (root.encode(), who, who))
"""


def modules(name: str, *lines: str) -> str:
    text = "\n".join([f'[submodule "{name}"]', "path = a", *lines, ""])
    return f'tree(("100644", b".gitmodules", blob({text.encode()!r})))'


CONFIG = 'tree(("100644", b"config", blob(b"[core]\\nfsmonitor = touch ran\\n")))'
CRAFTED = {
    "git": f'tree(("40000", b".git", {CONFIG}))',
    "case": f'tree(("40000", b".GiT", {CONFIG}))',
    "deep": f'tree(("40000", b"d", tree(("40000", b".git", {CONFIG}))))',
    "hfs": f'tree(("40000", ".g\\u200cit".encode(), {CONFIG}))',
    "ntfs": f'tree(("40000", b"git~1", {CONFIG}))',
    "link": 'tree(("120000", b".git", blob(b"/etc")))',
    "up": f'tree(("40000", b"..", {CONFIG}))',
    "slash": 'tree(("100644", b"../../out", blob(b"x")))',
    "modules": 'tree(("120000", b".gitmodules", blob(b"/etc/passwd")))',
    "url": modules("a", "url = --upload-pack=id"),
    "dash": modules("a", "url = -uid"),
    "name": modules("../a", "url = b"),
    "update": modules("a", "url = b", "update = !id"),
    "missing": f'tree(("100644", b"f", "{"ab" * 20}"))',
}


@pytest.mark.parametrize("name", CRAFTED)
async def test_crafted_objects_are_refused(yard: Yard, name: str) -> None:
    await yard.push()
    await yard.workspace.fetch()
    before = yard.kept()
    (yard.guest.folder / "craft.py").write_text(f"{COMMITTED}\nprint(commit({CRAFTED[name]}))")
    await yard.there(f"git update-ref refs/heads/evil $({vm_kit.PYTHON} ../craft.py)")
    with pytest.raises(EnvironmentProblem, match="git"):
        await yard.workspace.fetch()
    assert yard.kept() == before


LINE = 'line() { printf "%04x%s\n" $((${#1} + 5)) "$1"; }; id=' + "ab" * 20 + "; "
LIES = {
    "nothing": "true",
    "words": "echo hello, no git here",
    "another protocol": "line 'version 2'; printf 0000; cat > /dev/null",
    "a delimiter": "printf 0001",
    "endless": "cat /dev/zero",
    "endless words": "yes 000bcafe",
    "endless list": 'while line "$id refs/heads/x"; do :; done',
    "endless error": "cat /dev/zero >&2",
    "a line that is cut off": "printf '0010ab'",
    "an error": "printf '0013ERR \\033[31mevil\\n'",
    "control": "printf '\\033]0;evil\\007\\n' >&2; exit 3",
    "no pack": 'line "$id refs/org/workspace"; printf "00000008NAK\\nPACKgarbage"',
    "bad names": 'line "$id refs/heads/../../x"; line "$id refs/heads/-u"; line "$id refs/x y"; printf 0000',
    "an object of that name": 'line "$(git rev-parse HEAD) refs/heads/../../main"; printf 0000',
}


@pytest.mark.parametrize("name", LIES)
async def test_lies_are_refused(yard: Yard, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await yard.push()
    await yard.workspace.fetch()
    before = yard.kept()
    monkeypatch.setattr(git_guest, "UPLOAD", LINE + LIES[name])
    with pytest.raises(EnvironmentProblem) as caught:
        await yard.workspace.fetch(intake=Intake(8_000_000))
    assert caught.value.message.isprintable()
    assert yard.kept() == before


async def test_a_guest_that_never_ends_is_given_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "MOST_S", 0.5)
    monkeypatch.setattr(git_guest, "UPLOAD", "printf 0000; sleep 600")
    with pytest.raises(EnvironmentProblem, match="not done within"):
        await yard.workspace.fetch()


async def test_what_reads_a_guests_objects_has_bounded_memory(yard: Yard) -> None:
    await yard.push()
    own = Repository(yard.own, own=True)
    assert await own.ask("-c", "alias.bound=!ulimit -v", "bound") == str(3 * 1024**2)


async def test_too_much_is_cut_off(yard: Yard) -> None:
    await yard.there("head -c 3000000 /dev/urandom > big")
    with pytest.raises(EnvironmentProblem, match="more than 1,000,000 bytes"):
        await yard.workspace.fetch(intake=Intake(1_000_000))
    assert "pack" not in yard.kept()
    await yard.workspace.fetch()
    assert "pack" in yard.kept()


@given(st.lists(st.binary(max_size=80), max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_a_list_of_refs_may_come_in_any_pieces(lines: list[bytes], cuts: list[int]) -> None:
    listed = b"".join(b"%04x%s" % (len(line) + 5, line + b"\n") for line in lines if line[:8] != b"version ")
    data = listed + b"0000" + b"anything after it, not a list"
    intake = Intake(len(data))
    for cut in cuts:
        piece, data = data[:cut], data[cut:]
        intake.take(piece)
    intake.take(data)
    with pytest.raises(EnvironmentProblem, match="more than"):
        intake.take(b"x")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"fatal: the remote end hung up\nerror: it is so\n", "it is so"),
        (b"warning\rerror: a\x1b[2Jb\nfatal: c", "a[2Jb"),
        (b"", "it did not say why"),
    ],
)
def test_the_reason_is_what_says_most(said: bytes, told: str) -> None:
    assert reason(said) == told


# -- cut off


async def test_a_push_that_is_cancelled_is_not_half_done(yard: Yard) -> None:
    yard.here("head -c 20000000 /dev/urandom > big; git add .; git commit -q -m big")
    begun = asyncio.Event()
    pushing = asyncio.create_task(
        yard.workspace.push(yard.repository, lambda line: begun.set() if b"Writing" in line else None)
    )
    async with asyncio.timeout(60):
        await begun.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert await yard.there("ls -A; git for-each-ref") == ".git"
    await yard.push()
    assert (
        await yard.there("git status --porcelain; wc -c < big; ls .git/objects | grep inc || :") == "20000000"
    )


async def test_a_checkout_that_has_begun_is_not_cancelled(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.there("true")
    waiting = "echo > ../begun; until [ -e ../go ]; do sleep 0.02; done; rm ../begun"
    yard.guest.folder.chmod(0o777)
    monkeypatch.setattr(git_guest, "SETTLE", f"{waiting}; {git_guest.SETTLE}")
    pushing = asyncio.create_task(yard.push())
    async with asyncio.timeout(60):
        while not (yard.guest.folder / "begun").exists():  # noqa: ASYNC110 -- a file of another process
            await asyncio.sleep(0.01)
    pushing.cancel()
    (yard.guest.folder / "go").touch()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert await yard.there("git status --porcelain; git branch --show-current") == "main"


async def test_a_fetch_that_is_cancelled_leaves_nothing(yard: Yard) -> None:
    await yard.there("head -c 20000000 /dev/urandom > big")
    begun = asyncio.Event()
    fetching = asyncio.create_task(
        yard.workspace.fetch(lambda line: begun.set() if b"Receiving" in line else None)
    )
    async with asyncio.timeout(60):
        await begun.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert "pack" not in yard.kept()
    await yard.workspace.fetch()


async def test_a_checkout_that_was_killed_is_finished_and_nothing_lost(yard: Yard) -> None:
    await yard.push()
    yard.here("echo 3 > three; echo 22 > two; git add .; git commit -q -m second")
    await yard.there("touch .git/org-settling .git/index.lock .git/HEAD.lock; printf 2 > two; echo x > three")
    await yard.push()
    assert (
        await yard.there("git status --porcelain; cat two three; ls .git | grep -E 'lock|settl' || :")
        == "22\n3"
    )
    assert await yard.there("git show org-interrupted:three") == "x"


# -- in a real machine

vm = pytest.mark.vm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made() -> None:
    await image()


@pytest.fixture(scope="module")
def owner(made: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """With a machine that is up; the folder that they work in is a repository."""
    one = Owner(tmp_path_factory.mktemp("vm git"))
    done_in(one.project, f"git init -q -b main; {NAMED}; echo 1 > one; git add .; git commit -q -m first")
    one.up()
    yield one
    assert one.vm("rm", "-y").returncode == 0
    assert processes_of(one.machine) == []


def there(owner: Owner, script: str, *words: str) -> str:
    done = owner.vm("exec", *words, "--", "sh", "-ec", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def kept(owner: Owner) -> str:
    return done_in(owner.folder / "state" / "org" / "fetched", "find . -type f ! -name '*.lock' | sort")


@vm
def test_a_thousand_files_go_in_and_come_out(owner: Owner) -> None:
    for number in range(1000):
        path = owner.project / f"a folder/{number % 10}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    done_in(owner.project, "git add .; git commit -q -m 'a thousand'; echo later > one")
    pushed = owner.vm("push", "--room", "thousand")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stderr.decode() == "not committed, and so left behind: one\n"
    assert b"`thousand` is at main" in pushed.stdout
    words = ("--room", "thousand")
    there(owner, 'test -z "$(git status --porcelain)"; echo theirs > one; git commit -q -a -m theirs', *words)
    there(owner, "echo more > more", *words)
    fetched = owner.vm("fetch", "--room", "thousand")
    assert fetched.returncode == 0, fetched.stderr
    assert b"`git merge org/thousand/workspace` takes it" in fetched.stdout
    assert done_in(owner.project, "git diff --name-only main org/thousand/workspace") == "more\none"
    done_in(owner.project, "git checkout -q one; git merge -q org/thousand/workspace")
    assert owner.vm("push", "--room", "thousand").returncode == 0
    assert there(owner, "git status --porcelain; git rev-parse HEAD", *words) == done_in(
        owner.project, "git rev-parse HEAD"
    )


@vm
def test_without_a_repository_it_says_how_to_go_on(owner: Owner, tmp_path: Path) -> None:
    there(owner, "echo made > made", "--room", "alone")
    fetched = owner.vm("fetch", "--room", "alone")
    assert b"`git init FOLDER && org vm fetch --room alone FOLDER`" in fetched.stdout
    done_in(tmp_path, "git init -q 'a new one'")
    fetched = owner.vm("fetch", "--room", "alone", str(tmp_path / "a new one"))
    assert f"`git -C '{tmp_path}/a new one' merge org/alone/workspace`" in fetched.stdout.decode()
    assert done_in(tmp_path / "a new one", "git merge -q org/alone/workspace; cat made") == "made"


@vm
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("push", "absent"), ExitCode.USAGE),
        (("push", "--room", "../x"), ExitCode.USAGE),
        (("fetch", "--room", "a.lock"), ExitCode.USAGE),
        (("fetch", "--room", "never-used"), ExitCode.USAGE),
        (("push", "--name", "another"), ExitCode.ENVIRONMENT),
    ],
)
def test_words_that_are_off_are_refused(owner: Owner, words: tuple[str, ...], code: ExitCode) -> None:
    assert owner.vm(*words).returncode == code


@vm
def test_work_in_the_way_is_a_conflict(owner: Owner) -> None:
    there(owner, "echo theirs > one", "--room", "taken")
    done = owner.vm("push", "--room", "taken")
    assert done.returncode == ExitCode.CONFLICT
    assert b"changes that would be lost: one" in done.stderr
    assert there(owner, "cat one", "--room", "taken") == "theirs"


@vm
async def test_a_new_room_keeps_what_was_pushed_and_the_next_does_not(owner: Owner) -> None:
    assert owner.vm("push", "--room", "begun").returncode == 0
    place = VirtualMachine(owner.machine, "begun", memory=MEMORY)
    await place.clear()
    assert "one" in there(owner, "ls", "--room", "begun")
    await place.clear()
    assert there(owner, "ls -A", "--room", "begun") == ""


@vm
def test_progress_is_shown_and_drives_no_terminal(owner: Owner) -> None:
    assert owner.vm("push", "--room", "shown").returncode == 0
    hook = "#!/bin/sh\nprintf '\\033]0;evil\\0077%% of \\033[2Jall\\r' >&2\nsleep 0.3\nexec \"$@\"\n"
    script = "cat > /etc/evil; chmod +x /etc/evil; git config --system uploadpack.packObjectsHook /etc/evil"
    assert owner.vm("exec", "--root", "--", "sh", "-c", script, stdin=hook.encode()).returncode == 0
    try:
        with owner.terminal("vm", "fetch", "--room", "shown") as terminal:
            terminal.wait_for("evil7% of [2Jall")
            terminal.wait_for("all of it")
            assert terminal.exit_code() == 0
            assert "\x1b]0;" not in terminal.raw
            assert "\x1b[2J" not in terminal.raw
    finally:
        there(owner, "rm /etc/evil; git config --system --unset uploadpack.packObjectsHook", "--root")


LYING = """#!/bin/sh
case "$*" in *upload-pack*) %s ;; esac
exec /usr/bin/git "$@"
"""


@pytest.fixture(scope="module")
def lying(owner: Owner) -> Owner:
    """With a workspace whose git has told the truth so far."""
    assert owner.vm("push", "--room", "lying").returncode == 0
    assert owner.vm("fetch", "--room", "lying").returncode == 0
    return owner


@vm
@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("exec cat /dev/urandom", "no git"),
        ("exec yes 003b$(printf %040d 1)' 'refs/heads/xx", "more than 10,000 branches"),
        ("printf '\\033]0;evil\\007it says so\\n' >&2; exit 3", "it says so"),
        ("kill -9 $$", "git in the machine failed"),
    ],
)
def test_a_machine_whose_git_lies_is_refused(lying: Owner, lie: str, told: str) -> None:
    owner = lying
    before = kept(owner), done_in(owner.project, "git for-each-ref; git status --porcelain")
    program = "cat > /usr/local/bin/git; chmod +x /usr/local/bin/git"
    assert owner.vm("exec", "--root", "--", "sh", "-c", program, stdin=(LYING % lie).encode()).returncode == 0
    try:
        done = owner.vm("fetch", "--room", "lying")
    finally:
        there(owner, "rm /usr/local/bin/git", "--root")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert told in done.stderr.decode()
    assert b"\x1b" not in done.stderr
    assert (kept(owner), done_in(owner.project, "git for-each-ref; git status --porcelain")) == before


@vm
@pytest.mark.parametrize("way", ["client", "machine"])
def test_a_push_and_a_fetch_that_are_killed_leave_nothing_half_done(
    owner: Owner, tmp_path: Path, way: str
) -> None:
    done_in(tmp_path, f"git init -q -b main big; cd big; {NAMED}; head -c 5000000 /dev/urandom > big")
    big = tmp_path / "big"
    done_in(big, "git add .; git commit -q -m big")
    room = f"killed-{way}"
    for words in (("push", "--room", room, str(big)), ("fetch", "--room", room, str(big))):
        before = done_in(big, "git for-each-ref; git status --porcelain")
        with owner.terminal("vm", *words) as terminal:
            terminal.wait_for("objects")
            if way == "machine":
                for pid in processes_of(owner.machine):
                    os.kill(pid, signal.SIGKILL)
                terminal.wait_for("gone")
                assert terminal.exit_code() == ExitCode.ENVIRONMENT
        assert done_in(big, "git for-each-ref; git status --porcelain") == before
        if way == "machine":
            owner.up()
        assert there(owner, "ls", "--room", room) in ("", "big")
        done = owner.vm(*words)
        assert done.returncode == 0, done.stderr
        assert (
            there(owner, "git status --porcelain; git fsck --no-dangling; wc -c < big", "--room", room)
            == "5000000"
        )
    assert "tmp_" not in kept(owner)
    assert done_in(big, "git rev-parse org/" + room + "/main") == done_in(big, "git rev-parse main")
