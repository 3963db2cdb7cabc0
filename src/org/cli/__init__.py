"""The command line: one verb a file."""

from __future__ import annotations

from argparse import ArgumentParser
from importlib import import_module
from importlib.util import find_spec

from org.errors import EnvironmentProblem


def parsers() -> dict[str, tuple[str, ArgumentParser | None]]:
    """Each verb with what it does and its parser, for whoever describes all of them.

    The table of verbs belongs to the entry, which stands above them; it is looked up late. A verb
    that cannot be read here, for want of an optional package say, has None.
    """
    table: dict[str, tuple[str, str]] = import_module("org.__main__").VERBS
    return {verb: (about, _parser_of(module)) for verb, (module, about) in table.items()}


def _parser_of(name: str) -> ArgumentParser | None:
    if find_spec(name) is None:
        return None
    try:
        module = import_module(name)
    except EnvironmentProblem:
        return None
    make = getattr(module, "parser", None)
    return None if make is None else make()
