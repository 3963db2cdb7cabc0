"""Begins the process that a machine lives in, and hears from it how far it is."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from org.errors import SandboxGone
from org.sandbox.vm import environment
from org.sandbox.vm.plan import Plan
from org.sandbox.vm.start import Way

_GIVEN_UP_S = 20.0


async def begin(
    plan: Plan, log: Path, on_step: Callable[[str], None], on_note: Callable[[str], None]
) -> Way | None:
    """Until the machine is up; None when another process has it.

    Cancelling it ends a machine that is not up yet. Raises `SandboxGone` when it does not come up.
    """
    async with _supervisor(log) as (reader, writer):
        writer.write(plan.as_json().encode() + b"\n")
        try:
            async for line in reader:
                match json.loads(line):
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
        except ConnectionError:
            pass  # it ended before it read all
        except asyncio.CancelledError:
            writer.write_eof()  # it gives up then, which it says by its own end
            with suppress(TimeoutError):
                async with asyncio.timeout(_GIVEN_UP_S):
                    await reader.read(-1)
            raise
    raise SandboxGone("the machine's process ended", f"its log: {log}")


@asynccontextmanager
async def _supervisor(log: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The two ways of its one connection, which tells it for how long somebody waits for the machine."""
    ours, theirs = socket.socketpair()
    with log.open("ab") as file, theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            starter = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "org.sandbox.vm.supervisor"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=file,
                start_new_session=True,
                cwd="/",
                env=environment.ours(),
            )
            theirs.close()
            try:
                yield reader, writer
            finally:
                await starter.wait()  # it has left its machine to itself
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
