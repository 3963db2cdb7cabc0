"""This very version of the program with the packages it needs, as one archive for a guest.

The archive is a virtual environment of the guest's own Python, to be unpacked to `HOME/<key>`; its key
is the sum of what it is made from. Bytecode is in it when the Python of this host makes what that of the
guest reads: an emulated guest is slow at making it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import py_compile
import secrets
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.util import cache_from_source
from pathlib import Path

from org.sandbox.vm import layout
from org.sandbox.vm.image.recipe import MTIME
from org.sandbox.vm.image.store import OnProgress, Progress
from org.sandbox.vm.wheels import File, Target, fetched, files_in, installed, pinned, pins

HOME = "/opt/org"
ABOUT = "about.json"
"""The file that says what an archive is, see `about`."""

_FORMAT = 2
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


def about(target: Target, key: str) -> str:
    """What an archive says of itself."""
    return json.dumps([key, target.python, target.program, target.arch, target.glibc])


def compiled(target: Target) -> bool:
    """Whether there is bytecode in the archive for a guest."""
    return sys.implementation.name == "cpython" and target.python[:2] == sys.version_info[:2]


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
            files = _packages(target, Path(scratch), on_progress)
            _write(work, target, key, files, Path(scratch))
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


def _write(path: Path, target: Target, key: str, files: list[File], scratch: Path) -> None:
    site = f"lib/python{target.short}/site-packages"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode, text in _environment(target, key):
            _add(archive, name, text.encode(), mode)
        link = tarfile.TarInfo("bin/python")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, target.program, MTIME
        archive.addfile(link)
        for file in sorted(files, key=lambda one: one.name):
            name = f"{site}/{file.name}"
            _add(archive, name, file.path.read_bytes(), 0o644)
            if name.endswith(".py") and compiled(target):
                _add_bytecode(archive, name, file.path, f"{HOME}/{key}/{name}", scratch / "bytecode")


def _add_bytecode(archive: tarfile.TarFile, name: str, source: Path, there: str, made: Path) -> None:
    """That of a module, as Python itself would make it at its place."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # nobody changes what is installed
    try:
        py_compile.compile(str(source), str(made), there, doraise=True, invalidation_mode=unchecked)
    except py_compile.PyCompileError:
        return  # no module, but a template of one
    _add(archive, cache_from_source(name), made.read_bytes(), 0o644)


def _environment(target: Target, key: str) -> Iterator[tuple[str, int, str]]:
    """(name, mode, text) of what makes a folder a virtual environment, and of its one program."""
    version = ".".join(map(str, target.python))
    home = os.path.dirname(target.program)
    yield ABOUT, 0o644, about(target, key) + "\n"
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
