"""The same message to both generations, in rooms that are forgotten, and what each made of it."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from html import escape
from itertools import islice, zip_longest
from typing import Any

from org.errors import EnvironmentProblem
from org.ops import plain, worktrees
from org.ops.fitness import ask, inputs, page
from org.ops.fitness import case as cases
from org.ops.fitness.arena import Side, arena, place_of
from org.ops.lock import hold
from org.ops.merges import Gate
from org.ops.program import Program

WIDE = 100
"""From so many columns on, the two stand side by side."""
_CALL_BEGINS = re.compile(r"\[(?=\w+ `)")
_CALL_ENDS = re.compile(r"`(?: \(\+\d+ lines\))?\]$")
_MOST_CALLS = 100
_MOST_SHOWN = 20_000
"""Characters of an answer."""
_GAP = " │ "


@dataclass(frozen=True, slots=True)
class Made:
    """What one generation made of a message; `error` is why it did not answer."""

    name: str
    commit: str
    text: str
    calls: tuple[str, ...]
    seconds: float
    tokens: int | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    message: str
    seed: int
    sides: tuple[Made, ...]

    @property
    def both_answered(self) -> bool:
        return not any(made.error for made in self.sides)

    @property
    def details(self) -> Mapping[str, Any]:
        return {
            "message": self.message,
            "seed": self.seed,
            **{made.name: asdict(made) for made in self.sides},
        }


def compare(program: Program, gate: Gate, message: str, seconds: float) -> Compared:
    """Ask main and the merge of a gate. When one of them does not start, the other is asked all the same."""
    with hold(place_of(program.layout), "compare"):
        with cases.patiently(program, "compare") as git:
            cases.trusted(program, git)
            folders = {
                commit: worktrees.ensure(program.layout, git, commit) for commit in (gate.main, gate.merge)
            }
            read = inputs.read(git, gate.main, folders[gate.main])
        named = {"current": gate.main, "candidate": gate.merge}
        sides = [
            Side(program.layout, name, commit, folders[commit], read.rules.ask)
            for name, commit in named.items()
        ]
        seed = secrets.randbits(31)
        return asyncio.run(_compare(program, sides, message, seed, seconds))


async def _compare(
    program: Program, sides: Sequence[Side], message: str, seed: int, seconds: float
) -> Compared:
    async with arena(program.layout), AsyncExitStack() as stack:
        made: dict[str, Made] = {}
        for side in sides:
            stack.push_async_callback(side.stop)
            try:
                await side.start()
            except EnvironmentProblem as error:
                why = f"{error.message}\n{error.hint}"
                made[side.name] = Made(side.name, side.commit, "", (), 0.0, None, why)
        order = random.sample(sides, len(sides))  # whoever is first may find a cold model
        for side in order:
            if side.name not in made:
                made[side.name] = await _made(side, message, seed, seconds)
    return Compared(message, seed, tuple(made[side.name] for side in sides))


async def _made(side: Side, message: str, seed: int, seconds: float) -> Made:
    reply = await asyncio.to_thread(ask.put, side.door, message, seed=seed, seconds=seconds)
    calls = tuple(islice(calls_in(reply.thoughts), _MOST_CALLS))
    return Made(side.name, side.commit, reply.text, calls, round(reply.seconds, 3), reply.tokens, reply.why)


def calls_in(thoughts: str) -> Iterator[str]:
    """The tool calls that it tells of, each at the end of a line, in brackets."""
    for line in thoughts.splitlines():
        begin = _CALL_BEGINS.search(line)
        if begin is not None and _CALL_ENDS.search(line, begin.end()):
            yield line[begin.end() : -1]


# -- how it looks


def lines(compared: Compared, width: int) -> Iterator[str]:
    """Side by side where there is room, else one after the other."""
    if width < WIDE:
        for made in compared.sides:
            yield from (*_block(made, width), "")
        return
    half = (width - len(_GAP)) // 2
    for left, right in zip_longest(*(_block(made, half) for made in compared.sides), fillvalue=""):
        yield f"{left:{half}}{_GAP}{right}".rstrip()


def _block(made: Made, width: int) -> list[str]:
    wrapped = [
        line
        for paragraph in map(plain.line, _said(made).splitlines())
        for line in textwrap.wrap(paragraph, width, replace_whitespace=False) or [""]
    ]
    calls = [textwrap.shorten(f"→ {plain.line(call)}", width, placeholder="…") for call in made.calls]
    return [f"{made.name} {made.commit[:12]}", _cost(made), "─" * width, *calls, *wrapped]


def _cost(made: Made) -> str:
    tokens = "" if made.tokens is None else f", {made.tokens} tokens"
    calls = f", {len(made.calls)} tool call{'s' * (len(made.calls) != 1)}"
    return f"{made.seconds:.1f} s{tokens}{calls}"


def _said(made: Made) -> str:
    """As much of it as anybody reads."""
    said = made.error or made.text or "(nothing)"
    more = len(said) - _MOST_SHOWN
    return f"{said[:_MOST_SHOWN]}\n… and {more} characters more" if more > 0 else said


def html(compared: Compared) -> str:
    """The same as a page of its own."""
    columns = "".join(_column(made) for made in compared.sides)
    head = f"<header><h1>Both were asked</h1><blockquote>{escape(compared.message)}</blockquote></header>"
    return page.whole("Current and candidate", f'{head}<div class="two">{columns}</div>')


def _column(made: Made) -> str:
    calls = "".join(f"<li><code>{escape(call)}</code></li>" for call in made.calls)
    return (
        f"<section><h2>{made.name} <small>{made.commit[:12]}</small></h2>"
        f'<p class="faint">{_cost(made)}</p>'
        + (f"<ul>{calls}</ul>" if calls else "")
        + f"<pre>{escape(_said(made))}</pre></section>"
    )
