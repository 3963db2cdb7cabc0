"""Images on the disk: found by what they were made from, made by one process at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from org.errors import EnvironmentProblem
from org.sandbox.vm import layout
from org.sandbox.vm.image import recipe
from org.sandbox.vm.layout import ImageFolder
from org.sandbox.vm.turns import turn

_MAKING = ".making-"
# What decides, beside the packages, what an image holds.
_INPUTS = (
    *("image/build.py", "image/parts.py", "image/recipe.py", "image/unpack.py"),
    *("guest/second_stage", "guest/configure", "guest/accounts"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an image is. `what` names the step; a total of 0 is not known yet, and `seconds_left`,
    of this step, is None until it is."""

    what: str
    bytes_done: int = 0
    bytes_total: int = 0
    packages_done: int = 0
    packages_total: int = 0
    seconds_left: float | None = None


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is there. `packages` maps names to versions (none for an imported root);
    `signed` says whether the archive's signatures were checked while it was made."""

    folder: ImageFolder
    key: str
    arch: str
    packages: Mapping[str, str]
    signed: bool


def recipe_sum(arch: str) -> str:
    """What identifies the recipe of images for `arch`, the packages' versions aside."""
    package = resources.files("org.sandbox.vm")
    texts = [str(recipe.FORMAT).encode(), arch.encode()]
    texts += [package.joinpath(name).read_bytes() for name in _INPUTS]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def read_image(folder: ImageFolder) -> Image | None:
    """The image of a folder, None when it is none or not finished."""
    manifest = _manifest(folder)
    if manifest is None:
        return None
    return Image(folder, folder.path.name, manifest["arch"], manifest["packages"], manifest["signed"])


def find_image(cache: Path, arch: str) -> Image | None:
    """The newest image of this program's own recipe, None when it is still to be made."""
    wanted = recipe_sum(arch)
    found = [
        (manifest["made_at"], folder)
        for path in layout.images(cache).glob("*")
        if (manifest := _manifest(folder := ImageFolder(path))) and manifest["recipe"] == wanted
    ]
    return read_image(max(found, key=lambda one: one[0])[1]) if found else None


def finish(work: Path, cache: Path, key: str, manifest: Mapping[str, Any]) -> Image:
    """Make the folder `work` the image `key`: read-only, the manifest last, then under its name."""
    folder = ImageFolder(work)
    folder.root.chmod(0o400)
    folder.manifest.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    target = layout.images(cache) / key
    if target.exists():  # unfinished or of another time: nothing that is in use has this key
        shutil.rmtree(target)
    work.replace(target)
    image = read_image(ImageFolder(target))
    if image is None:
        raise EnvironmentProblem(f"an image that was just made is not there: {target}")
    return image


@asynccontextmanager
async def making(cache: Path, what: str, on_progress: OnProgress) -> AsyncIterator[None]:
    """Be the only one who makes images in `cache`. Somebody else is waited for, and named to
    `on_progress`. What an interrupted making left behind is removed first."""
    folder = layout.images(cache)
    folder.mkdir(parents=True, exist_ok=True)
    layout.packages(cache).mkdir(parents=True, exist_ok=True)

    def waiting(text: str) -> None:
        on_progress(Progress(text))

    async with turn(folder / ".lock", what, waiting):
        for stale in folder.glob(f"{_MAKING}*"):
            shutil.rmtree(stale)
        yield


def folder_of(cache: Path, key: str) -> ImageFolder:
    return ImageFolder(layout.images(cache) / key)


def work_folder(cache: Path, key: str) -> Path:
    """A new folder to make the image `key` in. Only within `making`."""
    work = layout.images(cache) / f"{_MAKING}{key}"
    work.mkdir(mode=0o700)
    return work


def _manifest(folder: ImageFolder) -> dict[str, Any] | None:
    try:
        manifest = json.loads(folder.manifest.read_text())
    except (OSError, ValueError):
        return None
    fields = {"arch", "made_at", "packages", "recipe", "signed"}
    return manifest if isinstance(manifest, dict) and fields <= manifest.keys() else None
