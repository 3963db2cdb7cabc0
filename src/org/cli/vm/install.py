"""`org vm install`."""

from __future__ import annotations

import argparse

from org import __version__
from org.cli.vm.shown import steps_shown
from org.cli.vm.verb import Call, Verb
from org.errors import ExitCode
from org.sandbox.vm.install import install


def _no_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


async def _install(call: Call) -> int:
    with steps_shown() as steps:
        done = await install(call.machine, call.settings.places.cache, steps.progress)
    if done.already:
        print(f"org {__version__} is in the machine `{call.machine.name}` already")
    else:
        print(f"org {__version__} is in the machine `{call.machine.name}` now ({done.size / 1e6:.1f} MB)")
    return ExitCode.DONE


VERBS = {"install": Verb("put this very version of org into it", _no_options, _install)}
