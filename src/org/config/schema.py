"""What can be set: one table of keys, and the readers of single values. Pure.

Every reader takes a value as TOML or the command line gives it and returns the value that `org`
uses; it raises `ValueError` when the value is not of the expected kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from org.config.urls import DEFAULT_BASE, base_url, is_loopback

Policy: TypeAlias = Literal["in-turn", "parallel", "mention"]
Allow: TypeAlias = Literal["run", "ask", "off"]
Place: TypeAlias = Literal["auto", "bubblewrap", "local", "vm"]
ProfileName: TypeAlias = Literal["agent", "python", "simple"]

POLICIES = ("in-turn", "parallel", "mention")
ALLOWS = ("off", "ask", "run")  # from narrow to wide
PLACES = ("auto", "bubblewrap", "local", "vm")
PROFILES: tuple[ProfileName, ...] = ("agent", "python", "simple")

RESERVED_IDS = frozenset({"group", "all", "everyone", "system", "user", "assistant", "tool"})
_ID = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_ARCHIVE = re.compile(r"https?://[^\s/@?#]+(/[^\s?#]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an exchange stops: turns, wall seconds, tokens and tool calls; `steps` within one turn."""

    turns: int
    seconds: float
    tokens: int
    tools: int
    steps: int


@dataclass(frozen=True, slots=True)
class Member:
    """A participant as configured; None takes the room's or the profile's own."""

    id: str
    profile: ProfileName = "agent"
    model: str | None = None
    base: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ToolPolicies:
    """Who allows a call of each tool; `embedded` is for calls found in text, whatever the tool."""

    sh: Allow
    python_run: Allow
    chat_mode: Allow
    embedded: Allow


@dataclass(frozen=True, slots=True)
class SandboxChoice:
    """Where tools run. With `require` there is no room without a sandbox, with `"vm"` none without a
    machine; otherwise the room opens and its tools are off."""

    place: Place
    require: bool | Literal["vm"]


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """Where the packages of a machine come from; None takes the archives of this host's apt."""

    mirror: str | None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without a sign of life from the server, and for a connection to come about."""

    idle_timeout_s: float
    connect_timeout_s: float


DEFAULT_ROSTER = (
    Member("coder", "agent"),
    Member("calc", "python"),
    Member("guide", "simple"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be set.

    `expected` says in words what `read` takes. `env` are the variables that set it, the first one
    that is set wins. `guard(theirs, ours)` says whether a project's value needs the person's trust,
    given the value that holds without the project.
    """

    name: str
    expected: str
    read: Callable[[object], Any]
    default: Any
    about: str
    env: tuple[str, ...] = ()
    guard: Callable[[Any, Any], bool] = lambda theirs, ours: False


# -- readers of single values


def read_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def read_id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value) or value in RESERVED_IDS:
        raise ValueError
    return value


def read_base(value: object) -> str:
    return base_url(read_text(value))


def read_archive(value: object) -> str:
    text = read_text(value).strip()
    if not _ARCHIVE.fullmatch(text):
        raise ValueError
    return text.rstrip("/")


def read_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def read_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError
    return value


def read_temperature(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise ValueError
    return value


def read_yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def read_required(value: object) -> bool | Literal["vm"]:
    return "vm" if value == "vm" else read_yes_or_no(value)


def one_of(words: Iterable[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return read


def _either(words: Iterable[str]) -> str:
    return "one of " + ", ".join(f'"{word}"' for word in words)


# -- guards: what a project's file may not do unasked


def _leaves_the_machine(theirs: str, ours: str) -> bool:
    return theirs != ours and not is_loopback(theirs)


def _is_higher(theirs: float, ours: float) -> bool:
    return theirs > ours


def _is_wider(theirs: str, ours: str) -> bool:
    return ALLOWS.index(theirs) > ALLOWS.index(ours)


def _differs(theirs: object, ours: object) -> bool:
    return theirs != ours


# -- the tables

_NAME = "a name of lower-case letters, digits, `-` and `_` that starts with a letter"
_COUNT = "a whole number above 0"
_SECONDS = "a number of seconds above 0"
_URL = 'a URL like "http://127.0.0.1:11434"'
_ARCHIVE_URL = 'a URL like "http://mirror.example/debian", below which `dists/` is'


def _limit(name: str, default: int, about: str, *, seconds: bool = False) -> Key:
    read = read_seconds if seconds else read_count
    return Key(f"limits.{name}", _SECONDS if seconds else _COUNT, read, default, about, guard=_is_higher)


def _tool(name: str, about: str) -> Key:
    return Key(f"tools.{name}", _either(ALLOWS), one_of(ALLOWS), "run", about, guard=_is_wider)


KEYS: tuple[Key, ...] = (
    Key("model", "text", read_text, None, "the model of everyone who names none of their own; a "
        "name of the server's, or a GGUF file", env=("ORG_MODEL", "OLLAMA_MODEL")),
    Key("base", _URL, read_base, DEFAULT_BASE, "the model server", guard=_leaves_the_machine,
        env=("ORG_BASE", "OLLAMA_BASE", "OLLAMA_HOST", "OPENAI_BASE_URL")),
    Key("policy", _either(POLICIES), one_of(POLICIES), "in-turn", "who speaks next: one after another, "
        "several at once, or only who is addressed"),
    Key("name", _NAME, read_id, "me", "your own name in the room"),
    Key("context_tokens", _COUNT, read_count, None, "the context of the models; asked of the server "
        "when not set"),
    Key("parallel", _COUNT, read_count, 4, "how many speak at once under the policy \"parallel\""),
    Key("per_model", _COUNT, read_count, 1, "how many requests one model is sent at once"),
    _limit("turns", 30, "answers after one message of yours"),
    _limit("seconds", 900, "wall time after one message of yours", seconds=True),
    _limit("tokens", 200_000, "tokens, read and written, after one message of yours"),
    _limit("tools", 60, "tool calls after one message of yours"),
    _limit("steps", 16, "completions within one answer"),
    _tool("sh", "run shell commands in the sandbox"),
    _tool("python_run", "run Python in the sandbox"),
    _tool("chat_mode", "let a participant choose whom it talks to"),
    _tool("embedded", "calls that a model wrote as text instead of declaring them"),
    Key("sandbox.place", _either(PLACES), one_of(PLACES), "auto", "where tools run", guard=_differs,
        env=("ORG_SANDBOX",)),
    Key("sandbox.require", 'true, false or "vm"', read_required, False, "open no room when there is no "
        "sandbox, or no machine (otherwise its tools are off)", guard=_differs),
    Key("vm.mirror", _ARCHIVE_URL, read_archive, None, "the Debian archive that a machine's image is made "
        "from; those of this host's apt when not set", guard=_differs),
    Key("client.idle_timeout_s", _SECONDS, read_seconds, 3600, "silence after which a server counts as "
        "gone; a busy one may be silent for many minutes"),
    Key("client.connect_timeout_s", _SECONDS, read_seconds, 5, "time for a connection to come about"),
)  # fmt: skip

MEMBER_KEYS: tuple[Key, ...] = (
    Key("id", _NAME, read_id, None, "how others address it: @id"),
    Key("profile", _either(PROFILES), one_of(PROFILES), "agent", "what it can do: sh; Python; only talk"),
    Key("model", "text", read_text, None, "its own model"),
    Key("base", _URL, read_base, None, "its own model server", guard=_leaves_the_machine),
    Key("system", "text", read_text, None, "added to the profile's prompt"),
    Key("temperature", "a number from 0 to 2", read_temperature, None, "0 is steady, 1 is lively"),
    Key("max_tokens", _COUNT, read_count, None, "length of one completion"),
)

# Tables that other parts read; here they only have to be tables.
FOREIGN_TABLES = frozenset({"generation"})


def section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values of `name.x` as `{x: value}`."""
    prefix = name + "."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def parse_with(text: str) -> Member:
    """A participant from `id=profile[:model]`, as in `coder=agent:qwen3:8b`; the model may itself
    hold colons and slashes. Raises `ValueError` saying what was expected."""
    name, equals, rest = text.partition("=")
    kind, colon, model = rest.partition(":")
    if not equals or (colon and not model.strip()):
        raise ValueError("id=profile or id=profile:model")
    profile = next((known for known in PROFILES if known == kind), None)
    if profile is None:
        raise ValueError(f"a profile that is {_either(PROFILES)}, not `{kind}`")
    try:
        read_id(name)
    except ValueError:
        raise ValueError(f"an id that is {_NAME}, not `{name}`") from None
    return Member(name, profile, model or None)
