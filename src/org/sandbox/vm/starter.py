"""Begins the process that a machine lives in, and hears from it how far it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from org.errors import SandboxGone
from org.sandbox.vm import environment
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.start import Way


async def begin(
    plan: Plan,
    log: Path,
    holder: Callable[[], int | None],
    on_step: Callable[[str], None],
    on_note: Callable[[str], None],
) -> Way | None:
    """Until the machine is up; None when another process has it, which is `holder()`.

    Cancelling it ends a machine that is not up yet. Raises `SandboxGone` when it does not come up.
    """
    with log.open("ab") as file:
        starter = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "org.sandbox.vm.supervisor"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            start_new_session=True,
            cwd="/",
            env=environment.ours(),
        )
    assert starter.stdin is not None
    assert starter.stdout is not None
    starter.stdin.write(plan.as_json().encode())
    starter.stdin.close()
    pid = 0
    try:
        async for line in starter.stdout:
            match json.loads(line):
                case {"pid": int(number)}:
                    pid = number
                case {"step": str(step)}:
                    on_step(step)
                case {"note": str(note)}:
                    on_note(note)
                case {"ready": _, "way": told}:
                    way: Way = told
                    return way
                case {"busy": True}:
                    return None
                case {"error": str(error), "hint": str(hint)}:
                    raise SandboxGone(error, hint or "`org vm logs` shows more")
    except asyncio.CancelledError:
        if pid and holder() == pid:
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        await starter.wait()  # it has left its machine to itself
    raise SandboxGone("the machine's process ended", f"its log: {log}")
