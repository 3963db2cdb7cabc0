"""From flags, environment and files to one `Settings`: flag > environment > project > user > default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from org.config import trust
from org.config.files import PARTICIPANTS, parse_file, read_text_of, read_value, unique
from org.config.places import Places, find_places
from org.config.schema import (
    DEFAULT_ROSTER,
    KEYS,
    Key,
    Limits,
    MachineChoice,
    Member,
    Policy,
    SandboxChoice,
    Timeouts,
    ToolPolicies,
    parse_with,
    read_id,
    section,
)
from org.config.urls import base_url, is_loopback, origin
from org.errors import ConfigError

YES = "yes"  # flag -y: what would be asked is run
WITH = "with"  # flag --with, may be repeated


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it comes from: `flag`, `environment NAME`, a file's path, or `default`."""

    key: str
    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was set, resolved.

    `model` is None when nobody chose one. `base` is a canonical base URL. `sources` maps each key
    (`limits.turns`, `participant`, ...) to its source. `refused` is what the project's file asked
    for and did not get, as `key = value`. `color` is False when NO_COLOR is set.
    """

    model: str | None
    base: str
    policy: Policy
    name: str
    context_tokens: int | None
    parallel: int
    per_model: int
    limits: Limits
    participants: tuple[Member, ...]
    tools: ToolPolicies
    sandbox: SandboxChoice
    vm: MachineChoice
    client: Timeouts
    places: Places
    color: bool
    sources: Mapping[str, str]
    refused: tuple[str, ...]
    _key: str = field(default="", repr=False, compare=False)
    _key_source: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each value that the project's file asked for and did not get."""
        path = self.places.project_file
        return tuple(
            f"{path}: ignored, not trusted: {value} (to allow it: `org trust {path.parent}`)"
            for value in self.refused
            if path is not None
        )

    def api_key(self, base: str) -> str:
        """The API key for a server, or an empty text. It goes to the chosen server (`base`) only,
        never to another that a participant names."""
        return self._key if origin(base) == origin(self.base) else ""

    def entries(self) -> tuple[Setting, ...]:
        """Every value with its source, in the order of the table; the API key's never among them."""
        shown = [Setting(key.name, _value_of(self, key.name), self.sources[key.name]) for key in KEYS]
        shown.append(Setting(PARTICIPANTS, self.participants, self.sources[PARTICIPANTS]))
        if self._key:
            shown.append(Setting("api_key", "set, not shown", self._key_source))
        return tuple(shown)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source sets. `source(key)` names it for a key."""

    values: Mapping[str, Any]
    source: Callable[[str], str]
    is_project: bool = False


def load(*, cwd: Path, flags: Mapping[str, object], env: Mapping[str, str]) -> Settings:
    """The settings that hold in the folder `cwd`.

    `flags` maps keys of the table to what the command line said (None: not given), besides `with`
    (a sequence of `id=profile[:model]`) and `yes` (True: run what would be asked). Raises
    `ConfigError`, naming file, key, what was expected and the nearest known key.
    """
    places = find_places(cwd, env)
    user_text = read_text_of(places.user_file)
    project_text = read_text_of(places.project_file)
    layers = [
        _flag_layer(flags),
        _environment_layer(env),
        _file_layer(places.project_file, project_text, is_project=True),
        _file_layer(places.user_file, user_text),
        _default_layer(env),
    ]
    resolver = _Resolver(layers, places, project_text)
    values = {key.name: resolver.value(key) for key in KEYS}
    participants = resolver.participants()
    sources = resolver.sources
    if flags.get(YES):
        for name in section(values, "tools"):
            if values[f"tools.{name}"] == "ask":
                values[f"tools.{name}"], sources[f"tools.{name}"] = "run", "flag"
    values["name"] = _own_name(values["name"], sources["name"], participants)
    key, key_source = _api_key(env, sources["base"])
    return Settings(
        **{name: value for name, value in values.items() if "." not in name},
        limits=Limits(**section(values, "limits")),
        participants=participants,
        tools=ToolPolicies(**section(values, "tools")),
        sandbox=SandboxChoice(**section(values, "sandbox")),
        vm=MachineChoice(**section(values, "vm")),
        client=Timeouts(**section(values, "client")),
        places=places,
        color=not env.get("NO_COLOR"),
        sources=MappingProxyType(sources),
        refused=tuple(resolver.refused),
        _key=key,
        _key_source=key_source,
    )


class _Resolver:
    """Picks each value from the first layer that sets it and may."""

    def __init__(self, layers: Sequence[_Layer], places: Places, project_text: str) -> None:
        self._layers = layers
        self._places = places
        self._project_text = project_text
        self._trusted: bool | None = None  # not looked up yet
        self.sources: dict[str, str] = {}
        self.refused: list[str] = []

    def value(self, key: Key) -> Any:
        for layer in self._layers:
            if key.name not in layer.values:
                continue
            value = layer.values[key.name]
            guarded = layer.is_project and key.guard(value, self._without_project(key.name))
            if guarded and not self._is_trusted():
                self.refused.append(f"{key.name} = {value}")
                continue
            self.sources[key.name] = layer.source(key.name)
            return value
        raise AssertionError(f"{key.name} has no default")

    def participants(self) -> tuple[Member, ...]:
        layer = next(layer for layer in self._layers if PARTICIPANTS in layer.values)
        self.sources[PARTICIPANTS] = layer.source(PARTICIPANTS)
        members: tuple[Member, ...] = layer.values[PARTICIPANTS]
        if not layer.is_project:
            return members
        return tuple(self._guard_member(member) for member in members)

    def _guard_member(self, member: Member) -> Member:
        ours = self._without_project("base")
        if member.base is None or member.base == ours or is_loopback(member.base) or self._is_trusted():
            return member
        self.refused.append(f"{PARTICIPANTS} {member.id}: base = {member.base}")
        return replace(member, base=None)

    def _without_project(self, name: str) -> Any:
        """What the person's own file, or else the default, says."""
        return next(layer.values[name] for layer in self._layers[-2:] if name in layer.values)

    def _is_trusted(self) -> bool:
        if self._trusted is None:
            assert self._places.project_file is not None
            self._trusted = trust.is_trusted(
                self._places.state, self._places.project_file, self._project_text
            )
        return self._trusted


# -- layers


def _flag_layer(flags: Mapping[str, object]) -> _Layer:
    known = {key.name: key for key in KEYS}
    values: dict[str, Any] = {}
    for name, value in flags.items():
        if name == WITH and value:
            assert isinstance(value, Sequence)
            values[PARTICIPANTS] = unique([_with(text) for text in value], "--with")
        elif name not in (WITH, YES) and value is not None:
            values[name] = read_value(known[name], value, "flag", name)
    return _Layer(values, lambda name: "flag")


def _with(text: str) -> Member:
    try:
        return parse_with(text)
    except ValueError as error:
        raise ConfigError(
            f"--with {text}: expected {error}", "for example --with coder=agent:qwen3:8b"
        ) from None


def _environment_layer(env: Mapping[str, str]) -> _Layer:
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for key in KEYS:
        variable = next((name for name in key.env if env.get(name)), None)
        if variable is None:
            continue
        variables[key.name] = variable
        values[key.name] = read_value(_as_env(key, variable), env[variable], "environment", variable)
    return _Layer(values, lambda name: f"environment {variables[name]}")


def _as_env(key: Key, variable: str) -> Key:
    if variable not in ("OLLAMA_HOST", "OLLAMA_BASE"):
        return key
    return Key(key.name, key.expected, lambda value: base_url(str(value), ollama=True), None, "")


def _file_layer(path: Path | None, text: str, *, is_project: bool = False) -> _Layer:
    if path is None:
        return _Layer({}, lambda name: "")
    return _Layer(parse_file(text, str(path)), lambda name: str(path), is_project)


def _default_layer(env: Mapping[str, str]) -> _Layer:
    values: dict[str, Any] = {key.name: key.default for key in KEYS}
    values[PARTICIPANTS] = DEFAULT_ROSTER
    login = re.sub(r"[^a-z0-9_-]+", "-", env.get("USER", "").lower()).strip("-_")
    with suppress(ValueError):  # no valid id in it: the table's own default stands
        values["name"] = read_id(login)
    return _Layer(values, lambda name: "default")


# -- the rest


def _own_name(name: str, source: str, participants: Sequence[Member]) -> str:
    if name not in {member.id for member in participants}:
        return name
    if source == "default":
        return "me"
    raise ConfigError(f"{source}: `name`: a participant has the id `{name}` too", "choose another name")


def _api_key(env: Mapping[str, str], base_source: str) -> tuple[str, str]:
    if env.get("ORG_API_KEY"):
        return _sendable(env["ORG_API_KEY"], "environment ORG_API_KEY")
    # OPENAI_API_KEY is set on many machines for other programs: it goes only to a server that was
    # named for it, never to one found by an Ollama variable or by default.
    named = base_source != "default" and not base_source.startswith("environment OLLAMA_")
    key = env.get("OPENAI_API_KEY", "") if named else ""
    return _sendable(key, "environment OPENAI_API_KEY") if key else ("", "")


def _sendable(key: str, source: str) -> tuple[str, str]:
    """Both; what no header of a request can hold is refused here, and not shown."""
    if not re.fullmatch("[!-~]+", key):
        raise ConfigError(f"{source}: no API key: it may have printable ASCII only, and no blanks")
    return key, source


def _value_of(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
