"""From the files of a commit to the `Plan` of a generation: how it starts, with what, under whose name."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from org.errors import ConfigError, EnvironmentProblem
from org.ops import family, ours, place, settings
from org.ops.layout import Colour, Layout
from org.ops.plan import LONGEST, Plan, Times, command


def make_plan(
    layout: Layout,
    colour: Colour,
    commit: str,
    folder: Path,
    env: Mapping[str, str],
    most: Times = LONGEST,
) -> Plan:
    """How to serve a commit from its files; `env` is what it is given of somebody's environment, `most` the
    time that it may take. Raises `ConfigError` when the files do not say how to start, `EnvironmentProblem`
    when they cannot be read."""
    read = settings.read(_text(folder / settings.FILE))
    times = Times(min(read.ready_timeout, most.ready_s), min(read.drain_timeout, most.drain_s))
    more = dict(read.env)
    argv = command(read.start, {"python": sys.executable})
    if not read.contract:
        spec = {"argv": argv, "env": more, "health": read.health, "drain_s": times.drain_s}
        argv = tuple(ours.words("org.ops.splice", json.dumps(spec)))
        more = ours.environment({})
    account, shared, limits = None, "", {}
    if colour == "current" and place.in_guest():
        account, _ = _account_for(layout, folder, family.CURRENT)
        more |= _own_home(account)
    if colour == "candidate":
        account, shared = account_of_candidate(layout, folder)
        limits = family.limits_for(account)
        more |= _home(layout, account)
        if place.in_guest():
            more["ORG_SANDBOX"] = "local"  # the machine is one, and its agent starts nothing for a candidate
    return Plan(
        colour=colour,
        commit=commit,
        folder=str(folder),
        nonce=secrets.token_hex(8),
        argv=argv,
        env=env,
        more=more,
        log=str(layout.log(colour)),
        run=str(layout.run),
        ready_s=times.ready_s,
        drain_s=times.drain_s,
        speaks=bool(read.contract),
        uid=account.uid if account else -1,
        gid=account.gid if account else -1,
        shared=shared,
        limits=limits,
    )


def account_of_candidate(layout: Layout, folder: Path) -> tuple[family.Account | None, str]:
    """Whom the candidate in this folder runs as; None means as we do, and why."""
    return _account_for(layout, folder, family.ACCOUNT)


def _account_for(layout: Layout, folder: Path, name: str) -> tuple[family.Account | None, str]:
    if os.geteuid() == 0:
        _open_way(layout)
    python = Path(sys.executable)
    return family.account_for((folder, python, python.resolve(), Path(__file__).parent), name)


def _own_home(account: family.Account | None) -> dict[str, str]:
    """In a machine current keeps its rooms where its user's other ones are."""
    if account is None:
        return {}
    return {"HOME": account.home, "XDG_STATE_HOME": f"{account.home}/.local/state"}


def _open_way(layout: Layout) -> None:
    """Let others through to the worktrees, and to nothing beside them."""
    for closed in (layout.repo, layout.candidate, layout.run, layout.candidate_home):
        if closed.exists():
            closed.chmod(0o700)
    for way in (layout.root, layout.generations):
        if way.exists():
            way.chmod(0o711)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {settings.FILE} among its files", "it has to say how a generation starts"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(f"{path}: cannot be read: {error}") from error


def _home(layout: Layout, account: family.Account | None) -> dict[str, str]:
    """A candidate keeps its state apart: two generations never write one journal."""
    home = layout.candidate_home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is None:
        return {"XDG_STATE_HOME": str(home)}
    os.chown(home, account.uid, account.gid)
    return {"HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
