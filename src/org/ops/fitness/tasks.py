"""The tasks of a suite, and how an answer to one is scored.

    [[task]]
    id = "add"
    prompt = "What is 2 + 2?"
    system = "Answer with a number."      # said beforehand, if anything
    check.regex = '\\b4\\b'                 # or check.json = '{"sum": 4}', or check.python = "scorer.py"
    weight = 1.0
    timeout = 120.0                       # seconds for an answer

A suite comes from current or from the person, never from a candidate.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from org.errors import ConfigError
from org.ops import settings

FILE = "fitness.toml"
TIMEOUT_S = 120.0
MOST_WEIGHT = 10.0
MOST_TEXT = 20_000
"""Characters of an answer that count."""

Kind: TypeAlias = Literal["regex", "json", "python"]
_KINDS: tuple[Kind, ...] = ("regex", "json", "python")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NESTED = 50  # values in one another, beyond which a text is no answer


@dataclass(frozen=True, slots=True)
class Task:
    """`check` is a pattern, a JSON text, or the path of a program, as `kind` says."""

    id: str
    prompt: str
    kind: Kind
    check: str
    system: str = ""
    weight: float = 1.0
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Suite:
    """`digest` is of all that a score depends on; scorers are files below `folder`."""

    tasks: tuple[Task, ...]
    folder: str
    digest: str


def read(text: str, name: str = FILE, folder: str = "", scorers: Mapping[str, bytes] = {}) -> Suite:
    """A suite from its text; `scorers` are the files that its checks name. Raises `ConfigError`."""
    table = settings.parse(text, name)
    entries = table.get("task")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{name} has no task", '[[task]]\nid = "add"\nprompt = "…"\ncheck.regex = "…"')
    tasks = tuple(_task(name, number, entry) for number, entry in enumerate(entries, 1))
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise ConfigError(f"{name}: two tasks are called `{task.id}`")
        seen.add(task.id)
    return Suite(tasks, folder, _digest(tasks, scorers))


def _task(name: str, number: int, entry: object) -> Task:
    if not isinstance(entry, dict):
        raise ConfigError(f"{name}: task {number} is no table")
    id = entry.get("id")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise ConfigError(f"{name}: task {number} needs an `id` of lower-case letters, digits, `-` and `.`")
    where = f"{name}: task `{id}`"
    unknown = sorted(entry.keys() - {"id", "prompt", "system", "check", "weight", "timeout"})
    if unknown:
        raise ConfigError(f"{where}: `{unknown[0]}` is not known")
    kind, check = _check(where, entry.get("check"))
    prompt, system = entry.get("prompt"), entry.get("system", "")
    if not isinstance(prompt, str) or not prompt.strip() or not isinstance(system, str):
        raise ConfigError(f"{where}: `prompt` must be a text, and `system` one if it is there")
    weight = _number(where, entry, "weight", 1.0, MOST_WEIGHT)
    timeout_s = _number(where, entry, "timeout", TIMEOUT_S, 3600.0)
    return Task(id, prompt, kind, check, system, weight, timeout_s)


def _check(where: str, check: object) -> tuple[Kind, str]:
    found = list(check.items()) if isinstance(check, dict) else []
    match found:
        case [(kind, str(text))] if kind in _KINDS and text:
            _prove(where, kind, text)
            return kind, text
    raise ConfigError(f"{where}: `check` must be one of `regex`, `json` and `python`, with a text")


def _prove(where: str, kind: Kind, text: str) -> None:
    try:
        if kind == "regex":
            if re.search(text, "", re.MULTILINE):
                raise ConfigError(f"{where}: `{text}` also finds nothing at all")
        elif kind == "json":
            wanted = json.loads(text, parse_constant=_no_number)
            _likeness(wanted, wanted)  # it can be gone through
        elif text.startswith("/") or ".." in text.split("/"):
            raise ConfigError(f"{where}: a scorer is a file beside the suite, not {text}")
    except (re.error, OverflowError) as error:
        raise ConfigError(f"{where}: `{text}` is no pattern: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: `json` is no JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: `{kind}` is nested too deeply") from None


def _number(where: str, entry: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = entry.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ConfigError(f"{where}: `{name}` must be a number above 0, {most:g} at most")
    return float(value)


def _digest(tasks: tuple[Task, ...], scorers: Mapping[str, bytes]) -> str:
    found = hashlib.sha256()
    for task in tasks:
        # An outline as text: what a float is written as is the same everywhere.
        found.update(repr(task).encode())
    for path, content in sorted(scorers.items()):
        found.update(f"{path}\0{len(content)}\0".encode() + content)
    return "sha256:" + found.hexdigest()


# -- the score


def score(task: Task, answer: str) -> float:
    """How good an answer is, from 0 to 1, by a pattern or a JSON text. To repeat the prompt is no answer."""
    answer = answer[:MOST_TEXT].replace(task.prompt.strip(), " ")
    if task.kind == "regex":
        return float(re.search(task.check, answer, re.MULTILINE) is not None)
    wanted = json.loads(task.check)
    return max((_likeness(wanted, found) for found in json_values(answer)), default=0.0)


def json_values(text: str) -> Iterator[Any]:
    """The JSON values that stand in a text, whatever is around them; of a value, not its parts. A text that
    is JSON as a whole is the only one."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    try:
        yield decoder.decode(text.strip())
        return
    except (ValueError, RecursionError):
        pass
    at = 0
    tried = 0
    while (begin := _OPENS.search(text, at)) is not None and tried < _NESTED:
        tried += 1
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            at = begin.end()
        else:
            yield value


_OPENS = re.compile(r"[\[{]")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _likeness(wanted: Any, found: Any) -> float:
    """The share of an object's keys that are right; of anything else, whether it is the same."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted:
        right = sum(key in found and _same(value, found[key]) for key, value in wanted.items())
        return right / len(wanted.keys() | found.keys())
    return float(_same(wanted, found))


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        finite = max(abs(wanted), abs(found)) <= sys.float_info.max
        return wanted == found or (finite and math.isclose(wanted, found))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_same(one, found[key]) for key, one in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    return bool(wanted == found)
