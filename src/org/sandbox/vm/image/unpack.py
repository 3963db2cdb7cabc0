"""Packages into one tar of a root file system, as `dpkg --unpack` would leave it: usr-merged, with
dpkg's own records, nothing configured yet."""

from __future__ import annotations

import copy
import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from org.errors import EnvironmentProblem
from org.sandbox.vm.image.index import paragraphs

# /bin and its like are links into /usr, which no package brings: members below move there.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# A guest has no reader of these; a third of all files.
LEFT_OUT = (
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/doc-base/",
    "usr/share/doc/",
    "usr/share/gitweb/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/vim/",
)
_BLOCK = 1 << 20


def members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """The members of a package's outer archive, (name, data). Raises `EnvironmentProblem`."""
    with deb.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise EnvironmentProblem(f"not a Debian package: {deb}")
        while len(header := file.read(60)) == 60:
            size = int(header[48:58])
            yield header[:16].decode("ascii", "replace").rstrip(" /"), file.read(size)
            file.seek(size % 2, 1)


def parts(deb: Path) -> tuple[tarfile.TarFile, tarfile.TarFile]:
    """The control and the data archive of a package. Raises `EnvironmentProblem`."""
    found: dict[str, tarfile.TarFile] = {}
    for name, data in members(deb):
        kind, _, packed = name.partition(".tar")
        if kind not in ("control", "data"):
            continue
        if packed not in ("", ".gz", ".xz"):
            raise EnvironmentProblem(f"packed in a way that this Python cannot read: {deb} ({name})")
        # Unpacked at once: reading xz through the tar's own small reads takes twice as long.
        plain = lzma.decompress(data) if packed == ".xz" else data
        found[kind] = tarfile.open(fileobj=io.BytesIO(plain))  # noqa: SIM115 - in memory; the caller reads it
    try:
        return found["control"], found["data"]
    except KeyError as error:
        raise EnvironmentProblem(f"a package without its {error} part: {deb}") from error


class RootTar:
    """A root file system, written as one tar to `path`: `with RootTar(...) as root: root.add(...)`."""

    def __init__(self, path: Path, mtime: int) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by __exit__
        self._mtime = mtime
        self._seen: set[str] = set()
        self._status: list[str] = []
        self._merged: set[str] = set()

    def __enter__(self) -> RootTar:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Write what only the end knows, the links of merged folders and dpkg's records."""
        with self._tar:
            if kind is None:
                for name in sorted(self._merged):
                    self.symlink(name, f"usr/{name}")
                self.file("var/lib/dpkg/status", "".join(self._status).encode())

    def add(self, deb: Path, state: str) -> None:
        """Add a package, which dpkg is to know in `state` (`unpacked`, `installed`).

        Raises `EnvironmentProblem`.
        """
        control, data = parts(deb)
        with control, data:
            scripts = {
                member.name.removeprefix("./"): (member.mode, _read(control, member))
                for member in control
                if member.isfile()
            }
            fields = next(paragraphs(scripts["control"][1].decode()))
            name = fields["Package"]
            if fields.get("Multi-Arch") == "same":
                name += ":" + fields["Architecture"]
            listed, sums = self._data(data, _conffiles(scripts))
        self.file(f"var/lib/dpkg/info/{name}.list", ("\n".join(listed) + "\n").encode())
        for member_name, (mode, content) in scripts.items():
            if member_name != "control":
                self.file(f"var/lib/dpkg/info/{name}.{member_name}", content, mode & 0o755)
        self._status.append(_paragraph(scripts["control"][1].decode(), state, sums))

    def _data(self, data: tarfile.TarFile, conffiles: frozenset[str]) -> tuple[list[str], Mapping[str, str]]:
        """The paths of a package as dpkg lists them, and the sums of its configuration files."""
        listed, sums = [], {}
        for member in data:
            path = member.name.removeprefix("./").rstrip("/")
            listed.append("/" + path if path not in ("", ".") else "/.")
            if path in ("", "."):
                continue
            if "/" + path in conffiles:
                sums["/" + path] = hashlib.md5(_read(data, member), usedforsecurity=False).hexdigest()
            place = self._place(path)
            if place is None or place.startswith(LEFT_OUT):
                continue
            moved = copy.copy(member)
            moved.name = place
            if member.islnk():
                moved.linkname = self._place(member.linkname.removeprefix("./")) or member.linkname
            if member.isdir():
                if place in self._seen:
                    continue
                self._seen.add(place)
            self._tar.addfile(moved, data.extractfile(member) if member.isreg() else None)
        return listed, sums

    def _place(self, path: str) -> str | None:
        """Where a member goes; None for a folder that is a link here."""
        top, slash, rest = path.partition("/")
        if top not in MERGED:
            return path
        self._merged.add(top)
        self.folder(f"usr/{top}")
        return f"usr/{top}/{rest}" if slash else None

    def folder(self, path: str, mode: int = 0o755) -> None:
        if path in self._seen:
            return
        self._seen.add(path)
        info = self._info(path, mode)
        info.type = tarfile.DIRTYPE
        self._tar.addfile(info)

    def symlink(self, path: str, target: str) -> None:
        info = self._info(path, 0o777)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        info = self._info(path, mode)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def _info(self, path: str, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.mode, info.mtime = mode, self._mtime
        info.uname = info.gname = "root"
        return info


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _conffiles(scripts: Mapping[str, tuple[int, bytes]]) -> frozenset[str]:
    lines = scripts.get("conffiles", (0, b""))[1].decode().splitlines()
    return frozenset(line.strip() for line in lines if line.startswith("/"))


def _paragraph(control: str, state: str, conffiles: Mapping[str, str]) -> str:
    """What dpkg's status file says of a package."""
    text = control.strip("\n") + f"\nStatus: install ok {state}\n"
    if conffiles:
        text += "Conffiles:\n" + "".join(f" {path} {md5}\n" for path, md5 in sorted(conffiles.items()))
    return text + "\n"
