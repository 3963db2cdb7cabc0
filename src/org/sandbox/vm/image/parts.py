"""What starts a guest, out of packages: the kernel, its modules, busybox, and a program that makes file
systems."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from org.errors import EnvironmentProblem
from org.sandbox.vm import initramfs
from org.sandbox.vm.image.unpack import RootTar, parts

_LIBRARY = re.compile(r"(usr/)?lib(64)?/([a-z0-9_]+-linux-gnu/)?(ld-|lib)[^/]*\.so[^/]*")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def kernel(deb: Path) -> tuple[bytes, dict[str, bytes]]:
    """The kernel of a package, and its files below `lib/modules/<version>/`, by their path from `lib/`.

    Raises `EnvironmentProblem`.
    """
    image, modules = b"", {}
    control, data = parts(deb)
    with control, data:
        for member in data:
            path = member.name.removeprefix("./").removeprefix("usr/")
            if member.isreg() and path.startswith("boot/vmlinuz-"):
                image = _content(data, member)
            elif member.isreg() and path.startswith("lib/modules/"):
                modules[path] = _content(data, member)
    if not image or not modules:
        raise EnvironmentProblem(f"a package without a kernel: {deb}")
    return image, modules


def in_order(modules: Mapping[str, bytes], names: Iterable[str]) -> dict[str, bytes]:
    """The named modules and what they depend on, in the order in which they must be loaded, by file
    name. Raises `EnvironmentProblem` for one that is not there."""
    by_name = {
        path.rsplit("/", 1)[1].removesuffix(".ko").replace("-", "_"): path
        for path in modules
        if path.endswith(".ko")
    }
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        path = by_name.get(name.replace("-", "_"))
        if path is None:
            raise EnvironmentProblem(f"the kernel has no module `{name}`")
        found = _DEPENDS.search(modules[path])
        for needed in found[1].decode().split(",") if found else []:
            if needed:
                add(needed)
        ordered.setdefault(path.rsplit("/", 1)[1], modules[path])

    for name in names:
        add(name)
    return ordered


def add_modules(root: RootTar, modules: Mapping[str, bytes], kept: tuple[str, ...]) -> None:
    """Put the modules below the folders `kept` into the root."""
    for path, content in modules.items():
        if path.split("/", 3)[3].startswith(kept):
            root.file(f"usr/{path}", content)


def busybox(deb: Path) -> bytes:
    """The program of a static busybox's package. Raises `EnvironmentProblem`."""
    control, data = parts(deb)
    with control, data:
        for member in data:
            if member.isreg() and member.name.endswith("bin/busybox"):
                return _content(data, member)
    raise EnvironmentProblem(f"a package without busybox: {deb}")


def mkfs(debs: Iterable[Path]) -> list[initramfs.Entry]:
    """What `mke2fs` needs to run from an initramfs."""
    entries = []
    for deb in debs:
        control, data = parts(deb)
        with control, data:
            for member in data:
                path = member.name.removeprefix("./")
                if path.endswith("sbin/mke2fs"):
                    entries.append(initramfs.file("sbin/mke2fs", _content(data, member), 0o755))
                elif path == "etc/mke2fs.conf":
                    entries.append(initramfs.file(path, _content(data, member)))
                elif _LIBRARY.fullmatch(path) and member.issym():
                    entries.append(initramfs.link(path, member.linkname))
                elif _LIBRARY.fullmatch(path) and member.isreg():
                    entries.append(initramfs.file(path, _content(data, member), 0o755))
    return entries


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""
