"""Names of the files of an image and of a machine. Nothing here looks at a disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """An image is a folder, read-only once it is there. `path` is `<cache>/images/<key>`."""

    path: Path

    @property
    def root(self) -> Path:
        """The root file system: raw ext4 without a partition table, sparse."""
        return self.path / "root.img"

    @property
    def kernel(self) -> Path:
        return self.path / "vmlinuz"

    @property
    def modules(self) -> Path:
        """What the initramfs loads: `*.ko`, and `order` with their names, one a line."""
        return self.path / "modules"

    @property
    def busybox(self) -> Path:
        return self.path / "busybox"

    @property
    def mkfs(self) -> Path:
        """A part of an initramfs: the program that makes file systems, for imports."""
        return self.path / "mkfs.cpio"

    @property
    def machines(self) -> Path:
        """Links to the folders of the machines that stand on it, wherever these are."""
        return self.path / "machines"

    @property
    def manifest(self) -> Path:
        """JSON: recipe, architecture, packages with versions and sums. Written last."""
        return self.path / "manifest.json"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The state of a machine that was halted. `path` is `<cache>/snapshots/<key>` for one that others
    are forked from, which has all these files, or `<machine>/suspended`."""

    path: Path

    @property
    def state(self) -> Path:
        """That of its devices, with its memory unless that is in `ram`."""
        return self.path / "state"

    @property
    def ram(self) -> Path:
        """Its memory, sparse. Whoever maps it keeps what it changes to itself."""
        return self.path / "ram"

    @property
    def disk(self) -> Path:
        """What it had written, over the image's root."""
        return self.path / "disk.qcow2"

    @property
    def initrd(self) -> Path:
        return self.path / "initrd.cpio"

    @property
    def manifest(self) -> Path:
        """JSON: whom it fits, and marks of its files. Written last."""
        return self.path / "manifest.json"


@dataclass(frozen=True, slots=True)
class MachineFolder:
    """A machine is a folder that only its owner may enter. `path` is `<state>/machines/<name>`."""

    path: Path

    @property
    def overlay(self) -> Path:
        """What the machine wrote since it was made, over the image's root."""
        return self.path / "overlay.qcow2"

    @property
    def ram(self) -> Path:
        """Its own copy of the memory that it is forked from; removed when QEMU has opened it."""
        return self.path / "ram"

    @property
    def initrd(self) -> Path:
        return self.path / "initrd.cpio"

    @property
    def ctl(self) -> Path:
        """The socket at the host end of the port `org.ctl`, QEMU listens."""
        return self.path / "ctl"

    @property
    def net(self) -> Path:
        """The socket at the host end of the port `org.net`, QEMU listens."""
        return self.path / "net"

    @property
    def qmp(self) -> Path:
        return self.path / "qmp"

    @property
    def console(self) -> Path:
        """What the guest's kernel and init said."""
        return self.path / "console"

    @property
    def socket(self) -> Path:
        """The supervisor's socket, for the verbs and the sandbox."""
        return self.path / "ctl.sock"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def image(self) -> Path:
        """The key of the image that its disk stands on."""
        return self.path / "image"

    @property
    def id(self) -> Path:
        """By which its guest knows itself, 32 hexadecimal digits."""
        return self.path / "id"

    @property
    def memory(self) -> Path:
        """How much it was started with, in MiB."""
        return self.path / "memory"

    @property
    def port(self) -> Path:
        """Where its port 7001 appears on this machine."""
        return self.path / "port"

    @property
    def base(self) -> Path:
        """The model server that it was given by name; missing when it has the settings' one."""
        return self.path / "base"

    @property
    def suspended(self) -> Path:
        """Where it is to go on, a `StateFolder`; there is none when it is to be booted."""
        return self.path / "suspended"

    @property
    def unsaved(self) -> Path:
        """Why it was not suspended when it went down the last time, a line; missing when it was."""
        return self.path / "unsaved"

    @property
    def suspending(self) -> Path:
        """What becomes that."""
        return self.path / ".suspending"


def images(cache: Path) -> Path:
    """The folder of all images. `cache` is the user's cache folder of this program."""
    return cache / "images"


def packages(cache: Path) -> Path:
    """Packages as they were fetched, each named by its sum."""
    return cache / "packages"


def bundles(cache: Path) -> Path:
    """This program with its packages, as archives for guests."""
    return cache / "guest-org"


def snapshots(cache: Path) -> Path:
    """The folder of all snapshots that machines are forked from."""
    return cache / "snapshots"


def machines(state: Path) -> Path:
    """The folder of all machines. `state` is the user's state folder of this program."""
    return state / "machines"


def fetched(state: Path, machine: str, room: str) -> Path:
    """The bare repository of what was fetched from a room's workspace in a machine."""
    return state / "fetched" / machine / f"{room}.git"
