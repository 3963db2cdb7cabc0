"""Where the commands of a room run."""

from __future__ import annotations

from pathlib import Path

from org.config import Settings
from org.errors import EnvironmentProblem, UsageError
from org.ports import Sandbox
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.local import Local
from org.sandbox.vm import box
from org.sandbox.vm.machine import machine_of
from org.sandbox.vm.place import ThisMachine, VirtualMachine, memory_here, memory_of


async def choose_place(
    settings: Settings, workspace: Path, *, unsafe_local: bool, in_machine: str, tried: bool = False
) -> tuple[Sandbox | None, str]:
    """(where commands run, in words); without a place tools that run commands are off.

    `in_machine` is what the workspace is called in a machine, empty for a folder of the person's own,
    which is in none. `tried` says that bubblewrap works here. A machine that is up is taken before
    anything weaker, and one that is there and does not answer is an error. Never falls back to this
    machine itself. Raises `EnvironmentProblem` when a sandbox is required, `UsageError` for a folder
    that is not in the machine.
    """
    chosen, required = settings.sandbox.place, settings.sandbox.require
    if required == "vm" and (unsafe_local or chosen in ("local", "bubblewrap")):
        raise EnvironmentProblem("the settings require a machine: `sandbox.require`", "`--sandbox vm`")
    if chosen == "local" and not unsafe_local and ThisMachine().there:
        raise EnvironmentProblem("here the rooms are kept: commands run as another user", "`--sandbox vm`")
    if unsafe_local or chosen == "local":
        return Local(workspace, unsafe=unsafe_local), "on this machine itself, without a wall"
    if chosen in ("auto", "vm"):
        found = await _in_machine(settings, in_machine)
        if found is not None:
            return found
        if chosen == "vm" or required == "vm":
            raise EnvironmentProblem("no machine is up", "`org vm up` starts one")
    sandbox = Bubblewrap(workspace)
    try:
        if not tried:
            await sandbox.check()
    except EnvironmentProblem as error:
        if chosen == "bubblewrap" or required:
            raise
        return None, f"nowhere: {error.message}" + (f" ({error.hint})" if error.hint else "")
    note = "" if chosen == "bubblewrap" else "; no machine is up (`org vm up`)"
    return sandbox, f"in bubblewrap: no network, only the workspace can be written{note}"


async def _in_machine(settings: Settings, workspace: str) -> tuple[Sandbox, str] | None:
    """The machine as a place, the one that this process is in itself first; None when none runs.
    Raises `EnvironmentProblem`, `UsageError`."""
    here = ThisMachine()
    if here.there and workspace:
        return VirtualMachine(here, workspace, memory=memory_here()), "in this machine, as the user `job`"
    if here.there:
        raise UsageError("commands run as another user here, who is not in your folders", "leave `-C` out")
    machine = machine_of(settings.places.state)
    status = await machine.status()
    if status.state in ("absent", "down"):
        return None
    if status.state != "up":
        raise EnvironmentProblem(
            f"the machine `{machine.name}` does not answer: {status.state}",
            "`org vm status` shows it; `--sandbox bubblewrap` does without it",
        )
    if not workspace:
        raise UsageError(
            "a folder of yours is not in the machine that is up",
            "leave `-C` out, or take a weaker place: `--sandbox bubblewrap`",
        )
    place = VirtualMachine(machine, workspace, memory=memory_of(status))
    lacks = box.lacking(status.facts["walls"])
    if lacks and settings.sandbox.require == "vm" and "TCG" in status.facts["walls"]:  # alone it is none
        raise EnvironmentProblem(
            f"the settings require a machine with all its walls: `sandbox.require`; it lacks {lacks}",
            "`apt-get install bubblewrap`, `org vm down`, `org vm up`",
        )
    walls = " + ".join(status.facts["walls"]) + (f"; it lacks {lacks}" if lacks else "")
    return place, f"in the machine `{machine.name}`: no network but the model server; {walls}"
