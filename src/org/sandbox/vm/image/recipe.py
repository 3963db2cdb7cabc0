"""What goes into an image: packages by name, and files of our own. A change here makes new images. Pure."""

from __future__ import annotations

from collections.abc import Mapping

FORMAT = 1
SUITE = "bookworm"
SIZE = 8 << 30  # bytes of the root file system; the file is sparse
MTIME = 1_700_000_000  # of the files that come from here, so that equal inputs give equal trees

DEBIAN_ARCH: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names of the architectures by the kernel's. Only the first one was ever tried."""

# usr-is-merged stands in for a package that would merge what is merged here from the start.
WANTED = (
    *("usr-is-merged", "python3", "git", "tmux", "curl", "ca-certificates"),
    *("nftables", "ufw", "iproute2", "procps", "kmod"),
)
# Nobody reads manuals in a guest, and it starts from an initramfs of our own.
WITHOUT = ("usrmerge", "git-man", "initramfs-tools", "linux-initramfs-tool")
# What the second stage does itself, in a hundredth of the time.
CONFIGURED = ("ca-certificates",)
BUSYBOX = "busybox-static"
# Packages of which the second stage needs a few files before there is a root to run from.
MKFS = ("e2fsprogs", "libblkid1", "libc6", "libcom-err2", "libext2fs2", "libuuid1")

# What the initramfs loads, with what these depend on.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng")
# Folders of modules that the guest keeps: its firewall, and file systems that programs ask for.
ROOT_MODULES = (
    *("kernel/fs/fuse/", "kernel/fs/overlayfs/", "kernel/lib/"),
    *("kernel/net/ipv4/", "kernel/net/ipv6/", "kernel/net/netfilter/"),
    *("modules.builtin", "modules.order"),
)

FOLDERS = ("srv/org", "var/lib/dpkg/triggers", "var/lib/dpkg/updates")

# There is nobody to ask for a name: a resolver that tries would only wait.
_NSSWITCH = """\
passwd: files
group: files
shadow: files
gshadow: files
hosts: files
networks: files
protocols: files
services: files
ethers: files
rpc: files
"""

_DPKG = "force-unsafe-io\nforce-confold\n" + "".join(
    f"path-exclude=/usr/share/{name}/*\n" for name in ("doc", "info", "locale", "man")
)

FILES: Mapping[str, tuple[str, int]] = {
    "etc/dpkg/dpkg.cfg.d/org": (_DPKG, 0o644),
    "etc/fstab": ("", 0o644),
    "etc/hostname": ("org\n", 0o644),
    "etc/hosts": ("127.0.0.1 localhost org\n::1 localhost\n", 0o644),
    "etc/nsswitch.conf": (_NSSWITCH, 0o644),
    "etc/resolv.conf": ("", 0o644),
    "usr/sbin/policy-rc.d": ("#!/bin/sh\n# No service is started by its installation.\nexit 101\n", 0o755),
    "var/lib/dpkg/available": ("", 0o644),
    "var/lib/dpkg/diversions": ("", 0o644),
    "var/lib/dpkg/statoverride": ("", 0o644),
}
"""Path -> (content, mode). A file of that path in a package gives way."""


def kernel(debian_arch: str) -> str:
    """The package that depends on the newest kernel for virtual machines."""
    return f"linux-image-cloud-{debian_arch}"
