"""`[generation]` of a program's `org.toml`: how one is started, and how its health is asked. Pure.

Whatever else stands in the file is not ours to judge: it may belong to another version.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from org.errors import ConfigError

FILE = "org.toml"
MOST_S = 3600.0
"""Nobody waits longer for a generation to come up, or to drain."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`start` is run in the generation's worktree; `health` is a path; `ports` are current's and candidate's.

    Timeouts are in seconds, `MOST_S` at most: how long one may take until it is healthy, and until it has
    drained. `env` is added to its environment. `contract` is the version of the contract that it knows, 0
    for none.
    """

    start: tuple[str, ...]
    health: str = "/health"
    ready_timeout: float = 60.0
    drain_timeout: float = 30.0
    ports: tuple[int, int] = (7001, 7002)
    env: Mapping[str, str] = field(default_factory=dict)
    contract: int = 0


def read(text: str) -> Settings:
    """Raises `ConfigError` when the text is no TOML, has no `[generation] start`, or a value is off."""
    table = parse(text).get("generation")
    if not isinstance(table, dict) or "start" not in table:
        raise ConfigError(
            f"{FILE} does not say how a generation starts",
            '[generation]\nstart = "python -m shop"\nhealth = "/health"',
        )
    known = Settings(start=())
    return Settings(
        _command(table["start"]),
        _path(table.get("health", known.health)),
        _seconds(table, "ready_timeout", known.ready_timeout),
        _seconds(table, "drain_timeout", known.drain_timeout),
        _ports(table.get("ports", known.ports)),
        _texts(table.get("env", {})),
        _contract(table.get("contract", known.contract)),
    )


def parse(text: str, name: str = FILE) -> dict[str, Any]:
    """What TOML says, whoever wrote it. Raises `ConfigError`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is no TOML: {error}") from None
    except ValueError:
        raise ConfigError(f"{name} is no TOML: a number has too many digits") from None
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply") from None


def _command(value: object) -> tuple[str, ...]:
    """A command as one text or as a list of words; no shell reads it."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise _off("start", f"{error}".lower()) from None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise _off("start", "must be a command, as one text or as a list of words")
    if not words[0] or any("\0" in word for word in words):
        raise _off("start", "no program has an empty name, and no word a NUL in it")
    return tuple(words)


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or " " in value:
        raise _off("health", 'must be a path such as "/health"')
    return value


def _seconds(table: Mapping[str, object], name: str, default: float) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_S:
        raise _off(name, f"must be a number of seconds above 0, and {MOST_S:g} at most")
    return float(value)


def _ports(value: object) -> tuple[int, int]:
    match value:
        case [int(current), int(candidate)] if current != candidate:
            if all(0 < port < 65536 and port is not True for port in (current, candidate)):
                return current, candidate
    raise _off("ports", "must be two port numbers: current's and the candidate's")


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _off("env", "must be a table of texts")
    for name, text in value.items():
        if not name or "=" in name or "\0" in name + text:
            raise _off("env", f"{name!r}: a name is not empty and has no `=`, and nothing a NUL")
    return dict(value)


def _contract(value: object) -> int:
    if isinstance(value, bool) or value not in (0, 1):
        raise _off("contract", "must be 1, or 0 for a program that knows none")
    return int(value == 1)


def _off(name: str, what: str) -> ConfigError:
    return ConfigError(f"[generation] {name} in {FILE}: {what}")
