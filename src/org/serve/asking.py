"""Tool calls that wait for a person's word, put before whoever reads along; the first answer counts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from org.errors import Denied
from org.events import Asked
from org.serve.refusal import Refusal
from org.serve.stream import Stream
from org.tooling import ToolCall

UNATTENDED_S = 120.0
"""How long a call waits while nobody reads the events of its room; then it is denied."""
REMEMBERED = 256
"""Of how many calls it is still known that they were decided."""


class Asking:
    """The questions of one room. It is what `Opening.ask` is in a room that is served."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._open: dict[str, tuple[Asked, asyncio.Future[bool]]] = {}
        self._decided: dict[str, str] = {}  # how, in words

    @property
    def waiting(self) -> Sequence[Asked]:
        """What nobody has decided yet, the oldest first."""
        return [asked for asked, said in self._open.values() if not said.done()]

    async def __call__(self, participant: str, call: ToolCall) -> bool:
        """Wait for a person's word. Raises `Denied` when nobody is there to give it."""
        said: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asked = Asked(secrets.token_hex(8), participant, call.name, call.arguments)
        self._open[asked.id] = asked, said
        self._stream.take(asked)
        alone = asyncio.create_task(self._stream.deserted(UNATTENDED_S))
        either: set[asyncio.Future[Any]] = {said, alone}
        decision = "it was withdrawn, the turn was stopped"
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if said.done():
                decision = _words(said.result())
                return said.result()
            why = "the server is about to end"
            if not self._stream.ended:
                why = f"nobody was there for {UNATTENDED_S:g} s"
            decision = f"it was denied, {why}"
            raise Denied(why)
        finally:
            alone.cancel()
            del self._open[asked.id]
            self._decided[asked.id] = decision
            if len(self._decided) > REMEMBERED:
                del self._decided[next(iter(self._decided))]

    def answer(self, id: str, allow: bool) -> None:
        """Take a person's word for it. Raises `Refusal` when it is decided already, or was never asked."""
        if id in self._open:
            said = self._open[id][1]
            if said.done():
                raise _too_late(_words(said.result()))
            said.set_result(allow)
        elif id in self._decided:
            raise _too_late(self._decided[id])
        else:
            raise Refusal(404, f"nothing is asked under `{id[:40]}`", "the room's `asking` lists what is")


def _words(allowed: bool) -> str:
    return "it was allowed" if allowed else "it was denied"


def _too_late(decision: str) -> Refusal:
    return Refusal(409, f"this was decided already: {decision}")
