"""Files of a workspace in the guest, by paths that somebody else chose. Standard library only.

The kernel resolves each step below the folder's own descriptor (`openat2`), so that no link and no
renaming leads out; and it checks as the workspace's user, so that a hard link lends nothing either.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from org.sandbox.vm import child
else:  # beside this file in the guest
    import child

_LIBC = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437  # the same number on every architecture
_BENEATH, _NO_MAGICLINKS = 0x08, 0x02
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other side.
_FILE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_BYTES, _MOST_PARTS = 1024, 64  # of a path


class PathRefused(Exception):
    """The path leads out, or names nothing that can be opened; the text is for whoever chose it."""


def opened(workspace: str, identity: child.Identity, path: str, flags: int) -> int:
    """A descriptor of the regular file at `path`; with `O_CREAT` its folders are made too.

    Raises `PathRefused`.
    """
    parts = _parts(path)
    with acting_as(identity):
        root = os.open(workspace, _FOLDER)
        try:
            if flags & os.O_CREAT:
                _make_folders(root, parts[:-1])
            fd = _open_beneath(root, "/".join(parts), flags | _FILE)
        except OSError as error:
            raise PathRefused(f"{_shown(path)} cannot be opened: {_reason(error)}") from error
        finally:
            os.close(root)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PathRefused(f"{_shown(path)} is no regular file")
    return fd


@contextmanager
def acting_as(identity: child.Identity) -> Iterator[None]:
    """What is opened or made within is so by the rights of that user. The agent has one thread."""
    if identity.uid == os.geteuid():
        yield
        return
    gid, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def prepared(folder: str, identity: child.Identity) -> str:
    """The workspace, made for its user if it was not there."""
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.mkdir(folder, 0o750)
        os.chown(folder, identity.uid, identity.gid)
    return folder


def _make_folders(root: int, parts: list[str]) -> None:
    folder = os.dup(root)
    try:
        for depth, part in enumerate(parts, 1):
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            below = _open_beneath(root, "/".join(parts[:depth]), _FOLDER)
            os.close(folder)
            folder = below
    finally:
        os.close(folder)


def _open_beneath(folder: int, path: str, flags: int) -> int:
    how = struct.pack("QQQ", flags, 0o666 if flags & os.O_CREAT else 0, _BENEATH | _NO_MAGICLINKS)
    fd = int(_LIBC.syscall(_OPENAT2, folder, os.fsencode(path), how, len(how)))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _parts(path: str) -> list[str]:
    if "\0" in path:
        raise PathRefused(f"{_shown(path)} holds a zero byte")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise PathRefused(f"{_shown(path)} is no valid text") from error
    if path.startswith("/"):
        raise PathRefused(f"{_shown(path)} is absolute; name it from the workspace on")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathRefused(f"{_shown(path)} holds `..`; name it from the workspace on")
    if size > _MOST_BYTES or len(parts) > _MOST_PARTS:
        raise PathRefused(f"{_shown(path)} is too long")
    if not parts or path.endswith(("/", "/.")):
        raise PathRefused(f"{_shown(path)} names no file")
    return parts


def _reason(error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return "it leads out of the workspace"
    if error.errno == errno.ENXIO:  # the writing end of a FIFO that nobody reads, or a socket
        return "no regular file"
    return error.strerror or str(error)


def _shown(path: str) -> str:
    """`path` on one line and not longer than a line."""
    line = path if path.isprintable() else path.encode("unicode_escape").decode("ascii")
    return f"`{line if len(line) <= 120 else line[:117] + '...'}`"
