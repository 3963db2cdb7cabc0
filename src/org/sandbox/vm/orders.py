"""Commands as they are asked for. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from org.sandbox.vm import channels, child
else:  # beside this file in the guest
    import channels
    import child

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_MOST_KEPT = 67_108_864  # bytes of output that a command may ask to be kept


class Wanted(NamedTuple):
    """A command as it was asked for. `limit` are the bytes of output to keep, None for all of it;
    `apart` keeps standard error apart; `terminal` is (rows, columns) of one to run in."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    workspace: str
    cwd: str
    who: child.Identity
    scratch: bool
    timeout_s: float | None
    limit: int | None
    stdin: bool
    apart: bool
    terminal: tuple[int, int] | None
    memory: int
    pids: int

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Wanted:
        """Raises `Refused`, or `KeyError`, `TypeError`, `ValueError` for what is no request."""
        argv = tuple(map(_word, request["argv"]))
        if not argv:
            raise channels.Refused("usage", "a command needs a program")
        limit = request.get("limit")
        if limit is not None and not 0 <= limit <= _MOST_KEPT:
            raise channels.Refused("usage", f"at most {_MOST_KEPT} bytes of output can be kept")
        terminal = request.get("terminal")
        return cls(
            argv=argv,
            env={_word(name): _word(value) for name, value in request.get("env", {}).items()},
            workspace=_word(request["workspace"]),
            cwd=_word(request.get("cwd", "")),
            who=identity(request["user"]),
            scratch=bool(request.get("scratch")),
            timeout_s=request.get("timeout_s"),
            limit=limit,
            stdin=bool(request.get("stdin")),
            apart=bool(request.get("apart")),
            terminal=None if terminal is None else (int(terminal[0]), int(terminal[1])),
            memory=int(request["memory"]),
            pids=int(request["pids"]),
        )

    def plan(self, cwd: str, stdio: tuple[int, int, int], entrances: list[int]) -> child.Plan:
        env = {"PATH": PATH, "HOME": cwd, "LANG": "C.UTF-8", "TERM": "dumb", **self.env}
        return child.Plan(self.argv, env, cwd, self.who, stdio, entrances, self.terminal is not None)


def _word(text: str) -> str:
    """`text`, which a program can be given. Raises `Refused`."""
    try:
        if b"\0" not in os.fsencode(text):
            return text
    except UnicodeEncodeError as error:
        raise channels.Refused("usage", f"no program can be given {text[:80]!r}") from error
    raise channels.Refused("usage", f"no program can be given {text[:80]!r}: it holds a zero byte")


def identity(user: str) -> child.Identity:
    try:
        return child.identity(user)
    except KeyError as error:
        raise channels.Refused("environment", f"the guest has no user `{user}`") from error
