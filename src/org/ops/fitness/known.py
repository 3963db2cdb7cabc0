"""How well main does, as its self-test found it, kept: it is not asked again for the next candidate."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from org.ops import files
from org.ops.fitness.band import Band
from org.ops.fitness.pairs import Pair
from org.ops.fitness.selftest import Tested

FILE = "selftest.json"


@dataclass(frozen=True, slots=True)
class Known:
    """Its scores in all, and the mean at each task that was asked, by the task's id."""

    band: Band
    means: Mapping[str, float]


def of(tested: Tested) -> Known:
    return Known(tested.band, means(tested.twin.counted))


def means(pairs: Iterable[Pair]) -> dict[str, float]:
    """Of both sides, which are the same program."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        scores[pair.task] += [pair.current.score, pair.candidate.score]
    return {task: statistics.fmean(found) for task, found in scores.items()}


def find(folder: Path, names: object) -> Known | None:
    """What was kept, if it was found with all that is named."""
    kept = files.read_json(folder / FILE) or {}
    if kept.get("key") != _key(names):
        return None
    told = json.loads(kept["known"])
    return Known(Band(**told["band"]), told["means"])


def keep(folder: Path, names: object, known: Known) -> None:
    files.write_json(folder / FILE, {"key": _key(names), "known": json.dumps(asdict(known))})


def _key(names: object) -> str:
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()
