"""Images on the disk: which one is found, who makes one, what an interrupt leaves."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from org.sandbox.vm.image import store
from org.sandbox.vm.image.store import Image, Progress, find_image, making, recipe_sum, work_folder
from org.sandbox.vm.layout import ImageFolder, images


def nobody(progress: Progress) -> None:
    pass


async def made(cache: Path, key: str, at: float = 1.0, recipe: str = "", arch: str = "x86_64") -> Image:
    async with making(cache, "makes", nobody):
        work = work_folder(cache, key)
        (work / "root.img").write_bytes(b"")
        manifest = {"arch": arch, "made_at": at, "packages": {"git": "1"}, "signed": True}
        return store.finish(work, cache, key, manifest | {"recipe": recipe or recipe_sum(arch)})


async def test_the_newest_image_of_this_recipe_is_found(tmp_path: Path) -> None:
    assert find_image(tmp_path, "x86_64") is None
    await made(tmp_path, "old", 1.0)
    newest = await made(tmp_path, "new", 3.0)
    await made(tmp_path, "mid", 2.0)
    await made(tmp_path, "other", 9.0, recipe="imported")
    await made(tmp_path, "arm", 9.0, arch="aarch64")
    assert find_image(tmp_path, "x86_64") == newest
    assert newest.packages == {"git": "1"} and newest.signed and newest.key == "new"


async def test_a_finished_image_is_read_only(tmp_path: Path) -> None:
    image = await made(tmp_path, "a")
    assert image.folder.root.stat().st_mode & 0o777 == 0o400


async def test_what_is_not_finished_is_no_image(tmp_path: Path) -> None:
    async with making(tmp_path, "makes", nobody):
        work_folder(tmp_path, "a")
        assert find_image(tmp_path, "x86_64") is None
    broken = images(tmp_path) / "broken"
    broken.mkdir()
    for text in ("", "[]", json.dumps({"recipe": recipe_sum("x86_64")})):
        ImageFolder(broken).manifest.write_text(text)
        assert find_image(tmp_path, "x86_64") is None
        assert store.read_image(ImageFolder(broken)) is None


async def test_what_an_interrupt_left_is_removed(tmp_path: Path) -> None:
    async with making(tmp_path, "makes", nobody):
        left = work_folder(tmp_path, "a")
        (left / "root.img").write_bytes(b"")
    async with making(tmp_path, "makes", nobody):
        assert not left.exists()


async def test_a_second_one_waits_and_says_for_whom(tmp_path: Path) -> None:
    waits = asyncio.Event()
    said: list[str] = []

    def note(progress: Progress) -> None:
        said.append(progress.what)
        waits.set()

    async def second() -> None:
        async with making(tmp_path, "second", note):
            said.append("in")

    async with making(tmp_path, "makes an image", nobody):
        task = asyncio.create_task(second())
        await waits.wait()
        assert not task.done()
    await task
    assert said[0] == f"waiting for another process: makes an image (pid {os.getpid()})"
    assert said[-1] == "in"


def test_a_recipe_is_of_one_architecture() -> None:
    assert recipe_sum("x86_64") != recipe_sum("aarch64")
    assert recipe_sum("x86_64") == recipe_sum("x86_64")


@pytest.mark.parametrize("name", store._INPUTS)
def test_each_input_of_the_recipe_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe_sum("x86_64")
    monkeypatch.setattr(store, "_INPUTS", tuple(one for one in store._INPUTS if one != name))
    assert recipe_sum("x86_64") != before
