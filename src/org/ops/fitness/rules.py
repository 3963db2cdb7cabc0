"""What `[generation]` of current's `org.toml` says of the gate. Pure.

[generation]
watch = 300                       # seconds after a promote in which it is taken back when it does badly
protected = ["src/shop/money/"]   # what no candidate changes unless `--allow-protected` was said
probes = ["GET /v1/models"]       # asked of both, to be answered with the same status
keeps = ['POST /notes {"title": "{name}"}', "GET /notes/{name}"]   # what it keeps, and finds again
tests = "{python} -m pytest -q --junitxml={report}"
[generation.ask]
path = "/v1/chat/completions"
model = "org/main"
token = "org/serve-token"         # a file below its state folder, for `Authorization: Bearer`
[generation.fitness]
pairs = 100                       # 0: no tasks are asked, `tests` and `probes` say all there is to say
seconds = 3600                    # what the pairs may take, and how many tokens
tokens = 1000000
[generation.metrics]
path = "/metrics"
counter = "org_http_requests_total"   # has a label `status`
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from org.errors import ConfigError
from org.ops import settings
from org.ops.settings import FILE

MOST_PAIRS = 10_000
NAME = "{name}"
"""What stands in `keeps` for a word that is another each time."""
OURS = ("fitness.toml",)
"""Files that the gate itself goes by."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Where a question goes, to whom, and the file of the token that comes with it, if any."""

    path: str = "/v1/chat/completions"
    model: str = "org/main"
    token: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """Without `pairs` no tasks are asked."""

    pairs: int = 100
    seconds: float = 3600.0
    tokens: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Metrics:
    path: str = ""
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """`table` is all of `[generation]`, as it was read."""

    ask: Ask = field(default_factory=Ask)
    budget: Budget = field(default_factory=Budget)
    metrics: Metrics = field(default_factory=Metrics)
    tests: tuple[str, ...] = ()
    probes: tuple[tuple[str, str], ...] = ()
    keeps: tuple[tuple[str, str, str], ...] = ()
    protected: tuple[str, ...] = OURS
    watch_s: float = 300.0
    table: Mapping[str, Any] = field(default_factory=dict)


def read(text: str) -> Rules:
    """Raises `ConfigError`. What is not known belongs to somebody else."""
    table = settings.parse(text).get("generation", {})
    if not isinstance(table, dict):
        raise ConfigError(f"[generation] in {FILE} is no table")
    ask, budget, metrics = (_table(table, name) for name in ("ask", "fitness", "metrics"))
    usual = Rules()
    known = Rules(
        Ask(
            _path(ask, "path", usual.ask.path),
            _text(ask, "model", usual.ask.model),
            _inside(_text(ask, "token", "")),
        ),
        Budget(
            int(_number(budget, "pairs", usual.budget.pairs, 0, MOST_PAIRS, whole=True)),
            _number(budget, "seconds", usual.budget.seconds, 1, 1e6),
            int(_number(budget, "tokens", usual.budget.tokens, 1, 1e12, whole=True)),
        ),
        Metrics(_path(metrics, "path", ""), _text(metrics, "counter", "")),
        _command(table),
        tuple(map(_probe, _texts(table, "probes"))),
        tuple(map(_request, _texts(table, "keeps"))),
        (*OURS, *_texts(table, "protected")),
        _number(table, "watch", usual.watch_s, 0, 86_400),
        table,
    )
    if not known.budget.pairs and not known.tests and not known.probes:
        raise _off("pairs", "must not be 0 without `tests` or `probes`: nothing would be asked at all")
    return known


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise _off(name, "must be a table")
    return value


def _text(table: Mapping[str, Any], name: str, default: str) -> str:
    value = table.get(name, default)
    if not isinstance(value, str) or not value.isprintable():
        raise _off(name, "must be a text")
    return value


def _path(table: Mapping[str, Any], name: str, default: str) -> str:
    value = _text(table, name, default)
    if value and (not value.startswith("/") or " " in value):
        raise _off(name, 'must be a path such as "/ask"')
    return value


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise _off("token", "must be a file below the state folder")
    return path


def _number(
    table: Mapping[str, Any], name: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    value = table.get(name, default)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        raise _off(name, f"must be a number between {least:g} and {most:g}")
    return float(value)


def _texts(table: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise _off(name, "must be a list of texts")
    return tuple(value)


def _probe(text: str) -> tuple[str, str]:
    match text.split():
        case [method, path] if method in ("GET", "HEAD", "POST", "DELETE") and path.startswith("/"):
            return method, path
    raise _off("probes", f'must be such as "GET /health", not {text!r}')


def _request(text: str) -> tuple[str, str, str]:
    """Method, path and body, which may be empty."""
    method, path, body, *_ = *text.split(maxsplit=2), "", "", ""
    try:
        json.loads(body or "{}")
    except ValueError:
        path = ""
    if method not in ("GET", "HEAD", "POST", "PUT", "DELETE") or not path.startswith("/"):
        raise _off("keeps", f'must be such as \'POST /notes {{"title": "{{name}}"}}\', not {text!r}')
    return method, path, body


def _command(table: Mapping[str, Any]) -> tuple[str, ...]:
    value = table.get("tests", [])
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise _off("tests", f"{error}".lower()) from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _off("tests", "must be a command")
    if words and not any("{report}" in word for word in words):
        raise _off("tests", "must write a JUnit file to {report}")
    return tuple(words)


def _off(name: str, what: str) -> ConfigError:
    return ConfigError(f"[generation] {name} in {FILE}: {what}")
