"""Small files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

from org.errors import EnvironmentProblem

_WHOSE = "`ls -ld` on it and its folder says whose they are"
_NEXT = "mend that, then `org recover`; `--debug` says where it was met"


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Raises `EnvironmentProblem`, for a full disk say."""
    fresh = path.with_name(f".{path.name}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise problem(error, path) from error


def read_json(path: Path, *names: str) -> dict[str, str] | None:
    """A flat object of texts, of exactly these names when any are given, or None when there is no such file.

    Raises `EnvironmentProblem`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, IsADirectoryError):
        value = None
    if (
        not isinstance(value, dict)
        or not all(isinstance(text, str) for text in value.values())
        or (names and value.keys() != set(names))
    ):
        raise EnvironmentProblem(f"{path} is not what org wrote", "remove it, then `org recover`")
    return value


def problem(error: OSError, path: Path | str = "") -> EnvironmentProblem:
    """What the system refused, said as an error of ours; `path` is for one that names none."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | Path) else str(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentProblem(f"the disk is full: {name or error}", "make room, then `org recover`")
    why = error.strerror or str(error) or type(error).__name__
    hint = _WHOSE if error.errno in (errno.EACCES, errno.EPERM) else _NEXT
    return EnvironmentProblem(f"{name}: {why}" if name else why, hint)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
