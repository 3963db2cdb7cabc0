"""Where files of the user and of the project lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from org.errors import ConfigError

PROJECT_FILE = "org.toml"


@dataclass(frozen=True, slots=True)
class Places:
    """`user_file` and `project_file` are None when there is none; the folders need not exist."""

    config: Path
    state: Path
    cache: Path
    user_file: Path | None
    project_file: Path | None

    @property
    def rooms(self) -> Path:
        """The folder of all rooms."""
        return self.state / "rooms"


def find_places(cwd: Path, env: Mapping[str, str]) -> Places:
    """Follows XDG. Raises `ConfigError` when ORG_CONFIG names no file."""
    home = Path(env.get("HOME") or Path.home())
    config = _folder(env, "XDG_CONFIG_HOME", home / ".config")
    return Places(
        config=config,
        state=_folder(env, "XDG_STATE_HOME", home / ".local" / "state"),
        cache=_folder(env, "XDG_CACHE_HOME", home / ".cache"),
        user_file=_user_file(config, env),
        project_file=_project_file(cwd, home),
    )


def _folder(env: Mapping[str, str], variable: str, default: Path) -> Path:
    named = env.get(variable, "")
    # A relative one is invalid and to be ignored, says the XDG specification.
    return (Path(named) if named.startswith("/") else default) / "org"


def _user_file(config: Path, env: Mapping[str, str]) -> Path | None:
    named = env.get("ORG_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"ORG_CONFIG names no file: {named}", "unset ORG_CONFIG, or create the file")
        return Path(named)
    path = config / "config.toml"
    return path if path.is_file() else None


def _project_file(cwd: Path, home: Path) -> Path | None:
    """The nearest `org.toml` from `cwd` up to the root of the git checkout or the home folder.

    Outside of both, only `cwd` itself is looked at: a parent such as /tmp may be anybody's.
    """
    cwd, home = cwd.resolve(), home.resolve()
    upward = [cwd, *cwd.parents]
    end = next((i for i, folder in enumerate(upward) if folder == home or (folder / ".git").exists()), 0)
    for folder in upward[: end + 1]:
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
    return None
