"""`org status`: what is served, how well, and what is not guaranteed of it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from org.ops import control, place, program, sync, watched
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.history import History
from org.ops.program import Program

_COLOURS = ("current", "candidate")


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org status", description="What is served, looked at now.")
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    return give(args.json, _status(program.find(Path(), os.environ)))


def _status(here: Program) -> Answer:
    program.require(here)
    _, told = sync.current(here.look())
    served = control.status(here.layout)
    for colour in _COLOURS:
        if colour in served:
            served[colour]["url"] = place.seen(served[colour]["url"])
    details: dict[str, object] = {colour: served.get(colour) for colour in ("supervisor", *_COLOURS)}
    details["main"] = {"commit": told.main, "promotes": len(told.standing)}
    details["watch"] = watch = watched.told(here.layout)
    where = tuple(f"where      {words}" for words in (place.where(os.environ),) if words)
    return Answer("told", (*where, *_lines(served, told), *_watched(watch)), (), details)


def _lines(served: Mapping[str, Any], told: History) -> Iterator[str]:
    for colour in _COLOURS:
        one = served.get(colour)
        if one is None:
            yield f"{colour:9}  not served"
            continue
        yield f"{colour:9}  {_line(one)}"
        yield from (f"{'':9}  {line}" for line in _more(one))
        if colour == "current" and one["commit"] != told.main:
            yield f"{'':9}  not main: `org start current` serves that"
    last = f", promote {told.standing[-1].number}" if told.standing else ""
    yield f"{'main':9}  {told.main[:12]}{last}"


def _watched(told: Mapping[str, str]) -> Iterator[str]:
    """How the newest promote does, while it is watched and when that did not end well."""
    state, commit = told.get("state", "well"), told.get("commit", "")[:12]
    if state == "watching":
        left = max(0.0, float(told["until"]) - time.time())
        yield f"{'watch':9}  {commit} for another {_for(left)}; taken back when it does badly"
        if told["why"]:
            yield f"{'':9}  {told['why']}"
    elif state not in ("well", "left"):
        yield f"{'watch':9}  {commit} {state.replace('-', ' ')}: {told['why']}"


def _line(one: Mapping[str, Any]) -> str:
    words = [f"{one['state']} {one['commit'][:12]} at {one['url']}"]
    if "pid" in one:
        health = one["health"]
        well = f"well in {health['latency_ms']:g} ms" if health["ok"] else "not well"
        words += [f"pid {one['pid']}", f"up {_for(one['uptime_s'])}", well]
    if one["restarts"]:
        words.append(f"started again {one['restarts']} times")
    return ", ".join(words)


def _more(one: Mapping[str, Any]) -> Iterator[str]:
    if one["trouble"]:
        yield f"trouble: {one['trouble']}"
    elif one.get("ended"):
        yield f"before: {one['ended']}"
    if lost := one.get("log", {}).get("lost"):
        yield f"its log: {lost} lines could not be written: {one['log']['why']}"
    for old in one["draining"]:
        still = ", still takes connections" if old["accepts"] else ""
        yield f"draining: {old['commit'][:12]}, pid {old['pid']}{still}, killed in {old['killed_in_s']:g} s"
    for what in one.get("not_guaranteed", ()):
        yield f"not guaranteed: {what}"
    contained = one.get("containment", {})
    if contained.get("own_user") or contained.get("shared_because"):
        why = contained["shared_because"]
        yield f"runs as {contained['user']}{f', as you do: {why}' if why else ''}"
    for what in contained.get("not_prevented", ()):
        yield f"not prevented: {what}"


def _for(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
