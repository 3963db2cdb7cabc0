"""`org start`: current or the candidate is served, each from its own files."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from org.errors import Conflict, EnvironmentProblem, ExitCode
from org.ops import candidate, control, place, planning, program, settings, sync, trust, worktrees
from org.ops.cli.answer import Answer, Parser, add_json, give
from org.ops.family import ACCOUNT
from org.ops.git import Git
from org.ops.layout import Colour
from org.ops.plan import KEYS, LONGEST, Times
from org.ops.program import Program
from org.ops.supervisor import supervise
from org.ops.unit import file_name, unit


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served: a commit, its files, and how. `drain_s` is what main says; what is served may
    take no longer than `most`."""

    commit: str
    folder: Path
    port: int
    drain_s: float
    most: Times
    notes: tuple[str, ...]


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org start",
        description="Serve the program's main as current, or a candidate beside it, each from its own files."
        " What is served already is replaced without losing a request; what ends by itself is started again.",
    )
    made.add_argument("colour", choices=("current", "candidate"), help="what to serve")
    made.add_argument("branch", metavar="BRANCH", nargs="?", default="", help="of a candidate; default: the "
                      "one in the folder")  # fmt: skip
    how = made.add_mutually_exclusive_group()
    how.add_argument("--foreground", action="store_true", help="supervise here until Ctrl-C, not in the "
                     "background")  # fmt: skip
    how.add_argument("--systemd", action="store_true", help="print a systemd unit that does this, and start "
                     "nothing")  # fmt: skip
    how.add_argument("--tmux", action="store_true", help="then show its log in a tmux window")
    add_json(made)
    return made


def run(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if args.branch and args.colour == "current":
        made.error("current is always main: no BRANCH")
    if args.json and (args.foreground or args.systemd or args.tmux):
        made.error("--json goes with none of --foreground, --systemd, --tmux")
    here = program.find(Path(), os.environ)
    if args.systemd:
        if args.colour == "candidate":
            made.error("one supervisor serves both colours, and its unit is current's: "
                       "`org start candidate` then starts one in it")  # fmt: skip
        return _print_unit(here)
    if args.foreground:
        return _supervise(here, args.colour, args.branch)
    code = give(args.json, _start(here, args.colour, args.branch))
    return _show(here, args.colour) if args.tmux else code


def _start(here: Program, colour: Colour, branch: str) -> Answer:
    wanted = _prepare(here, colour, branch)
    told = control.serve(here.layout, colour, wanted.commit, wanted.folder, wanted.port, wanted.most)
    word = "is served already" if told["already"] else "is served"
    notes = wanted.notes
    if told.get("old_said_draining") is False:
        notes += ("what was served before did not say that it drains: `org status` shows until when",)
    if urlsplit(told["url"]).port != wanted.port:
        notes += (
            f"`ports` names {wanted.port} now, and what is served keeps its port until it is stopped:"
            f" `org stop {colour}`, then again",
        )
    if colour == "candidate":
        notes += (_contained(here, wanted.folder),)
    told |= {"url": place.seen(told["url"])}
    line = f"{colour}: {wanted.commit[:12]} {word} at {told['url']}, pid {told['pid']}"
    if where := place.where(os.environ):
        line += f", {where}"
    reason = "serving-already" if told["already"] else "serving"
    return Answer(reason, (line,), notes, told)


def _contained(here: Program, folder: Path) -> str:
    """What keeps the candidate, which nobody has judged, from the rest."""
    account, why = planning.account_of_candidate(here.layout, folder)
    own = f"a user of its own, `{ACCOUNT}`, and limits" if account else f"limits alone, as you: {why}"
    where = "in the machine, and there" if place.in_guest() else "on this host,"
    return f"the candidate runs {where} contained by {own}; `org status` has more"


def _prepare(here: Program, colour: Colour, branch: str) -> Wanted:
    """The files of what is to be served. Raises `ConfigError` when the program is not trusted."""
    with here.hold("start") as git:
        notes = [sync.begin(here, git)]
        if colour == "current":
            notes.append(_take_in(here, git))
        known, _ = sync.current(git)
        commit = known.main.commit
        read = settings.read(trust.text_of(git, commit))
        trust.require_commit(here, git, commit)  # main as it is now: that is started, or says how
        most = LONGEST
        if colour == "candidate":
            commit = known.branch(branch or candidate.branch_of(here)).commit
            most = Times(read.ready_timeout, read.drain_timeout)
        folder = worktrees.ensure(here.layout, git, commit)
        port = place.ports(read.ports)[colour == "candidate"]
        return Wanted(commit, folder, port, read.drain_timeout, most, tuple(filter(None, notes)))


def _take_in(here: Program, git: Git) -> str:
    """What is new on the user's main; when that does not fit, ours is served as it is."""
    known, _ = sync.current(git)
    try:
        return sync.take_in(here, git, known)
    except Conflict as conflict:
        return f"{conflict.message}: yours is not taken in"


# -- other ways


def _supervise(here: Program, colour: Colour, branch: str) -> int:
    wanted = _prepare(here, colour, branch)
    for note in wanted.notes:
        print(f"org: {note}", file=sys.stderr)
    first = control.request(colour, wanted.commit, wanted.folder, wanted.port, wanted.most)
    asyncio.run(supervise(here.layout, {"shown": True}, first))
    return ExitCode.DONE


def _print_unit(here: Program) -> int:
    wanted = _prepare(here, "current", "")
    words = [sys.executable, "-P", "-m", "org", "start", "current", "--here", "--foreground"]
    name = here.layout.root.name
    print(unit(name, str(here.checkout.folder), words, wanted.drain_s, os.environ), end="")
    file = file_name(name)
    put = f"put it into ~/.config/systemd/user/{file}, then `systemctl --user enable --now {file}`"
    print(f"org: {put}", file=sys.stderr)
    if keys := sorted(KEYS & os.environ.keys()):
        print(
            f"org: {', '.join(keys)} is not in it: `systemctl --user edit {file}` adds one", file=sys.stderr
        )
    return ExitCode.DONE


def _show(here: Program, colour: Colour) -> int:
    """Become tmux with the log in a window; what is served does not live there."""
    tmux = shutil.which("tmux")
    if tmux is None:
        raise EnvironmentProblem("there is no `tmux` here", f"`org logs -f {colour}` shows the same")
    look = shlex.join([sys.executable, "-P", "-m", "org", "logs", "--here", "-f", colour])
    folder = str(here.layout.root)
    title = f"org-{colour}"
    if os.environ.get("TMUX"):
        words = ["new-window", "-c", folder, "-n", title, look]
    else:
        words = [
            "new-session",
            "-A",
            "-s",
            here.layout.root.name.replace(".", "_"),
            "-c",
            folder,
            "-n",
            title,
            look,
        ]
    sys.stdout.flush()
    os.execv(tmux, ["tmux", *words])
