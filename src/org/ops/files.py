"""Small files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from org.errors import EnvironmentProblem


def write_json(path: Path, value: Mapping[str, object]) -> None:
    fresh = path.with_name(f".{path.name}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, str] | None:
    """A flat object of texts, or None when there is no such file. Raises `EnvironmentProblem`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise EnvironmentProblem(f"{path} is not what org wrote", "remove it, then `org recover`")
    return value


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
