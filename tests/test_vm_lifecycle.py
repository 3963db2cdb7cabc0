"""A machine's folder, and the verbs around its life, as far as they go without a machine."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from command import Home
from org.cli.vm import lifecycle, shown
from org.cli.vm.shown import later
from org.cli.vm.verb import Call
from org.config import load
from org.errors import EnvironmentProblem, UsageError
from org.sandbox.vm import layout
from org.sandbox.vm.image import Image
from org.sandbox.vm.layout import ImageFolder
from org.sandbox.vm.machine import Machine, Started, Status, machine_of


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
    settings = load(cwd=home.project, flags=flags, env=home.env)
    return Call(parser.parse_args(words), settings, machine_of(settings.places.state))


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
        return Started(1.0, "boot", ())

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
        return Started(1.0, "boot", ())

    monkeypatch.setattr(Machine, "up", up)
    assert await lifecycle.VERBS["up"].run(one) == 0
    assert "warning: the machine lacks bubblewrap" in capsys.readouterr().err


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
