"""Which project files the person trusts.

`<state>/trust.json` holds `{"version": 1, "folders": {real path of a folder: text of its org.toml}}`.
The text is kept, not only the folder: a file that changes (by a pull, by a tool) is no longer trusted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from org.errors import ConfigError, EnvironmentProblem

TRUST_FILE = "trust.json"


def is_trusted(state: Path, project_file: Path, text: str) -> bool:
    """Whether `org trust` was said for this file when it held this text."""
    return _load(state).get(_folder(project_file)) == text


def trust(state: Path, project_file: Path, text: str) -> None:
    """Remember that the file may say this text. Raises `EnvironmentProblem` when it cannot be written."""
    _save(state, {**_load(state), _folder(project_file): text})


def distrust(state: Path, project_file: Path) -> bool:
    """Forget the file's folder; whether it was known."""
    folders = _load(state)
    known = folders.pop(_folder(project_file), None) is not None
    if known:
        _save(state, folders)
    return known


def _folder(project_file: Path) -> str:
    return str(project_file.parent.resolve())


def _load(state: Path) -> dict[str, str]:
    path = state / TRUST_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}", "remove it, then run `org trust` again"
        ) from error
    folders = stored.get("folders") if isinstance(stored, dict) and stored.get("version") == 1 else None
    if not isinstance(folders, dict):
        raise ConfigError(f"{path}: not a list of trusted folders", "remove it, then run `org trust` again")
    return folders


def _save(state: Path, folders: dict[str, str]) -> None:
    path = state / TRUST_FILE
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"version": 1, "folders": folders}, indent=1), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be written: {error}") from error
