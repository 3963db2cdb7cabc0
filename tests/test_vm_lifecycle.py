"""A machine's folder, and the verbs around its life, as far as they go without a machine."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from command import Home
from org.cli.vm import lifecycle, shown
from org.cli.vm.jobs import detach
from org.cli.vm.shown import later
from org.cli.vm.verb import Call
from org.config import load
from org.errors import EnvironmentProblem, SandboxGone, UsageError
from org.sandbox.vm import layout, machine
from org.sandbox.vm.channel import Channel
from org.sandbox.vm.image import Image
from org.sandbox.vm.layout import ImageFolder
from org.sandbox.vm.machine import Machine, Started, Status, machine_of
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.start import Way


def image_in(cache: Path, key: str = "0" * 24) -> Image:
    """One that is there, as far as its manifest says."""
    folder = ImageFolder(layout.images(cache) / key)
    folder.path.mkdir(parents=True)
    about = {"arch": "x86_64", "made_at": 0, "packages": {}, "recipe": "", "signed": True}
    folder.manifest.write_text(json.dumps(about))
    return Image(folder, key, "x86_64", {}, signed=True)


def call(home: Home, *words: str, **flags: object) -> Call:
    """What `org vm up WORDS` is called with."""
    parser = argparse.ArgumentParser()
    lifecycle.VERBS["up"].options(parser)
    args = parser.parse_args(words)
    settings = load(cwd=home.project, flags={"base": args.base, **flags}, env=home.env)
    return Call(args, settings, machine_of(settings.places.state))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# -- the folder


def test_of_several_that_make_it_one_does(tmp_path: Path) -> None:
    images = [image_in(tmp_path, f"{number:024x}") for number in range(8)]
    machine = machine_of(tmp_path)
    with ThreadPoolExecutor(len(images)) as pool:
        made = list(pool.map(machine.make, images))
    assert made.count(True) == 1
    assert machine.image(tmp_path) == images[made.index(True)]
    assert [path.name for path in machine.folder.path.iterdir()] == ["image"]


async def test_up_goes_on_with_the_machine_that_another_made(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = call(home)
    cache = one.settings.places.cache
    started: list[Image] = []

    async def built(*_: object, **__: object) -> Image:
        assert one.machine.make(image_in(cache, "a" * 24))
        return image_in(cache, "b" * 24)

    async def up(self: Machine, image: Image, *_: object, **__: object) -> Started:
        started.append(image)
        return Started(1.0, "snapshot", ())

    monkeypatch.setattr(lifecycle, "build_image", built)
    monkeypatch.setattr(Machine, "up", up)
    assert await lifecycle.VERBS["up"].run(one) == 0
    assert [image.key for image in started] == ["a" * 24]
    assert "is up after" in capsys.readouterr().out


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, machine = image_in(tmp_path), machine_of(tmp_path)

    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentProblem, match=f"No space left on device: {machine.folder.path}"):
        machine.make(image)
    assert not machine.folder.path.exists()


def test_what_one_may_not_look_at_stays_and_what_is_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_in(tmp_path)
    image.folder.machines.mkdir()
    for name in ("gone", "locked"):
        (image.folder.machines / name).symlink_to(tmp_path / "nowhere" / name)
    exists = Path.exists

    def looked_at(path: Path) -> bool:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", looked_at)
    machine_of(tmp_path).make(image)
    left = {path.name for path in image.folder.machines.iterdir()}
    assert "locked" in left
    assert "gone" not in left
    assert len(left) == 2


def test_a_path_too_long_for_a_socket_is_refused_with_what_helps(tmp_path: Path) -> None:
    machine = machine_of(tmp_path / ("x" * 100))
    with pytest.raises(UsageError) as caught:
        machine.check_path()
    assert "XDG_STATE_HOME" in caught.value.hint
    assert not machine.folder.path.exists()


async def test_up_says_which_wall_is_missing(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = call(home)
    one.machine.make(image_in(one.settings.places.cache))

    async def up(machine: Machine, *_: object, **__: object) -> Started:
        async def status(_machine: Machine) -> Status:
            return Status("default", "up", 7, {"walls": ["TCG", "seccomp"]})

        monkeypatch.setattr(Machine, "status", status)
        return Started(1.0, "snapshot", ())

    monkeypatch.setattr(Machine, "up", up)
    assert await lifecycle.VERBS["up"].run(one) == 0
    assert "warning: the machine lacks bubblewrap" in capsys.readouterr().err


# -- up, of one that is up, or was


class Up:
    """Machines that are up as soon as they are started."""

    def __init__(self) -> None:
        self.status = Status("default", "down")
        self.upstreams: list[str] = []

    async def told(self) -> Status:
        return self.status

    async def began(self, plan: Plan, *_: object) -> Way:
        self.upstreams.append(f"{plan.upstream}")
        network = {
            "model_server": f"http://{plan.upstream.authority}{plan.upstream.path}",
            "inbound": {"7001": plan.port},
        }
        facts = {"walls": ["TCG", "seccomp", "box"], "memory_mib": plan.memory_mib, "network": network}
        self.status = Status("default", "up", 7, facts)
        return "snapshot"


@pytest.fixture
def ups(home: Home, monkeypatch: pytest.MonkeyPatch) -> Up:
    made = Up()
    monkeypatch.setattr(Machine, "status", made.told)
    monkeypatch.setattr(machine, "begin", made.began)
    monkeypatch.setattr(os, "environ", home.env)
    one = call(home)
    one.machine.make(image_in(one.settings.places.cache))
    return made


async def up(home: Home, *words: str) -> None:
    assert await lifecycle.VERBS["up"].run(call(home, *words)) == 0


async def test_the_model_server_that_was_named_is_remembered(home: Home, ups: Up) -> None:
    for words in (("--base", "http://there:9/v1"), (), ("--base", "http://here"), ()):
        ups.status = Status("default", "down")
        await up(home, *words)
    assert ups.upstreams == ["Upstream(there:9/v1)"] * 2 + ["Upstream(here:80/v1)"] * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--memory", "300"), "--memory 512"),
        (("--port", "7101"), "--port 7001"),
        (("--base", "http://other"), "--base http://there"),
    ],
)
async def test_one_that_is_up_otherwise_is_not_passed_over(
    home: Home, ups: Up, words: tuple[str, ...], told: str
) -> None:
    same = ("--memory", "512", "--port", "7001", "--base", "http://there")
    await up(home, *same)
    await up(home, *same)
    await up(home)
    with pytest.raises(UsageError, match=told) as caught:
        await up(home, *words)
    assert "org vm down" in caught.value.hint


async def test_one_that_reaches_another_server_than_the_settings_say_is_warned_of(
    home: Home, ups: Up, capsys: pytest.CaptureFixture[str]
) -> None:
    await up(home)
    home.env["ORG_BASE"] = "http://new"
    await up(home)
    assert "the settings say http://new" in capsys.readouterr().err


async def test_without_qemu_nothing_is_fetched_or_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    one = call(home)
    monkeypatch.setenv("PATH", str(home.folder))
    monkeypatch.setattr(lifecycle, "build_image", None)  # is not come to
    with pytest.raises(EnvironmentProblem, match="cannot start `qemu-system"):
        await lifecycle.VERBS["up"].run(one)
    assert not one.machine.folder.path.exists()


async def test_a_name_too_long_for_a_socket_is_told_before_anything_is_fetched(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.env["XDG_STATE_HOME"] = f"{home.folder}/{'x' * 100}"
    monkeypatch.setattr(lifecycle, "build_image", None)
    with pytest.raises(UsageError, match="path of a socket"):
        await lifecycle.VERBS["up"].run(call(home))


async def test_what_helps_a_machine_that_does_not_answer(home: Home, ups: Up) -> None:
    for state, hint in (("silent", "`org vm down` ends it"), ("down", "`org vm up`")):
        ups.status = Status("default", state)  # type: ignore[arg-type]
        with pytest.raises(SandboxGone) as caught:
            await call(home).machine.up_or_gone()
        assert caught.value.hint == hint


# -- words that are off


@pytest.mark.parametrize("room", ["", "a b", "a\nb", "../x", ".x", "A", "x" * 65])
@pytest.mark.parametrize("verb", ["exec", "push"])
def test_what_is_no_room_makes_no_workspace(home: Home, verb: str, room: str) -> None:
    words = ["--", "true"] if verb == "exec" else ["."]
    subprocess.run(["git", "init", "-q", str(home.project)], check=True)
    done = home.run("vm", verb, "--room", room, *words)
    assert (done.returncode, "not a room id" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "\x1b[31m", "x" * 65])
async def test_a_job_has_a_name_that_can_be_typed(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a job"):
        await detach(cast(Channel, None), name, ["" if not name else "true"])


@pytest.mark.parametrize("words", [("up", "--bogus"), ("up", "--memory", "much"), ("status", "more")])
def test_a_word_that_is_off_is_explained_by_its_own_verb(home: Home, words: tuple[str, ...]) -> None:
    done = home.run("vm", *words)
    assert done.returncode == 2
    assert f"`org vm {words[0]} --help`" in done.stderr


# -- down


async def ended(home: Home, why: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `org vm down` says of a machine that ends, for which its process gives that reason."""
    one = call(home)
    one.machine.make(image_in(one.settings.places.cache))

    async def down(machine: Machine) -> bool:
        if why:
            machine.folder.unsaved.write_text(why + "\n")
        await asyncio.sleep(0)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "down", down)
        await lifecycle._end(one.machine, hard=False)
    return capsys.readouterr().err


async def test_down_says_why_it_could_not_suspend(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "could not be suspended: No space left on device" in await ended(
        home, "No space left on device", capsys
    )


async def test_down_that_suspends_has_nothing_to_add(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert await ended(home, "", capsys) == ""


async def test_a_long_wait_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "_QUIET_S", 0.0)
    with later("waiting for the machine"):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert capsys.readouterr().err == "waiting for the machine\n"


async def test_on_a_terminal_it_is_told_for_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "_QUIET_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with later("waiting for the machine"):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert capsys.readouterr().err == "\r\x1b[Kwaiting for the machine: 0.0 s\r\x1b[K"
