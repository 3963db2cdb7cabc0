"""A verdict as one page that needs nothing else: no script, no font, no picture from elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from org.ops.fitness import page, plot
from org.ops.fitness.plot import Path

_WORDS = {"pass": "Passed", "fail": "Failed", "inconclusive": "Not decided"}
_SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?"}
_W, _H = 760.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 14.0, 34.0


def html(verdict: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [_head(verdict), _gates(verdict)]
    if verdict.get("pairs"):
        parts += [_path(verdict), _costs(verdict), _table(verdict["pairs"])]
    parts.append(_facts(verdict))
    return page.whole(f"{_WORDS[verdict['verdict']]}: {verdict['branch']}", "".join(parts))


def _head(verdict: Mapping[str, Any]) -> str:
    word = verdict["verdict"]
    lines = (verdict["why"], *verdict.get("hint", "").splitlines())
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return (
        f'<header><p class="badge {word}"><span aria-hidden="true">{_SIGNS[word]}</span> {_WORDS[word]}</p>'
        f"<h1>{escape(verdict['branch'])}</h1>{said}</header>"
    )


def _gates(verdict: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<li class="{"pass" if one["passed"] else "fail"}"><span class="sign" aria-hidden="true">'
        f"{_SIGNS['pass' if one['passed'] else 'fail']}</span><b>{escape(one['gate'])}</b>"
        f"<span>{escape(one['about'])}</span></li>"
        for one in verdict["findings"]
    )
    return f'<section><h2>Gates</h2><ul class="gates">{rows}</ul></section>'


# -- the way of the statistic


def _path(verdict: Mapping[str, Any]) -> str:
    path = plot.path_of(verdict)
    if not path.means:
        return ""
    most = plot.reach(path)
    drawn = "".join((_grid(path, most), _bounds(path, most), _line(path, most)))
    last, error = path.means[-1], path.errors[-1]
    words = (
        f"The mean difference after {len(path.means)} of {path.planned} pairs is {last:+.3f} ± {error:.3f}."
    )
    key = (
        '<p class="key"><span class="k-line">mean difference, with its standard error</span>'
        '<span class="k-pass">passes in here</span><span class="k-fail">fails in here</span>'
        "<span>pale: not reached</span></p>"
    )
    return (
        f'<section><h2>Candidate less current, pair by pair</h2><figure><div class="wide">'
        f'<svg class="path-of" viewBox="0 0 {_W:g} {_H:g}" role="img" aria-label="{escape(words)}">'
        f"{drawn}</svg></div>"
        f"<figcaption>{escape(words)}{key}</figcaption></figure></section>"
    )


def _x(path: Path, pairs: float) -> float:
    return _LEFT + (_W - _LEFT - _RIGHT) * pairs / path.planned


def _y(most: float, value: float) -> float:
    value = max(-most, min(most, value))
    return _TOP + (_H - _TOP - _BOTTOM) * (most - value) / (2 * most)


def _grid(path: Path, most: float) -> str:
    step = _step(most)
    lines = []
    for number in range(-int(most / step), int(most / step) + 1):
        value, y = number * step, _y(most, number * step)
        kind = "zero" if number == 0 else "rule"
        lines.append(f'<line class="{kind}" x1="{_LEFT:g}" x2="{_W - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = _signed(value)
        lines.append(f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for pairs in (0, *(mark.pairs for mark in path.marks)):
        word = "pairs asked: 0" if pairs == 0 else f"{pairs}"
        anchor = "start" if pairs == 0 else "end" if pairs == path.planned else "middle"
        lines.append(f'<text x="{_x(path, pairs):.1f}" y="{_H - 10:g}" text-anchor="{anchor}">{word}</text>')
    y = _y(most, -path.margin)
    lines.append(f'<line class="margin" x1="{_LEFT:g}" x2="{_W - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
    lines.append(
        f'<text class="margin-word" x="{_W - _RIGHT - 26:g}" y="{y + 13:.1f}" text-anchor="end">'
        f"margin \u2212{path.margin:g}</text>"
    )
    return "".join(lines)


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\u2212") if value else "0"


def _step(most: float) -> float:
    return next(step for step in (0.05, 0.1, 0.2, 0.25, 0.5) if most / step <= 4)


def _bounds(path: Path, most: float) -> str:
    bars = []
    for mark in path.marks:
        x = _x(path, mark.pairs)
        pale = "" if mark.seen else " pale"
        for kind, begin, end in (("pass", most, mark.passes), ("fail", mark.fails, -most)):
            top, bottom = _y(most, begin), _y(most, end)
            edge = bottom if kind == "pass" else top
            bars.append(
                f'<rect class="bar {kind}{pale}" x="{x - 5:.1f}" y="{top:.1f}" width="10"'
                f' height="{max(0.0, bottom - top):.1f}"/>'
                f'<line class="edge {kind}{pale}" x1="{x - 11:.1f}" x2="{x + 11:.1f}" y1="{edge:.1f}"'
                f' y2="{edge:.1f}"/>'
            )
    return "".join(bars)


def _line(path: Path, most: float) -> str:
    at = [_x(path, pairs) for pairs in range(1, len(path.means) + 1)]
    both = list(zip(at, path.means, path.errors, strict=True))
    above = [f"{x:.1f},{_y(most, mean + error):.1f}" for x, mean, error in both]
    below = [f"{x:.1f},{_y(most, mean - error):.1f}" for x, mean, error in reversed(both)]
    line = " ".join(f"{x:.1f},{_y(most, mean):.1f}" for x, mean, _ in both)
    x, y = at[-1], _y(most, path.means[-1])
    return (
        f'<polygon class="haze" points="{" ".join((*above, *below))}"/>'
        f'<polyline class="path" points="{line}"/>'
        f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    )


# -- what it costs


def _costs(verdict: Mapping[str, Any]) -> str:
    counted = [pair for pair in verdict["pairs"] if not pair["discarded"]]
    medians = verdict["costs"]
    both = "".join(
        (
            _strip(counted, "seconds", "Seconds an answer", medians["seconds"], ".3g"),
            _strip(counted, "tokens", "Tokens an answer", medians["tokens"], ".0f"),
        )
    )
    return f'<section><h2>What an answer costs</h2><div class="two">{both}</div></section>' if both else ""


def _strip(
    pairs: Sequence[Mapping[str, Any]], name: str, title: str, medians: Sequence[float], form: str
) -> str:
    """A dot for each answer of either side, on a scale of powers, and a stroke for the median."""
    rows = {
        side: [pair[side][name] for pair in pairs if not pair[side]["error"] and pair[side][name]]
        for side in ("current", "candidate")
    }
    known = [value for row in rows.values() for value in row]
    if not known:
        return ""
    low, high = math.log10(min(known)) - 0.05, math.log10(max(known)) + 0.05
    width, height = 370.0, 150.0

    def x(value: float) -> float:
        return 78 + (width - 96) * (math.log10(value) - low) / max(1e-9, high - low)

    drawn = []
    for number, (side, row) in enumerate(rows.items()):
        middle = 34 + 52 * number
        drawn.append(f'<text x="0" y="{middle + 4:g}">{side}</text>')
        drawn += [
            f'<circle class="dot {side}" cx="{x(value):.1f}" cy="{middle + _shift(place):.1f}" r="3"/>'
            for place, value in enumerate(row)
        ]
        if medians[number] > 0:
            at = x(max(min(known), medians[number]))
            drawn.append(
                f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="{middle - 18}" y2="{middle + 18}"/>'
            )
            drawn.append(
                f'<text class="value" x="{at:.1f}" y="{middle - 21:g}" text-anchor="middle">'
                f"{medians[number]:{form}}</text>"
            )
    for value in (min(known), max(known)):
        anchor = "start" if value == min(known) else "end"
        drawn.append(
            f'<text x="{x(value):.1f}" y="{height - 6:g}" text-anchor="{anchor}">{value:{form}}</text>'
        )
    words = f"{title}: median {medians[0]:{form}} for current, {medians[1]:{form}} for the candidate"
    return (
        f'<figure><svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(words)}">'
        f"{''.join(drawn)}</svg><figcaption>{escape(words)}.</figcaption></figure>"
    )


def _shift(place: int) -> float:
    """Up and down, so that dots beside each other can be told apart."""
    return (place * 7 % 11 - 5) * 2.4


# -- the pairs


def _table(pairs: Iterable[Mapping[str, Any]]) -> str:
    rows = [_row(number, pair) for number, pair in enumerate(pairs, 1)]
    head = "".join(
        f'<th scope="col"{kind}>{word}</th>'
        for word, kind in (
            ("#", ' class="n"'),
            ("task", ""),
            ("current", ' class="n"'),
            ("candidate", ' class="n"'),
            ("difference", ' class="n"'),
            ("seconds", ' class="n"'),
            ("tokens", ' class="n"'),
            ("seed", ' class="n"'),
        )
    )
    return (
        '<section><h2>The pairs, as they were asked <small>(› first)</small></h2><div class="wide"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _row(number: int, pair: Mapping[str, Any]) -> str:
    current, candidate = pair["current"], pair["candidate"]
    difference = candidate["score"] - current["score"]
    kind = "lost" if pair["discarded"] else "better" if difference > 0 else "worse" if difference < 0 else ""
    first = "candidate" if pair["candidate_first"] else "current"
    trouble = pair["discarded"] or candidate["error"]
    note = f"<small>{escape(trouble)}</small>" if trouble else ""
    shown = "–" if pair["discarded"] else _signed(difference)
    return (
        f'<tr class="{kind}"><td class="n">{number}</td><td>{escape(pair["task"])}{note}</td>'
        f"{_score(current, first == 'current')}{_score(candidate, first == 'candidate')}"
        f'<td class="n d">{shown}</td>'
        f'<td class="n">{current["seconds"]:.2f} / {candidate["seconds"]:.2f}</td>'
        f'<td class="n">{_count(current["tokens"])} / {_count(candidate["tokens"])}</td>'
        f'<td class="n faint">{pair["seed"]}</td></tr>'
    )


def _score(half: Mapping[str, Any], first: bool) -> str:
    mark = '<span class="first" title="was asked first">›</span>' if first else ""
    shown = "✕" if half["error"] else f"{half['score']:.2g}"
    return f'<td class="n">{mark}{shown}</td>'


def _count(tokens: int | None) -> str:
    return "–" if tokens is None else f"{tokens}"


def _facts(verdict: Mapping[str, Any]) -> str:
    known = {
        "merge": verdict["merge"],
        "main": verdict["main"],
        "tree": verdict["tree"],
        "attempt": f"{verdict['attempt']}, with an alpha of {verdict['alpha']:g}",
        "model": verdict["model"],
        "suite": verdict["tasks"] or verdict["suite"],
        "gate": verdict["inputs"]["gate_code"],
        "drawn with": verdict.get("seed", ""),
        "anchor": verdict.get("anchor", ""),
        "protection": "lifted: `--allow-protected`" if verdict.get("allow_protected") else "",
        "better than current": "yes" if verdict.get("superior") else "",
        "ran as yourself": verdict.get("shared_because", ""),
    }
    rows = "".join(
        f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in known.items() if value != ""
    )
    return f"<section><h2>Of what this is the verdict</h2><dl>{rows}</dl></section>"
