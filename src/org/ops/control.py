"""The supervisor as its clients have it: asked over its socket, and started when there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from org.errors import EnvironmentProblem, OrgError
from org.ops import ours, place, wire
from org.ops.layout import Colour, Layout
from org.ops.plan import LONGEST, Times, environment

_ATTEMPTS = 3
_KEPT_S = 60.0
_POLL_S = 0.1
_ANSWER_S = 3600.0
"""A generation may take as long as its `ready_timeout` to come up; nobody waits longer than this."""


class _Nobody(Exception):
    """There is no supervisor."""


def serve(
    layout: Layout, colour: Colour, commit: str, folder: Path, port: int, most: Times = LONGEST
) -> dict[str, Any]:
    """Have this commit served, with our environment as far as it is passed on, in no more time than `most`;
    the supervisor is started when there is none. What was served drains. Serving it already is no error.
    Raises `OrgError` when it does not come up: then all is as before."""
    return _ask_started(layout, {"do": "serve", **request(colour, commit, folder, port, most)})


def request(colour: Colour, commit: str, folder: Path, port: int, most: Times = LONGEST) -> dict[str, Any]:
    """What a supervisor is asked to serve."""
    env = environment(os.environ, colour)
    place = {"colour": colour, "commit": commit, "folder": str(folder), "port": port}
    return {**place, "env": env, "most": most}


def swap(layout: Layout, commit: str, folder: Path) -> bool:
    """Have current serve this commit, when it is being served at all: False when it is not. Returns when
    the new generation, in the environment of the old one, takes connections and that was told to drain.
    Nothing is asked of the old one: it may answer whatever it likes, or not at all."""
    swapped = {"do": "serve", "colour": "current", "commit": commit, "folder": str(folder)}
    return is_needed(layout) and bool(_ask_started(layout, swapped)["served"])


def stop(layout: Layout, colour: Colour, *, now: bool = False) -> bool:
    """End what serves a colour, when its drain is over, or `now`. False when nothing did."""
    asked = {"do": "stop", "colour": colour, "now": now}
    return is_needed(layout) and bool(_ask_started(layout, asked)["stopped"])


def status(layout: Layout) -> dict[str, Any]:
    """`supervisor`, and each colour that is served; {} when nothing is."""
    return _ask_started(layout, {"do": "status"}) if is_needed(layout) else {}


def reexec(layout: Layout) -> None:
    """Have the supervisor become the program as it is installed now. What it serves goes on."""
    before = _ask_started(layout, {"do": "reexec"})["image"]
    while _ask_started(layout, {"do": "status"})["supervisor"]["image"] == before:
        continue


def is_needed(layout: Layout) -> bool:
    """Whether there is something to supervise: a supervisor, or generations that one has left behind."""
    return layout.supervisor_socket.exists() or any(layout.run.glob("*.keeper"))


def _ask_started(layout: Layout, asked: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_ATTEMPTS):
        try:
            return _ask(layout, asked)
        except _Nobody:
            _start(layout)
    raise EnvironmentProblem("the supervisor does not stay", f"see {layout.supervisor_log}")


def _ask(layout: Layout, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        with wire.short(layout.supervisor_socket) as path, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(path)
            connection.sendall(wire.line({"v": wire.VERSION, **asked}))
            with connection.makefile("rb") as answers:
                said = answers.readline(wire.MOST_LINE)
    except (FileNotFoundError, ConnectionError) as error:
        raise _Nobody from error
    if not said:
        raise _Nobody
    told: dict[str, Any] = json.loads(said)
    if told.pop("ok"):
        return told
    raise _error(told)


def _start(layout: Layout) -> None:
    """A supervisor in a process of its own, which answers when this returns. When somebody else starts one
    at the same moment, theirs does."""
    if place.is_carried_in():
        _await(layout)
        return
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with layout.supervisor_log.open("ab") as log:
        started = subprocess.run(
            ours.words("org.ops.supervisor", str(layout.root)),
            env=ours.environment(environment(os.environ, "candidate")),  # it has no use for keys
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
            check=False,
        )
    told = json.loads(started.stdout or b"{}")
    if "ready" not in told and "error" not in told:
        raise EnvironmentProblem("the supervisor did not start", f"see {layout.supervisor_log}")
    if "error" in told and told["code"] != 6:
        raise _error(told)


def _await(layout: Layout) -> None:
    """Where a job keeps the supervisor: one of our own would end with the verb, and all that it serves."""
    deadline = time.monotonic() + _KEPT_S
    while time.monotonic() < deadline:
        with suppress(_Nobody):
            _ask(layout, {"do": "status"})
            return
        time.sleep(_POLL_S)
    raise EnvironmentProblem("the supervisor of this program does not run", f"see {layout.supervisor_log}")


def _error(told: dict[str, Any]) -> OrgError:
    error = OrgError(told["error"], told["hint"])
    error.exit_code = told["code"]
    return error
