"""What a machine's own root finds in it: its devices, and what its firmware tells of the host.

Where the rights for an attempt are missing, that is what held.
"""

from __future__ import annotations

import base64
import ctypes
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.intruder.basics import FELL, HELD, UNKNOWN, Finding, Given, read, refused
else:  # sent along with this part
    from basics import FELL, HELD, UNKNOWN, Finding, Given, read, refused

_LIBC = ctypes.CDLL(None, use_errno=True)
# Classes of PCI devices of a machine of ours: bridges, disk controllers, the system management bus,
# and of virtio only disk, serial port and random numbers, by their old and their new number.
_PLAIN = ("0600", "0601", "0604", "0106", "0c05")
_VIRTIO = ("1001", "1042", "1003", "1043", "1005", "1044")
_SHARING = ("9p", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "vboxsf", "prl_fs", "vmhgfs", "fuse.vmhgfs-fuse",
            "fuse.sshfs")  # fmt: skip
_VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "nbd")
_SELECTOR, _DATA = 0x510, 0x511  # of QEMU's own configuration device
_DIRECTORY = 0x19
# Of debugging devices, by which a guest can write to its host, end it or make it stop.
_DEBUG_PORTS = {
    0x402: "a debug console",
    0x501: "a debug exit",
    0xF4: "a debug exit",
    0x505: "a panic device",
}
_READ_PORT = b"\x89\xfa\x31\xc0\xec\xc3"  # mov edx, edi; xor eax, eax; in al, dx; ret
_WRITE_PORT = b"\x89\xfa\x89\xf0\x66\xef\xc3"  # mov edx, edi; mov eax, esi; out dx, ax; ret


def virtio_ports(given: Given) -> Finding:
    folder = "/sys/class/virtio-ports"
    found = [] if not os.path.isdir(folder) else os.listdir(folder)
    names = sorted(read(f"{folder}/{port}/name").decode().strip() for port in found)
    others = [name for name in names if name not in given["known"]]
    if others:
        return FELL, f"there is {', '.join(others)}"
    return HELD, f"only {', '.join(names) or 'none'}"


def taken(given: Given) -> Finding:
    """A device that somebody has must not be had twice."""

    def take() -> None:
        os.close(os.open(given["path"], os.O_RDWR | os.O_NONBLOCK))

    return refused({f"opened {given['path']}": take})


def pci(given: Given) -> Finding:
    folder, others, count = "/sys/bus/pci/devices", [], 0
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        kind, vendor, device = (
            read(f"{folder}/{name}/{part}").decode().strip()[2:] for part in ("class", "vendor", "device")
        )
        count += 1
        if not (device in _VIRTIO if vendor == "1af4" else kind[:4] in _PLAIN):
            others.append(f"{vendor}:{device} (class {kind[:4]})")
    if others:
        return FELL, f"there is {', '.join(others)}"
    return HELD, f"{count} devices: no network, no USB, nothing of the host's"


def disks(given: Given) -> Finding:
    """Every disk is the one that the root lies on."""
    mounts = [line.split() for line in read("/proc/mounts").decode().splitlines()]
    roots = {os.path.basename(source) for source, target, *_ in mounts if target == "/"}
    names = [name for name in sorted(os.listdir("/sys/block")) if not name.startswith(_VIRTUAL_DISKS)]
    others = [name for name in names if name not in roots]
    if others:
        return FELL, f"there is {', '.join(others)}"
    return HELD, f"only {', '.join(names) or 'none'}"


def shares(given: Given) -> Finding:
    """Folders of the host, there already or to be had by a name that is often used."""
    for line in read("/proc/mounts").decode().splitlines():
        _, target, kind, *_ = line.split()
        if kind in _SHARING:
            return FELL, f"{target} is a folder of elsewhere ({kind})"

    def mount(kind: str, tag: str) -> None:
        options = b"trans=virtio" if kind == "9p" else b""
        if _LIBC.mount(tag.encode(), b"/mnt", kind.encode(), 0, options):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _LIBC.umount2(b"/mnt", 2)

    return refused(
        {
            f"mounted `{tag}` ({kind})": lambda kind=kind, tag=tag: mount(kind, tag)  # type: ignore[misc]
            for kind in ("9p", "virtiofs")
            for tag in ("host", "share", "hostshare", "shared", "root", "home")
        }
    )


def firmware(given: Given) -> Finding:
    """All that the firmware says, for the other side to look for what it should not know."""
    seen, files = b"", 0
    for folder in ("/sys/class/dmi/id", "/sys/firmware/acpi/tables", "/sys/firmware/dmi/tables"):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if data := read(f"{folder}/{name}"):
                seen += data + b"\n"
                files += 1
    return HELD, f"{len(seen)} bytes in {files} tables", _given(seen + read("/proc/cmdline"))


def environments(given: Given) -> Finding:
    """The words and variables of every process that can be seen, and the files of the machine's own."""
    seen = b""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid():
            seen += read(f"/proc/{pid}/environ") + b"\n" + read(f"/proc/{pid}/cmdline") + b"\n"
    for folder in ("/run/org", "/root", "/etc"):
        for name in sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else ():
            if os.path.isfile(f"{folder}/{name}"):
                seen += read(f"{folder}/{name}")
    return HELD, f"{len(seen)} bytes of processes and files", _given(seen)


def physical(given: Given) -> Finding:
    """The first megabyte of memory, where firmware leaves what it was told."""
    try:
        with open("/dev/mem", "rb", buffering=0) as file:
            seen = b""
            for start in (0x0, 0xC0000, 0xE0000, 0xF0000):
                file.seek(start)
                seen += file.read(4096 if start == 0 else 65_536)
    except OSError as error:
        return HELD, error.strerror or str(error)
    return HELD, f"{len(seen)} bytes of its own", _given(seen)


def _given(seen: bytes) -> str:
    return base64.b64encode(seen[:400_000]).decode()


class _Ports:
    """Input and output ports of the processor. Raises `OSError` without the right to them."""

    def __init__(self) -> None:
        if os.uname().machine != "x86_64":
            raise OSError("this machine has no such ports")
        if _LIBC.iopl(3):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_READ_PORT.ljust(64, b"\xcc") + _WRITE_PORT)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._read = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint16)(base)
        self._write = ctypes.CFUNCTYPE(None, ctypes.c_uint16, ctypes.c_uint32)(base + 64)

    def read(self, port: int) -> int:
        return int(self._read(port))

    def write(self, port: int, value: int) -> None:
        self._write(port, value)

    def configuration(self, item: int, size: int) -> bytes:
        """Of QEMU's configuration device, an item's beginning."""
        self.write(_SELECTOR, item)
        return bytes(self.read(_DATA) for _ in range(size))


def debug_ports(given: Given) -> Finding:
    try:
        ports = _Ports()
    except OSError as error:
        return HELD, error.strerror or str(error)
    for port, name in _DEBUG_PORTS.items():
        if ports.read(port) != 0xFF:
            return FELL, f"{name} answers at port {port:#x}"
    ports.write(0x80, 0x42)
    return HELD, "nothing answers at " + ", ".join(f"{port:#x}" for port in (0x80, *_DEBUG_PORTS))


def configuration(given: Given) -> Finding:
    """QEMU's configuration device: which files there are, and what is in them for a name to be in."""
    try:
        ports = _Ports()
    except OSError as error:
        return HELD, error.strerror or str(error)
    if ports.configuration(0, 4) != b"QEMU":
        return HELD, "there is none"
    count = int.from_bytes(ports.configuration(_DIRECTORY, 4), "big")
    if count > 200:
        return UNKNOWN, f"it says that it has {count} files"
    ports.write(_SELECTOR, _DIRECTORY)
    entries = bytes(ports.read(_DATA) for _ in range(4 + 64 * count))[4:]
    files = {}
    for start in range(0, len(entries), 64):
        size, item = (
            int.from_bytes(entries[start : start + 4]),
            int.from_bytes(entries[start + 4 : start + 6]),
        )
        files[entries[start + 8 : start + 64].rstrip(b"\0").decode("latin-1")] = size, item
    seen = b"".join(
        name.encode("latin-1") + b"\n" + ports.configuration(item, min(size, 4096))
        for name, (size, item) in files.items()
    )
    given_in = [name for name in files if name.startswith("opt/")]
    if given_in:
        return FELL, f"the host put in {', '.join(given_in)}", _given(seen)
    return HELD, f"{len(files)} files, all of QEMU's own", _given(seen)
