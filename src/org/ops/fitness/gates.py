"""What a candidate must do before it is compared: end well, answer as current does, pass current's tests."""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from org.errors import EnvironmentProblem
from org.ops.fitness import ask
from org.ops.fitness.arena import Side
from org.ops.fitness.rules import Rules
from org.ops.plan import command

PROBE_S = 30.0
_MARGIN_S = 5.0
_MOST_REPORT = 64 << 20
_SHOWN = 3
_CONTRACT = ("ORG_CONTRACT", "ORG_LISTEN_FD", "ORG_GO_FD", "ORG_ACK_FD", "ORG_HEALTH_SOCK", "ORG_NONCE")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate said. `about` is what was seen, or what was wrong."""

    gate: str
    passed: bool
    about: str


# -- it ends well


async def rehearse(side: Side) -> Finding:
    """Have it drain in the middle of an answer: it has to say so, to finish the answer, and to end in time.
    It is not running afterwards."""
    begun = threading.Event()
    body = {
        "model": side.door.ask.model,
        "messages": [{"role": "user", "content": "Say one word."}],
        "stream": True,
        "max_tokens": 8,
    }
    door, began = side.door, time.monotonic()
    limit = side.drain_s + _MARGIN_S
    answering = asyncio.create_task(
        asyncio.to_thread(ask.request, door, "POST", door.ask.path, body, limit, begun=begun.set)
    )
    await asyncio.to_thread(begun.wait, limit)
    said = await side.drain()
    wrong = [] if said else ["it does not say that it drains"]
    try:
        _, data = await answering
        if data.startswith(b"data:") and b"[DONE]" not in data:
            wrong.append("it cuts the answer that it is giving")
    except (ask.Late, OSError, http.client.HTTPException, ValueError) as error:
        wrong.append(f"it cuts the answer that it is giving: {type(error).__name__}")
    ended = await side.gone()
    if ended.code != 0:
        wrong.append(f"it does not end by itself: {ended.how}")
    if ended.left:
        wrong.append(f"{ended.left} processes of it could not be ended")
    took = time.monotonic() - began
    return Finding("drain", not wrong, "; ".join(wrong) or f"drained in {took:.1f} s, an answer under way")


# -- it answers as current does


async def probe(current: Side, candidate: Side, rules: Rules, health: str) -> Finding:
    """Ask both the same small things: the candidate has to answer with current's status."""
    wrong = []
    asked = _questions(rules, health)
    for method, path, body, with_token in asked:
        ours, theirs = [
            await asyncio.to_thread(status, side, method, path, body, with_token)
            for side in (current, candidate)
        ]
        if ours != theirs:
            token = "" if with_token else " without the token"
            wrong.append(f"{method} {path}{token}: {theirs}, current says {ours}")
    if candidate.ended is not None:
        wrong.append(f"it ended by itself: {candidate.ended.how}")
    return Finding("probes", not wrong, "; ".join(wrong) or f"{len(asked)} answered with current's status")


def _questions(rules: Rules, health: str) -> list[tuple[str, str, bytes | None, bool]]:
    path = rules.ask.path
    usual: list[tuple[str, str, bytes | None, bool]] = [
        ("GET", health, None, True),
        ("GET", "/no-such-page", None, True),
        ("POST", path, b"{", True),
        ("POST", path, b'{"messages": 1}', True),
    ]
    if rules.ask.token:
        usual.append(("POST", path, b"{}", False))
    return usual + [(method, path, None, True) for method, path in rules.probes]


def status(side: Side, method: str, path: str, body: bytes | None, with_token: bool) -> str:
    """Its status, or why there is none."""
    door = side.door if with_token else replace(side.door, token="")
    try:
        answered, _ = ask.request(door, method, path, body, PROBE_S)
    except ask.Late:
        return "no answer in time"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer ({type(error).__name__})"
    return str(answered)


# -- it passes current's tests


async def test(current: Side, candidate: Side, rules: Rules) -> Finding:
    """Run the program's tests among the files of both. Each test that passes with current has to be reported
    as passed; how the command ends counts for nothing. (A candidate that wants to deceive can: its code
    writes that report. That is why there are the other gates.)"""
    ours = await _tested(current, rules)
    theirs = await _tested(candidate, rules)
    if not ours:
        return Finding("tests", False, "no test passes with current: `tests` in `[generation]` is off")
    missing = sorted(ours - theirs)
    named = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" * (len(missing) > _SHOWN))
    told = f"{len(missing)} of {len(ours)} tests that pass with current do not pass: {named}"
    return Finding("tests", not missing, told if missing else f"{len(ours)} tests pass as with current")


async def _tested(side: Side, rules: Rules) -> set[str]:
    report = side.home / "report.xml"
    places = {"python": sys.executable, "report": str(report)}
    argv = ("env", *(f"--unset={name}" for name in _CONTRACT), *command(rules.tests, places))
    try:
        ended = await side.run(argv, {"PYTHONDONTWRITEBYTECODE": "1"}, rules.budget.seconds)
    except EnvironmentProblem:  # what it said goes to its log
        return set()
    return set() if ended is None else passed(_read(report))


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        return file.read(_MOST_REPORT)


def passed(report: bytes) -> set[str]:
    """The tests that a JUnit report says passed, every time it names them."""
    try:
        cases = list(ElementTree.fromstring(report).iter("testcase"))
    except (ElementTree.ParseError, LookupError, ValueError):  # also for an encoding that nobody knows
        return set()
    outcomes: defaultdict[str, set[bool]] = defaultdict(set)
    for case in cases:
        bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        outcomes[f"{case.get('classname', '')}::{case.get('name', '')}"].add(not bad)
    return {name for name, seen in outcomes.items() if seen == {True}}


def failed(findings: Sequence[Finding]) -> str:
    """Why a candidate does not pass its gates; empty when it does."""
    return "; ".join(f"{one.gate}: {one.about}" for one in findings if not one.passed)
