"""`org vm`: the machine in which the models' commands run.

A verb is a `Verb` in the `VERBS` of a module beside this one, which is named below.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from org.cli.options import Parser
from org.cli.vm import commands, generation, git, harden, install, jobs, lifecycle
from org.cli.vm.verb import Call
from org.config import load
from org.errors import OrgError, UsageError
from org.ops.cli.answer import give_error
from org.sandbox.vm.machine import DEFAULT, machine_of

VERBS = {
    **lifecycle.VERBS,
    **commands.VERBS,
    **jobs.VERBS,
    **git.VERBS,
    **install.VERBS,
    **generation.VERBS,
    **harden.VERBS,
}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org vm",
        description="A machine of your own for the models' commands. It has no network device: all that it "
        "reaches is the model server's API. While it is up, `org chat` and `org run` run tools in it.",
    )
    verbs = made.add_subparsers(prog="org vm", dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, description=verb.about, help=verb.about)
        one.add_argument("--name", metavar="NAME", default=DEFAULT, help=f"which machine ({DEFAULT})")
        verb.options(one)
    return made


def run(argv: list[str]) -> int:
    """Do one thing with a machine; `exec` and `shell` end as what ran in it did."""
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        raise UsageError(f"no such options: {' '.join(unknown)}", f"`org vm {args.verb} --help` explains it")
    try:
        return _do(args)
    except OrgError as error:
        if not generation.is_for_programs(args):
            raise
        return give_error(error)


def _do(args: argparse.Namespace) -> int:
    flags = {"base": getattr(args, "base", None), "vm.mirror": getattr(args, "mirror", None)}
    # A program's file may be of another version, and is read where the program runs.
    cwd = Path("/") if args.verb == "generation" else Path()
    settings = load(cwd=cwd, flags=flags, env=os.environ)
    call = Call(args, settings, machine_of(settings.places.state, args.name))
    return asyncio.run(VERBS[args.verb].run(call))
