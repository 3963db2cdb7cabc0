"""A program that is kept in a machine cannot be asked while that is down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from org.errors import SandboxGone
from org.ops import place, program


def require(env: Mapping[str, str]) -> None:
    """To be asked when no machine is up. Raises `SandboxGone` when the program of this folder was begun in
    one, and not on this host too."""
    if not place.has_machine(env):
        return
    here = program.find(Path(), env)
    if not here.begun and place.was_given(env, here.layout.root.name):
        raise SandboxGone(
            f"the machine `default` is down, and {here.checkout.folder} was begun in it",
            "`org vm up`; `--here` after the verb acts on this host",
        )
