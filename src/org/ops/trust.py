"""Whether the person lets a program say how it is started: `org trust` was said for its `org.toml`.

`trust.json` in the user's state folder belongs to `org trust`; here it is only read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from org.errors import ConfigError
from org.ops.layout import state_folder
from org.ops.settings import FILE


def require(env: Mapping[str, str], folder: Path, text: str) -> None:
    """Raises `ConfigError` unless that text, as what the folder's `org.toml` says, was trusted."""
    path = state_folder(env) / "trust.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stored = {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}", "remove it, then run `org trust` again"
        ) from error
    folders = stored.get("folders") if isinstance(stored, dict) else None
    if not isinstance(folders, dict) or folders.get(str(folder)) != text:
        raise ConfigError(
            f"not trusted: {folder / FILE}, as it is on main, says what is started here",
            f"read it, then `org trust {folder}`",
        )
