"""This very version of the program with the packages it needs, as one archive for a guest.

The archive is a virtual environment of the guest's own Python, to be unpacked to `HOME/<key>`; its key
is the sum of what it is made from. Bytecode is not in it: the guest makes that.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from org.sandbox.vm import layout
from org.sandbox.vm.image.recipe import MTIME
from org.sandbox.vm.image.store import OnProgress, Progress
from org.sandbox.vm.wheels import File, Target, fetched, files_in, installed, pinned, pins

HOME = "/opt/org"
_FORMAT = 1
_KEPT = 3  # archives in the cache


def own_files() -> list[File]:
    """The files of this program itself."""
    return list(files_in(Path(str(resources.files("org"))), "org/"))


def key_of(target: Target) -> str:
    """What the archive for a guest is called. Reads this program's files."""
    made_of = hashlib.sha256(f"{_FORMAT} {target} {pinned()}".encode())
    for file in own_files():
        made_of.update(f"{file.name} ".encode() + hashlib.sha256(file.path.read_bytes()).digest())
    return made_of.hexdigest()[:24]


def archive_for(target: Target, key: str, cache: Path, on_progress: OnProgress) -> Path:
    """The archive, made when the cache has it not. Raises `EnvironmentProblem`."""
    folder = layout.bundles(cache)
    path = folder / f"{key}.tar"
    if path.exists():
        os.utime(path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f"{key}.{secrets.token_hex(4)}.part"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _write(work, target, key, _packages(target, Path(scratch), on_progress))
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
    for old in sorted(folder.glob("*.tar"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def _packages(target: Target, scratch: Path, on_progress: OnProgress) -> list[File]:
    wanted = pins(pinned())
    on_progress(Progress("packing org and its packages"))
    here = {pin.name: installed(pin, target) for pin in wanted}
    missing = [pin for pin in wanted if here[pin.name] is None]
    found = [file for files in here.values() for file in files or ()]
    if missing:
        on_progress(Progress(f"fetching packages: {', '.join(pin.name for pin in missing)}"))
        found += fetched(missing, target, scratch)
    return [*own_files(), *found]


def _write(path: Path, target: Target, key: str, files: list[File]) -> None:
    site = f"lib/python{target.short}/site-packages"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode, text in _environment(target, key):
            _add(archive, name, text.encode(), mode)
        link = tarfile.TarInfo("bin/python")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, target.program, MTIME
        archive.addfile(link)
        for file in sorted(files, key=lambda one: one.name):
            _add(archive, f"{site}/{file.name}", file.path.read_bytes(), 0o644)


def _environment(target: Target, key: str) -> Iterator[tuple[str, int, str]]:
    """(name, mode, text) of what makes a folder a virtual environment, and of its one program."""
    version = ".".join(map(str, target.python))
    home = os.path.dirname(target.program)
    yield "pyvenv.cfg", 0o644, f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n"
    # Isolated: neither the folder it is started in nor a variable can put other modules in its way.
    yield (
        "bin/org",
        0o755,
        (f"#!{HOME}/{key}/bin/python -I\nimport sys\n\nfrom org.__main__ import main\n\nsys.exit(main())\n"),
    )


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, MTIME
    archive.addfile(member, io.BytesIO(data))
