"""The making of an image from its beginning to its end, with a made-up archive and a stand-in for QEMU."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_kit import Server, deb, publish, serving
from org.errors import EnvironmentProblem
from org.sandbox.vm import layout
from org.sandbox.vm.image import Progress, build_image, find_image, recipe

DONE = "echo org-image: step configure; echo 'Setting up git (1) ...'; echo org-image: done"


class Bench:
    """An archive, a cache, and a program in QEMU's place that does what `qemu` is set to."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.cache = folder / "cache"
        self.runs = folder / "runs"
        self._script = folder / "bin" / "qemu-system-x86_64"
        self._script.parent.mkdir()
        self.qemu(DONE)

    def qemu(self, does: str) -> None:
        self._script.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && exit\necho "$@" >>{self.runs}\n'
            # The accelerator's probe sees no kernel, and is answered no.
            f'case "$*" in *accel=kvm*) exit 1;; esac\n{does}\n'
        )
        self._script.chmod(0o755)

    async def build(self, said: list[Progress] | None = None, *, refresh: bool = False) -> object:
        seen = said if said is not None else []
        mirror = self.server.address
        return await build_image(
            self.cache, mirror=mirror, arch="x86_64", on_progress=seen.append, refresh=refresh
        )

    def fetched(self) -> list[str]:
        return [path for path, _ in self.server.asked if path.endswith(".deb")]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    debs_folder = tmp_path / "debs"
    debs_folder.mkdir()
    debs = {
        name: deb(debs_folder, name, {f"./usr/share/{name}": b"x"}) for name in (*recipe.WANTED, *recipe.MKFS)
    }
    modules: dict[str, bytes | str] = {
        f"./lib/modules/6.1/kernel/{name}.ko": b"\0depends=\0" for name in recipe.BOOT_MODULES
    }
    meta, kernel = recipe.kernel("amd64"), "linux-image-6.1.0-1-cloud-amd64"
    debs[meta] = deb(debs_folder, meta, {})
    debs[kernel] = deb(debs_folder, kernel, {"./boot/vmlinuz-6.1": b"kernel", **modules})
    debs[recipe.BUSYBOX] = deb(debs_folder, recipe.BUSYBOX, {"./bin/busybox": b"box"})
    with serving() as server:
        publish(server, debs)
        monkeypatch.setattr(recipe, "WANTED", (*recipe.WANTED, *recipe.MKFS, kernel))
        one = Bench(server, tmp_path)
        # gpgv stays out of sight: nobody signed this archive.
        monkeypatch.setenv("PATH", f"{one._script.parent}:{tmp_path}")
        (tmp_path / "sleep").symlink_to("/bin/sleep")
        yield one


async def test_an_image_is_made_and_told_about(bench: Bench) -> None:
    said: list[Progress] = []
    image = await build_image(
        bench.cache, mirror=bench.server.address, arch="x86_64", on_progress=said.append
    )
    steps = list(dict.fromkeys(progress.what for progress in said))
    assert steps == [
        "reading the archive's index",
        "fetching",
        "unpacking",
        "looking for an accelerator",
        "configure",
    ]
    fetching = [progress for progress in said if progress.what == "fetching"][-1]
    assert fetching.bytes_done == fetching.bytes_total > 0
    assert fetching.packages_done == fetching.packages_total == len(image.packages)
    assert said[-1].packages_done == 1
    assert image.folder.kernel.read_bytes() == b"kernel"
    assert image.folder.root.stat().st_size == recipe.SIZE
    assert (image.folder.modules / "order").read_text().splitlines() == [
        f"{n}.ko" for n in recipe.BOOT_MODULES
    ]
    assert find_image(bench.cache, "x86_64") == image
    assert not image.signed
    assert sorted(path.name for path in layout.images(bench.cache).iterdir()) == [".lock", image.key]


async def test_the_second_time_nobody_is_asked(bench: Bench) -> None:
    first = await bench.build()
    bench.server.asked.clear()
    runs = bench.runs.read_text()
    assert await bench.build() == first
    assert bench.server.asked == []
    assert bench.runs.read_text() == runs


async def test_a_refresh_asks_and_keeps_what_is_still_the_newest(bench: Bench) -> None:
    first = await bench.build()
    bench.server.asked.clear()
    assert await bench.build(refresh=True) == first
    assert bench.server.asked and bench.fetched() == []


async def test_two_at_once_make_one(bench: Bench) -> None:
    said: list[Progress] = []
    one, two = await asyncio.gather(bench.build(), bench.build(said))
    assert one == two
    assert len(bench.fetched()) == len(set(bench.fetched()))
    assert said[0].what.startswith("waiting for another process: makes an image (pid ")


async def test_an_interrupted_one_ends_its_guest_and_keeps_its_packages(bench: Bench) -> None:
    bench.qemu("echo org-image: step configure; echo $$ >$0.pid; exec sleep 600")
    started = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.what == "configure":
            started.set()

    task = asyncio.create_task(
        build_image(bench.cache, mirror=bench.server.address, arch="x86_64", on_progress=note)
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert find_image(bench.cache, "x86_64") is None
    bench.qemu(DONE)
    bench.server.asked.clear()
    await bench.build()
    assert bench.fetched() == []


async def test_an_interrupt_while_fetching_stops_the_threads(bench: Bench) -> None:
    fetching = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.what == "fetching":
            fetching.set()

    task = asyncio.create_task(
        build_image(bench.cache, mirror=bench.server.address, arch="x86_64", on_progress=note)
    )
    await fetching.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked = len(bench.server.asked)
    assert find_image(bench.cache, "x86_64") is None
    await bench.build()
    assert len(bench.server.asked) > asked


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("echo org-image: failed: cannot configure the packages", "cannot configure the packages"),
        ("echo Kernel panic; exit 1", "Kernel panic"),
        ("exit 0", "could not be made"),
    ],
)
async def test_a_stage_that_fails_is_told_by_its_last_words(bench: Bench, does: str, words: str) -> None:
    bench.qemu(does)
    with pytest.raises(EnvironmentProblem, match=words):
        await bench.build()
    assert find_image(bench.cache, "x86_64") is None


async def test_a_package_that_was_changed_is_refused(bench: Bench) -> None:
    bench.server.files["pool/git.deb"] = b"x" * len(bench.server.files["pool/git.deb"])
    with pytest.raises(EnvironmentProblem, match=r"not what the archive's index promises: .*git\.deb"):
        await bench.build()


async def test_an_unknown_architecture_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        await build_image(tmp_path, arch="pdp11")
    assert "x86_64" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_the_root_holds_the_recipes_files_last(bench: Bench, tmp_path: Path) -> None:
    kept = tmp_path / "kept.tar"
    # The tar is the second disk; it is gone when the image is there.
    find = f"for w; do case $w in *file=*/root.tar,*) w=${{w#*file=}}; /bin/ln ${{w%%,*}} {kept};; esac; done"
    bench.qemu(f"{find}\n{DONE}")
    await bench.build()
    with tarfile.open(kept) as tar:
        names = tar.getnames()
        file = tar.extractfile("etc/nsswitch.conf")
        assert file is not None and b"hosts: files\n" in file.read()
    assert names[-1] == "var/lib/dpkg/status"
    assert names.index("etc/hosts") > names.index("var/lib/dpkg/info/git.list")
    assert "bin/busybox" not in names
