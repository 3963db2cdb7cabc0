"""The tasks of a suite, and how an answer to one is scored.

    [[task]]
    id = "add"
    prompt = "What is 2 + 2?"
    system = "Answer with a number."      # said beforehand, if anything
    check.number = 4                      # or one of those below
    weight = 1.0
    timeout = 120.0                       # seconds for an answer

    check.number = 4                      # the last number of a short answer
    check.answer = 'yes'                  # a pattern with which a short answer begins or ends,
    check.not = 'no|maybe'                # and what may not be in it, if anything
    check.regex = '\\b4\\b'                 # a pattern that is found anywhere
    check.json = '{"sum": 4}'             # the one value in it; of an object, the share of the right keys
    check.python = "scorer.py"            # a program that prints a score

A suite comes from current or from the person, never from a candidate.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from org.errors import ConfigError
from org.ops import settings
from org.ops.fitness import answers

FILE = "fitness.toml"
TIMEOUT_S = 120.0
MOST_WEIGHT = 10.0
MOST_TEXT = 20_000
"""Characters of an answer that count."""

Kind: TypeAlias = Literal["number", "answer", "regex", "json", "python"]
_TEXTS: tuple[Kind, ...] = ("answer", "regex", "json", "python")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Task:
    """`check` is a number, a pattern, a JSON text, or the path of a program, as `kind` says; `unless` is a
    pattern that is not found in a right answer."""

    id: str
    prompt: str
    kind: Kind
    check: str
    unless: str = ""
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
    kind, check, unless = _check(where, entry.get("check"))
    prompt, system = entry.get("prompt"), entry.get("system", "")
    if not isinstance(prompt, str) or not prompt.strip() or not isinstance(system, str):
        raise ConfigError(f"{where}: `prompt` must be a text, and `system` one if it is there")
    weight = _number(where, entry, "weight", 1.0, MOST_WEIGHT)
    timeout_s = _number(where, entry, "timeout", TIMEOUT_S, 3600.0)
    return Task(id, prompt, kind, check, unless, system, weight, timeout_s)


def _check(where: str, check: object) -> tuple[Kind, str, str]:
    """The kind, what is looked for, and what may not be there."""
    found = dict(check) if isinstance(check, dict) else {}
    unless = found.pop("not", "")
    match list(found.items()):
        case [("number", int() | float() as number)] if not isinstance(number, bool) and not unless:
            if isinstance(number, int) or math.isfinite(number):
                return "number", str(number), ""
        case [(kind, str(text))] if kind in _TEXTS and text and isinstance(unless, str):
            _prove(where, kind, text)
            if unless and kind != "answer":
                raise ConfigError(f"{where}: `not` goes with `answer`")
            if unless:
                _prove(where, "regex", unless)
            return kind, text, unless
    raise ConfigError(f"{where}: `check` must be a `number`, or one of {', '.join(_TEXTS)}, with a text")


def _prove(where: str, kind: Kind, text: str) -> None:
    try:
        if kind in ("answer", "regex"):
            if re.search(text, "", re.MULTILINE):
                raise ConfigError(f"{where}: `{text}` also finds nothing at all")
        elif kind == "json":
            wanted = json.loads(text, parse_constant=answers.no_number)
            answers.likeness(wanted, wanted)  # it can be gone through
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
    """How good an answer is, from 0 to 1, by all but a program. To repeat the prompt is no answer."""
    answer = answers.said(answer[:MOST_TEXT].replace(task.prompt.strip(), " "))
    if task.unless and re.search(task.unless, answer, re.MULTILINE):
        return 0.0
    match task.kind:
        case "number":
            return float(answers.number(answer) == Decimal(task.check))
        case "answer":
            return float(answers.says(task.check, answer))
        case "regex":
            return float(re.search(task.check, answer, re.MULTILINE) is not None)
    found = list(answers.json_values(answer))
    # Who offers several has not chosen.
    return answers.likeness(json.loads(task.check), found[0]) if len(found) == 1 else 0.0
