"""Files of a workspace, by paths that somebody else chose. Linux only.

A path is walked from the folder's own descriptor, one component at a time, and no component is
ever followed as a symbolic link by the kernel: links are read and walked here. So it does not
matter what is renamed or replaced meanwhile; what was opened lies inside. Calls are short (local
disk, at most a few megabytes) and made directly.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from org.errors import EnvironmentProblem, SandboxGone, UsageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other side.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_LINKS = 16
_MOST_BYTES, _MOST_PARTS = 1024, 64  # of a path


def read(workspace: Path, path: str, limit: int) -> bytes:
    """Up to `limit` bytes. Raises `UsageError` for a path outside, or what is no readable file."""
    with ExitStack() as stack:
        fd = _open(stack, workspace, path, os.O_RDONLY, make=False)
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(limit)


def write(workspace: Path, path: str, data: bytes, *, append: bool) -> None:
    """Replace the content or append to it, making the file and its folders.

    Raises `UsageError` for a path outside, or what is no writable file.
    """
    with ExitStack() as stack:
        fd = _open(stack, workspace, path, os.O_WRONLY | os.O_CREAT | (append and os.O_APPEND), make=True)
        try:
            if not append:
                os.ftruncate(fd, 0)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError as error:
            raise EnvironmentProblem(f"{_shown(path)} cannot be written: {error.strerror}") from error


def _open(stack: ExitStack, workspace: Path, path: str, flags: int, *, make: bool) -> int:
    """A descriptor of the regular file at `path`; `stack` closes it, and the folders on the way."""
    parts = _parts(path)
    try:
        folders = [os.open(workspace, _FOLDER & ~os.O_NOFOLLOW)]
    except OSError as error:
        raise SandboxGone(f"the workspace `{workspace}` is gone: {error.strerror}") from error
    stack.callback(os.close, folders[0])
    links = 0
    try:
        while True:
            part = parts.pop(0)
            if part == "..":  # only ever from a link
                folders.pop()
                if not folders:
                    raise UsageError(f"{_shown(path)} leads out of the workspace")
                if not parts:
                    raise UsageError(f"{_shown(path)} is a folder")
                continue
            target = _link(part, folders[-1])
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise UsageError(f"{_shown(path)} goes through too many symbolic links")
                if target.startswith("/"):
                    raise UsageError(f"{_shown(path)} leads out of the workspace by a symbolic link")
                parts = [name for name in target.split("/") if name not in ("", ".")] + parts
                if not parts:
                    raise UsageError(f"{_shown(path)} is a folder")
                continue
            if not parts:
                fd = os.open(part, flags | _FILE, 0o666, dir_fd=folders[-1])
                stack.callback(os.close, fd)
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise UsageError(f"{_shown(path)} is no regular file")
                return fd
            folders.append(_enter(part, folders[-1], make=make))
            stack.callback(os.close, folders[-1])
    except OSError as error:
        raise UsageError(f"{_shown(path)} cannot be opened: {_reason(error)}") from error


def _parts(path: str) -> list[str]:
    if "\0" in path:
        raise UsageError(f"{_shown(path)} holds a zero byte")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise UsageError(f"{_shown(path)} is no valid text") from error
    if path.startswith("/"):
        raise UsageError(f"{_shown(path)} is absolute; name it from the workspace on")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"{_shown(path)} holds `..`; name it from the workspace on")
    if size > _MOST_BYTES or len(parts) > _MOST_PARTS:
        raise UsageError(f"{_shown(path)} is too long")
    if not parts or path.endswith(("/", "/.")):
        raise UsageError(f"{_shown(path)} names no file")
    return parts


def _link(part: str, folder: int) -> str | None:
    """Where the symbolic link `part` leads; None when it is none, or not there."""
    try:
        return os.readlink(part, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _enter(part: str, folder: int, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
    return os.open(part, _FOLDER, dir_fd=folder)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENXIO:  # the writing end of a FIFO that nobody reads, or a socket
        return "no regular file"
    if error.errno == errno.ELOOP:
        return "it was replaced by a symbolic link"
    return error.strerror or str(error)


def _shown(path: str) -> str:
    """`path` on one line and not longer than a line."""
    line = path.encode("unicode_escape").decode("ascii")
    if path.isprintable():
        line = path
    return f"`{line if len(line) <= 120 else line[:117] + '...'}`"
