"""Where a verb begins and ends: it is carried out where it belongs, and what went wrong is said in the form
that was asked for. The one boundary of all verbs of generations: whatever the system refuses ends here."""

from __future__ import annotations

import os
from types import ModuleType

from org.errors import OrgError
from org.ops import awake, files, place
from org.ops.cli.answer import give_error, say_error


def run(name: str, verb: ModuleType, words: list[str]) -> int:
    """Do a verb, a module of `org.ops.cli`; gives its exit code.

    An expected error is one JSON object for `--json`, else a line. `--debug` raises it instead.
    """
    try:
        return _act(name, verb, words)
    except OrgError as error:
        if "--debug" in words:
            raise
        return give_error(error) if "--json" in words else say_error(error)


def _act(name: str, verb: ModuleType, words: list[str]) -> int:
    try:
        return _carry_out(name, verb, words)
    except BrokenPipeError:  # whoever reads what we write has left
        raise
    except OSError as error:
        raise files.problem(error) from error


def _carry_out(name: str, verb: ModuleType, words: list[str]) -> int:
    args = verb.parser().parse_args(words)
    if not getattr(args, "here", False) and not place.in_guest():
        if place.machine_is_up(os.environ):
            place.act_there(name, args, words)
        awake.require(os.environ)
    code: int = verb.run(words)
    return code
