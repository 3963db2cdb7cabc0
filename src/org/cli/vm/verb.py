"""What a verb of `org vm` is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from org.config import Settings
from org.errors import UsageError
from org.journal.folder import is_room_id
from org.sandbox.vm.machine import DEFAULT, Machine


@dataclass(frozen=True, slots=True)
class Call:
    """A verb as it was typed; `machine` is the one that it names."""

    args: argparse.Namespace
    settings: Settings
    machine: Machine


@dataclass(frozen=True, slots=True)
class Verb:
    """`options` gives the verb's parser what it takes beside `--name`; `run` returns an exit code."""

    about: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Call], Coroutine[Any, Any, int]]


def room_of(args: argparse.Namespace) -> str:
    """The `--room` that is named. Raises `UsageError`."""
    if not is_room_id(args.room):
        raise UsageError(
            f"not a room id: {args.room!r}",
            "1 to 64 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or a digit",
        )
    return str(args.room)


async def known(machine: Machine) -> None:
    """Raises `UsageError` when there is no such machine."""
    if (await machine.status()).state == "absent":
        named = "" if machine.name == DEFAULT else f" --name {machine.name}"
        raise UsageError(f"there is no machine `{machine.name}`", f"`org vm up{named}` makes it")
