"""What the kernel starts from: a cpio archive of busybox, the modules that reach the disk, and the
guest side of this very version, packed anew at each start of a machine."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from org.sandbox.vm.layout import ImageFolder

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of the archive: `mode` with its file type, `data` a file's content or a link's target."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def pack(entries: Iterable[Entry]) -> bytes:
    """The entries as a `newc` archive, folders that they lack put before them."""
    out = bytearray()
    made: set[str] = set()
    number = 0
    for entry in entries:
        parents = entry.path.split("/")[:-1]
        missing = ["/".join(parents[: depth + 1]) for depth in range(len(parents))]
        for one in [*(folder(path) for path in missing if path not in made), entry]:
            number += 1
            made.add(one.path)
            _append(out, one, number)
    _append(out, Entry(_TRAILER, 0), 0)
    return bytes(out)


def _append(out: bytearray, entry: Entry, number: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device of the file system, device, length of name, sum
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out += _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)


def for_machine(image: ImageFolder, guest: Mapping[str, bytes]) -> bytes:
    """The archive that starts a machine of `image`. `guest` are the files of the guest side by name, as
    they will lie in `/run/org`; `boot.py` among them is what runs first there, see `guest_side`."""
    entries = [*base(image.busybox.read_bytes(), modules(image)), file("init", script("init"), 0o755)]
    entries.append(file("fstab", script("fstab")))
    entries.append(file("org/nftables.conf", script("nftables.conf")))
    entries += [file(f"org/{name}", data) for name, data in sorted(guest.items())]
    return pack(entries)


def base(busybox: bytes, modules: Mapping[str, bytes]) -> list[Entry]:
    """What every start needs. `modules` in the order in which they are to be loaded."""
    return [
        *(folder(name) for name in ("dev", "proc", "root", "sys")),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
        file("bin/busybox", busybox, 0o755),
        file("modules/order", "".join(f"{name}\n" for name in modules).encode()),
        *(file(f"modules/{name}", data) for name, data in modules.items()),
    ]


def guest_side(names: Iterable[str]) -> dict[str, bytes]:
    """The named modules of this package, as files for the guest."""
    package = resources.files("org.sandbox.vm")
    return {name: package.joinpath(name).read_bytes() for name in names}


def script(name: str) -> bytes:
    """A file of the package's `guest` folder."""
    return resources.files("org.sandbox.vm").joinpath("guest", name).read_bytes()


def modules(image: ImageFolder) -> dict[str, bytes]:
    """The modules that reach the disk, in the order in which they are loaded, by file name."""
    order = (image.modules / "order").read_text().split()
    return {name: (image.modules / name).read_bytes() for name in order}
