"""Settings files: their text, and the values in it by key.

Errors name the file, the key, what was expected, and the nearest known key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from org.config.schema import FOREIGN_TABLES, KEYS, MEMBER_KEYS, Key, Member
from org.errors import ConfigError

PARTICIPANTS = "participant"
MAX_FILE_BYTES = 1_048_576


def read_text_of(path: Path | None) -> str:
    """The text of a settings file, empty when there is none. Raises `ConfigError`."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8") from error


def parse_file(text: str, path: str) -> dict[str, Any]:
    """The values of a settings file by key; `path` is what errors name. Raises `ConfigError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        what = str(error)[: place.start()].strip() if place else str(error)
        line = place[1] if place and place[1] else str(text.count("\n") + 1)
        raise ConfigError(f"{path}: line {line}: not valid TOML: {what}") from error
    known = {key.name: key for key in KEYS}
    tables = {name.split(".")[0] for name in known if "." in name}
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == PARTICIPANTS:
            values[PARTICIPANTS] = _members(value, path)
        elif name in FOREIGN_TABLES or name in tables:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: `{name}`: expected a table, `[{name}]`, not {_shown(value)}")
            if name in FOREIGN_TABLES:
                continue
            for inner, inner_value in value.items():
                key = _known(known, f"{name}.{inner}", path)
                values[key.name] = read_value(key, inner_value, path, key.name)
        else:
            key = _known(known, name, path, also=[*tables, *FOREIGN_TABLES, PARTICIPANTS])
            values[name] = read_value(key, value, path, name)
    return values


def _members(value: object, path: str) -> tuple[Member, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConfigError(
            f"{path}: `{PARTICIPANTS}`: expected tables, `[[{PARTICIPANTS}]]`, not {_shown(value)}"
        )
    known = {key.name: key for key in MEMBER_KEYS}
    members = []
    for number, entry in enumerate(value, 1):
        where = f"{path}: {PARTICIPANTS} {number}"
        read = {
            name: read_value(_known(known, name, where), given, where, name) for name, given in entry.items()
        }
        if "id" not in read:
            raise ConfigError(f"{where}: `id` is missing", 'for example id = "coder"')
        members.append(Member(**read))
    return unique(members, path)


def unique(members: Iterable[Member], where: str) -> tuple[Member, ...]:
    seen: dict[str, Member] = {}
    for member in members:
        if member.id in seen:
            raise ConfigError(f"{where}: two participants with the id `{member.id}`", "give one another id")
        seen[member.id] = member
    return tuple(seen.values())


def _known(known: Mapping[str, Key], name: str, where: str, also: Iterable[str] = ()) -> Key:
    if name in known:
        return known[name]
    if "api_key" in name:
        raise ConfigError(
            f"{where}: `{name}`: a key is not kept in a file", "set ORG_API_KEY in the environment"
        )
    choices = [*known, *also]
    shown = name if name.isprintable() else repr(name)
    near = difflib.get_close_matches(name, choices, 1) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1], [choice for choice in choices if "." not in choice], 1
    )
    if not near:
        # `turns` alone is most likely `limits.turns`.
        near = [choice for choice in choices if choice.rsplit(".", 1)[-1] == name]
    hint = f"did you mean `{near[0]}`?" if near else "known: " + ", ".join(choices)
    raise ConfigError(f"{where}: unknown key `{shown}`", hint)


def read_value(key: Key, value: object, where: str, name: str) -> Any:
    try:
        return key.read(value)
    except ValueError as error:
        why = f" ({error})" if str(error) else ""
        raise ConfigError(f"{where}: `{name}`: expected {key.expected}, not {_shown(value)}{why}") from None


def _shown(value: object) -> str:
    text = re.sub(r"//[^/@]*@", "//...@", repr(value))  # no password of a URL in an error
    return text if len(text) <= 60 else text[:57] + "..."
