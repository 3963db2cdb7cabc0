"""What a verb of `org vm` is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from org.config import Settings
from org.errors import UsageError
from org.sandbox.vm.machine import Machine


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


async def known(machine: Machine) -> None:
    """Raises `UsageError` when there is no such machine."""
    if (await machine.status()).state == "absent":
        raise UsageError(f"there is no machine `{machine.name}`", "`org vm up` makes it")
