"""The packages that this program needs, for a guest's Python: those that are installed here when they
would run there, the others fetched, each as pinned and checked against its sums."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from org.errors import EnvironmentProblem
from org.wording import one_line

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:\s+--hash=sha256:[0-9a-f]{64})+")
_PLATFORM = re.compile(r"manylinux_(\d+)_(\d+)_(.+)")
_LEGACY = {
    "manylinux1": "manylinux_2_5",
    "manylinux2010": "manylinux_2_12",
    "manylinux2014": "manylinux_2_17",
}
_FETCH_S = 600.0


@dataclass(frozen=True, slots=True)
class Target:
    """What packages are to run on: the version of its Python, its program there, the kernel's name of the
    processor, and the version of the GNU C library."""

    python: tuple[int, int, int]
    program: str
    arch: str
    glibc: tuple[int, int]

    @property
    def short(self) -> str:
        """As in the names of folders: `3.11`."""
        return f"{self.python[0]}.{self.python[1]}"


@dataclass(frozen=True, slots=True)
class Pin:
    """A package at a version; `line` is how an installer is told so, with the sums of its files."""

    name: str
    version: str
    line: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of a package: where it lies below `site-packages`, and here."""

    name: str
    path: Path


def pinned() -> str:
    """The packages that this version was tried with, as text."""
    return resources.files("org.sandbox.vm").joinpath("requirements.txt").read_text("utf-8")


def pins(text: str) -> tuple[Pin, ...]:
    """The packages of a text with pins. Raises `ValueError` for what is none."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    found = []
    for line in joined:
        match = _PIN.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"no pin: {line}")
        found.append(Pin(match[1], match[2], line.strip()))
    return tuple(found)


def fits(tag: str, target: Target) -> bool:
    """Whether a wheel of that tag (`cp311-cp311-manylinux_2_17_x86_64`) runs there."""
    python, abi, platform = tag.split("-")
    major, minor, _ = target.python
    if (abi, platform) == ("none", "any"):
        return python in (f"py{major}", f"py{major}{minor}")
    kind, _, rest = platform.partition("_")
    built = _PLATFORM.fullmatch(f"{_LEGACY.get(kind, kind)}_{rest}")
    if built is None or built[3] != target.arch or (int(built[1]), int(built[2])) > target.glibc:
        return False
    if abi == "abi3":
        return python.startswith(f"cp{major}") and int(python[3:]) <= minor
    return python == f"cp{major}{minor}" and abi in (python, "none")


def installed(pin: Pin, target: Target) -> list[File] | None:
    """The package's files as they are installed here, when this very version would run there and each
    file is still what was installed."""
    try:
        found = metadata.distribution(pin.name)
    except metadata.PackageNotFoundError:
        return None
    tags = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    if found.version != pin.version or found.files is None or not any(fits(tag, target) for tag in tags):
        return None
    kept = []
    for file in found.files:
        if ".." in file.parts or not _belongs(file.as_posix()):
            continue  # a program of its own, or what the installer noted
        path = Path(str(file.locate()))
        if file.hash is not None and file.hash.value != _sum(path, file.hash.mode):
            return None
        kept.append(File(file.as_posix(), path))
    return kept


def _belongs(name: str) -> bool:
    noted = ("INSTALLER", "REQUESTED", "direct_url.json")
    return not name.endswith(".pyc") and not (".dist-info/" in name and name.endswith(noted))


def _sum(path: Path, mode: str) -> str:
    """The sum of a file as a RECORD has it; empty for one that cannot be read."""
    try:
        digest = hashlib.new(mode, path.read_bytes()).digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def fetched(missing: Sequence[Pin], target: Target, folder: Path) -> list[File]:
    """Fetch packages into `folder`, an empty one, and check their sums; their files.

    Raises `EnvironmentProblem`.
    """
    names = ", ".join(pin.name for pin in missing)
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{pin.line}\n" for pin in missing), encoding="utf-8")
    place = folder / "site"
    words = [*_installer(target, names), "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    words += ["--target", str(place), "-r", str(wanted)]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_FETCH_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(names, f"it took more than {_FETCH_S:g} s") from error
    if done.returncode:
        raise _not_fetched(names, done.stderr.decode(errors="replace").strip())
    return list(files_in(place))


def _not_fetched(names: str, reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"packages for the machine cannot be fetched ({names}): {one_line(reason, 400)}",
        "check the network, or the settings of pip",
    )


def _installer(target: Target, missing: str) -> list[str]:
    """What installs packages for another machine than this: pip, or uv where that installed this program."""
    if importlib.util.find_spec("pip") is not None:
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--implementation", "cp"]
        words += ["--disable-pip-version-check", "--no-input", "--python-version", target.short]
        return words + [word for platform in _platforms(target) for word in ("--platform", platform)]
    uv = shutil.which("uv")
    if uv is None:
        raise EnvironmentProblem(
            f"packages for the machine are not installed here, and nothing can fetch them: {missing}",
            "install pip or uv",
        )
    words = [uv, "pip", "install", "--quiet", "--no-config", "--python-version", target.short]
    return [*words, "--python-platform", f"{target.arch}-unknown-linux-gnu"]


def _platforms(target: Target) -> Iterator[str]:
    """The names of all platforms that run there, newest first."""
    major, newest = target.glibc
    for minor in range(newest, 4, -1):
        yield f"manylinux_{major}_{minor}_{target.arch}"
    for old in reversed(_LEGACY):
        yield f"{old}_{target.arch}"


def files_in(folder: Path, below: str = "") -> Iterator[File]:
    """The files of a folder, in order, but for bytecode and programs; `below` is put before their names."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and "__pycache__" not in path.parts
            and not name.startswith("bin/")
            and _belongs(name)
        ):
            yield File(below + name, path)
