"""`org vm push` and `org vm fetch`: work in and out of a machine."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from org.cli.vm.shown import steps_shown
from org.cli.vm.verb import Call, Verb, room_of
from org.errors import ExitCode
from org.sandbox.vm import layout
from org.sandbox.vm.channel import Surroundings
from org.sandbox.vm.git import Workspace, check_room, relation, repository_of
from org.sandbox.vm.git_host import Repository
from org.sandbox.vm.machine import DEFAULT
from org.sandbox.vm.place import WORKSPACES, memory_of
from org.wording import clean

_SHORT = 10
_MOST_NAMED = 5
_MOST_SHOWN = 20


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", metavar="REPO", type=Path, nargs="?", help="a git repository (this folder's)")
    parser.add_argument("--room", metavar="ROOM", default="work", help="the workspace of this room")


async def _workspace(call: Call) -> Workspace:
    room = room_of(call.args)
    await check_room(room)
    machine = call.machine
    where = Surroundings(f"{WORKSPACES}/{room}", memory=memory_of(await machine.up_or_gone()))
    own = layout.fetched(call.settings.places.state, machine.name, room)
    remote = "org" if machine.name == DEFAULT else f"org-{machine.name}"
    return Workspace(partial(machine.channel, where), room, own, remote)


async def _push(call: Call) -> int:
    repository = await repository_of(call.args.repo or Path())
    workspace = await _workspace(call)
    with _progress() as on_said:
        pushed = await workspace.push(repository, on_said)
    if pushed.left:
        named = ", ".join(map(clean, pushed.left[:_MOST_NAMED]))
        more = len(pushed.left) - _MOST_NAMED
        print(
            f"not committed, and so left behind: {named}{f' and {more} more' if more > 0 else ''}",
            file=sys.stderr,
        )
    print(f"the workspace `{workspace.room}` is at {pushed.branch} ({pushed.commit[:_SHORT]})")
    return ExitCode.DONE


async def _fetch(call: Call) -> int:
    named: Path | None = call.args.repo
    repository = await repository_of(named) if named is not None else None
    workspace = await _workspace(call)
    if repository is None:
        repository = await _pushed_from(workspace)
    with _progress() as on_said:
        fetched = await workspace.fetch(on_said)
    if repository is None:
        print(f"fetched into {workspace.own}")
        words = f"org vm fetch --room {workspace.room} FOLDER"
        print(f"`git init FOLDER && {words}` brings it into a repository")
        return ExitCode.DONE
    await workspace.deliver(repository)
    below = workspace.below
    for name, commit in list(fetched.branches.items())[:_MOST_SHOWN]:
        print(f"{below}/{clean(name)}  {commit[:_SHORT]}")
    if len(fetched.branches) > _MOST_SHOWN:
        print(f"and {len(fetched.branches) - _MOST_SHOWN} more")
    best = f"{below}/{fetched.best}"
    at = "git" if named is None else f"git -C {shlex.quote(str(named))}"
    match await relation(repository, fetched.branches[fetched.best]):
        case "contained":
            print("what is checked out has all of it")
        case "new":
            print(f"`{at} diff ...{best}` shows it, `{at} merge {best}` takes it")
        case "first":
            print(f"`{at} merge {best}` takes it")
        case "unrelated":
            print(f"`{at} merge --allow-unrelated-histories {best}` takes it")
    return ExitCode.DONE


async def _pushed_from(workspace: Workspace) -> Repository | None:
    """The repository of this folder, when work was pushed from there."""
    here = Repository(Path())
    if not await here.asked("rev-parse", "--git-dir"):
        return None
    return here if await workspace.pushed_from(here) else None


@contextmanager
def _progress() -> Iterator[Callable[[bytes], None]]:
    """What shows git's progress on a terminal; elsewhere nothing, for its end says enough."""
    if not sys.stderr.isatty():
        yield lambda line: None
        return
    with steps_shown() as steps:

        def show(line: bytes) -> None:
            if b"%" in line:
                steps.step(line.decode(errors="replace"))

        yield show


VERBS = {
    "push": Verb("bring the committed work of a git repository into it", _options, _push),
    "fetch": Verb("bring the work in it out, into a git repository", _options, _fetch),
}
