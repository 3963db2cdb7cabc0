"""After a promote: what serves is looked at for a while, and the promote is taken back when it does badly.

    python -m org.ops.fitness.watch ROOT COMMIT SECONDS SHARE

ROOT is the program's folder, COMMIT what was promoted, SHARE how many answers failed before. It leaves
whoever started it, and says how it goes in `run/watch.json`.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from org.errors import OrgError
from org.ops import cgroups, control, logfile, ours, place, program, sync, verdicts, watched
from org.ops.fitness import arena, ask, case, rules, vitals
from org.ops.fitness.rules import Rules
from org.ops.fitness.vitals import Answers, Sample, Vitals
from org.ops.layout import Layout
from org.ops.program import Program
from org.ops.rollback import rollback
from org.ops.settings import FILE

POLL_S = 1.0
_METRICS_S = 5.0


@dataclass(frozen=True, slots=True)
class Usual:
    """For how many seconds is watched, 0 for not at all; `share` is of the answers that failed before."""

    seconds: float
    share: float


def main() -> int:
    root, commit, seconds, share = sys.argv[1:]
    supervisor = control.status(Layout(Path(root))).get("supervisor")
    if supervisor and place.in_guest():
        cgroups.join(supervisor["pid"])  # before the verb goes on, which ends all that it has left
    if os.fork():
        os._exit(0)
    watch(Layout(Path(root)), commit, float(seconds), float(share))
    return 0


# -- for whoever promotes


def usual(here: Program) -> Usual:
    """To be asked before a promote: what is promoted has no say in how it is watched."""
    known, served = _rules(here), control.status(here.layout).get("current")
    seen, _ = _answers(known, served) if served else (None, "")
    return Usual(known.watch_s, seen.share if seen else 0.0)


def begin(here: Program, commit: str, before: Usual) -> None:
    """Watch a commit that has just been promoted and is served."""
    words = (str(here.layout.root), commit, str(before.seconds), str(before.share))
    subprocess.run(
        ours.words("org.ops.fitness.watch", *words),
        env=ours.environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        check=True,
    )


# -- the watch itself


def watch(layout: Layout, commit: str, seconds: float, share: float) -> None:
    """Until the time is over, something else is served, or it does badly."""
    here = program.find(layout.root, os.environ)
    known = _rules(here)
    found, until = Vitals(share), time.monotonic() + seconds
    before: Answers | None = None
    state = {
        "commit": commit,
        "until": f"{until:.0f}",
        "pid": str(os.getpid()),
        "state": "watching",
        "why": "",
    }
    watched.tell(layout, state)
    try:
        while time.monotonic() < until:
            served = control.status(layout).get("current")
            if served is None or (served["commit"] != commit and not served["trouble"]):
                _say(layout, state, "left", "something else is served, or nothing")
                return
            now, blind = _answers(known, served) if "pid" in served else (None, state["why"])
            if blind != state["why"]:
                state["why"] = blind
                watched.tell(layout, state)
            before = before or now
            since = vitals.since(now, before) if now and before else Answers()
            well = served.get("health", {}).get("ok", False)
            if why := found.look(Sample(well, served["restarts"], served["trouble"], since)):
                _say(layout, state, *_take_back(here, commit, why))
                return
            time.sleep(POLL_S)
        _say(layout, state, "half-watched" if state["why"] else "well", state["why"])
    except OrgError as error:
        _say(layout, state, "failed", error.message)


def _take_back(here: Program, commit: str, why: str) -> tuple[str, str]:
    """Roll back, if what does badly is still the newest promote; gives what came of it."""
    with case.patiently(here, "watch") as git:
        _, history = sync.current(git)
    if not history.standing or history.standing[-1].commit != commit:
        return "left", f"{why}; but something else was promoted since"
    done = rollback(here, control.swap)
    with case.patiently(here, "watch") as git:
        verdicts.record(git, done.entry.commit, {"verdict": "rolled back", "of": commit, "why": why})
    return "rolled-back", why


def _say(layout: Layout, state: Mapping[str, str], word: str, why: str) -> None:
    watched.tell(layout, {**state, "state": word, "why": why})
    logfile.note(layout.supervisor_log, f"watch of {state['commit'][:12]}: {word}{': ' * bool(why)}{why}")


def _rules(here: Program) -> Rules:
    git = here.look()
    known, _ = sync.current(git)
    return rules.read(git.ask("cat-file", "blob", f"{known.main.commit}:{FILE}")[1])


def _answers(known: Rules, served: Mapping[str, Any]) -> tuple[Answers | None, str]:
    """What it says of its answers so far, or why that is not known: both are nothing where `metrics` is not
    set."""
    path = known.metrics.path
    if not path:
        return None, ""
    try:
        door = ask.Door(int(served["port"]), known.ask, _token(known, served))
        status, data = ask.request(door, "GET", path, seconds=_METRICS_S)
    except (ask.Late, OSError, http.client.HTTPException, ValueError) as error:
        return None, f"its share of failures is not known: GET {path}: {error or type(error).__name__}"
    if status != 200:
        return None, f"its share of failures is not known: GET {path} says {status}"
    return vitals.answers(data.decode(errors="replace"), known.metrics.counter), ""


def _token(known: Rules, served: Mapping[str, Any]) -> str:
    """What current keeps where it was told to keep its state."""
    if not known.ask.token:
        return ""
    owner = Path("/proc", str(served["pid"])).stat().st_uid
    return arena.read_own(Path(served["state_home"], known.ask.token), owner)


if __name__ == "__main__":
    sys.exit(main())
