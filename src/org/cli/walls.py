"""How a proof of walls is shown: what did not hold first, then a line for each wall."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from org.cli.style import Style, table
from org.sandbox.proof import Outcome, Probe, Proof
from org.wording import clean, one_line

_WORDS: dict[Outcome, str] = {"fell": "NOT HELD", "inconclusive": "UNKNOWN", "held": "held"}
_WIDTH = 100


def as_json(proof: Proof) -> dict[str, Any]:
    return {
        "probes": [dataclasses.asdict(probe) | {"held": probe.held} for probe in proof.probes],
        "controls": [dataclasses.asdict(control) for control in proof.controls],
        "verdicts": proof.verdicts(),
        "stands": list(proof.stands),
    }


def as_lines(proof: Proof, style: Style, *, every: bool) -> Iterator[str]:
    """With `every` the attempts that were held against have lines too."""
    if not proof.probes:
        return
    yield from _attempts(proof, style, every=every)
    yield from _controls(proof, style, every=every)
    yield from _walls(proof, style)
    yield _summary(proof, style)
    yield f"  walls that stand: {' + '.join(map(clean, proof.stands)) or 'none'}"


def _attempts(proof: Proof, style: Style, *, every: bool) -> Iterator[str]:
    order: list[Outcome] = ["fell", "inconclusive", "held"]
    walls = list(proof.verdicts())
    shown = [(probe, 0) for probe in proof.probes] if every else _alike(proof)
    shown.sort(key=lambda one: (order.index(one[0].outcome), walls.index(one[0].wall)))
    rows = [
        (
            f"  {_WORDS[one.outcome]}",
            one.wall,
            one.name + (f" and {others} more" if others else ""),
            one_line(one.tried, 48),
            one_line(one.detail, _WIDTH),
        )
        for one, others in shown
    ]
    if not rows:
        return
    lines = table(("  OUTCOME", "WALL", "ATTEMPT", "TRIED", "ANSWER"), rows, style).splitlines()
    yield lines[0]
    for line, (probe, _) in zip(lines[1:], shown, strict=True):
        yield _painted(line, probe.outcome, style, len("  NOT HELD"))
    yield ""


def _alike(proof: Proof) -> list[tuple[Probe, int]]:
    """What was not held against; of those on a wall that prove nothing for the same reason one, and
    how many more there are."""
    found: list[tuple[Probe, int]] = [(probe, 0) for probe in proof.fell]
    unknown: dict[tuple[str, str], list[Probe]] = {}
    for probe in proof.probes:
        if probe.outcome == "inconclusive":
            unknown.setdefault((probe.wall, probe.detail), []).append(probe)
    return found + [(alike[0], len(alike) - 1) for alike in unknown.values()]


def _controls(proof: Proof, style: Style, *, every: bool) -> Iterator[str]:
    """What had to be reached for the rest to prove anything."""
    missed = [one for one in proof.controls if not one.reached]
    for one in proof.controls if every else missed:
        if one.reached:
            yield f"  control {one.name}: {one.tried}: {style.green(one_line(one.detail, _WIDTH))}"
        else:
            yield style.yellow(
                f"  control {one.name} not reached: {one.tried}: {one_line(one.detail, _WIDTH)}"
            )
    if proof.controls if every else missed:
        yield ""


def _walls(proof: Proof, style: Style) -> Iterator[str]:
    rows = []
    for wall, verdict in proof.verdicts().items():
        tried = [probe for probe in proof.probes if probe.wall == wall]
        held = sum(probe.held for probe in tried)
        rows.append((f"  {wall}", _WORDS[verdict], f"{held} of {len(tried)}", _first(tried)))
    lines = table(("  WALL", "VERDICT", "HELD", "FOR ONE"), rows, style).splitlines()
    yield lines[0]
    for line, verdict in zip(lines[1:], proof.verdicts().values(), strict=True):
        yield _painted(line, verdict, style, 0)


def _first(tried: list[Probe]) -> str:
    """The attempt that says most of a wall: one that was not held against, or else the first."""
    one = min(tried, key=lambda probe: ("fell", "inconclusive", "held").index(probe.outcome))
    return one_line(f"{one.tried}: {one.detail}", _WIDTH - 20)


def _painted(line: str, outcome: Outcome, style: Style, most: int) -> str:
    """In the colour of the outcome: of a held one only its first `most` letters, when there is a most."""
    if outcome == "held":
        return style.green(line[:most]) + line[most:] if most else line
    return style.red(line) if outcome == "fell" else style.yellow(line)


def _summary(proof: Proof, style: Style) -> str:
    fell, count = len(proof.fell), len(proof.probes)
    unknown = sum(probe.outcome == "inconclusive" for probe in proof.probes)
    if fell:
        return style.red(f"  {fell} of {count} attempts got through")
    if unknown:
        return style.yellow(f"  {unknown} of {count} attempts prove nothing; none got through")
    return style.green(f"  all {count} attempts were held")
