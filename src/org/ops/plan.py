"""What one generation is started with. Pure.

A supervisor writes it, a keeper reads it, and gives it back to whichever supervisor asks later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from org.ops.settings import MOST_S

CONTRACT = 1
PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "LANG", "LANGUAGE"),
        *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "NO_COLOR"),
        *("ORG_CONFIG", "ORG_BASE", "ORG_MODEL", "ORG_SANDBOX"),
        *("OLLAMA_HOST", "OLLAMA_BASE", "OLLAMA_MODEL", "OPENAI_BASE_URL"),
    }
)
"""What a generation is given of the environment, besides `LC_*`."""
KEYS = frozenset({"ORG_API_KEY", "OPENAI_API_KEY"})
"""What current alone is given."""
CANDIDATE_KEY = "ORG_CANDIDATE_API_KEY"
"""The key that a candidate is given as `ORG_API_KEY`: one of its own, or none."""


class Times(NamedTuple):
    """Seconds that a generation may take at most, whatever its files say: to come up, and to drain."""

    ready_s: float = MOST_S
    drain_s: float = MOST_S


LONGEST = Times()


@dataclass(frozen=True, slots=True)
class Plan:
    """`argv` starts it in `folder`, the files of `commit`. `env` is what it is given of somebody's
    environment, `more` is added to that, and the contract to both. It says `nonce` when asked for its
    health. `limits` are by their names in `resource`; `uid` and `gid` are -1 for our own, and `shared` is why
    a candidate has no other. `speaks` is whether it knows the contract itself; `lasts` is whether it
    outlives whoever started it. `previous` (commit and folder) and `trouble` are what a supervisor should
    know of its colour that finds it serving."""

    colour: str
    commit: str
    folder: str
    nonce: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    more: Mapping[str, str]
    log: str
    run: str
    ready_s: float
    drain_s: float
    speaks: bool
    uid: int = -1
    gid: int = -1
    shared: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    lasts: bool = True
    previous: tuple[str, str] | None = None
    trouble: str = ""

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        fields: dict[str, Any] = json.loads(text)
        tuples = {name: tuple(fields[name]) for name in ("argv", "previous") if fields.get(name)}
        return cls(**fields | tuples)

    @property
    def short(self) -> str:
        return self.commit[:12]


def command(start: Sequence[str], places: Mapping[str, str]) -> tuple[str, ...]:
    """The words that start a program, with what stands for `{port}` and `{python}`."""
    filled = []
    for word in start:
        for name, value in places.items():
            word = word.replace(f"{{{name}}}", value)
        filled.append(word)
    return tuple(filled)


def environment(given: Mapping[str, str], colour: str) -> dict[str, str]:
    """What a generation gets of an environment: nothing that it has no use for."""
    passed = {name: value for name, value in given.items() if name in PASSED_ON or name.startswith("LC_")}
    if colour == "current":
        return passed | {name: given[name] for name in KEYS if name in given}
    if given.get(CANDIDATE_KEY):
        passed["ORG_API_KEY"] = given[CANDIDATE_KEY]
    return passed
