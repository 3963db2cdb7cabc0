"""Calls that wait for the person's word, put before them one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from textual.app import App

from org.events import Asked
from org.tooling import ToolCall
from org.tui.dialogs import Approval
from org.tui.scene import Scene


class Questions:
    """Asks on top of `app`; `place` says in words where the calls run."""

    def __init__(self, app: App[Any], scene: Scene, place: str, clock: Callable[[], float]) -> None:
        self._app = app
        self._scene = scene
        self._place = place
        self._clock = clock
        self._asking = asyncio.Lock()
        self._open: dict[str, tuple[str, asyncio.Task[bool]]] = {}  # by participant: (id, the dialog)

    async def ask(self, participant: str, call: ToolCall) -> bool:
        """Put a call before the person. Cancelling it takes the question back."""
        async with self._asking:
            answered: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
            dialog = Approval(participant, call, self._place, self._clock)

            def answer(said: bool | None) -> None:
                if not answered.done():
                    answered.set_result(said)

            self._app.bell()
            self._app.push_screen(dialog, answer)
            live = self._scene.live.get(participant)
            if live is not None:
                live.do("asking you", self._clock())
            try:
                return bool(await answered)
            finally:
                if live is not None:
                    live.do("thinking", self._clock())
                while dialog in self._app.screen_stack:  # the turn was stopped meanwhile
                    await self._app.pop_screen()

    def put(self, asked: Asked) -> asyncio.Task[bool] | None:
        """Put a call of a room elsewhere before the person; None when it is there already."""
        if asked.participant in self._open and self._open[asked.participant][0] == asked.id:
            return None
        self.withdraw(asked.participant)
        call = ToolCall(asked.id, asked.tool, asked.arguments)
        dialog = asyncio.create_task(self.ask(asked.participant, call))
        self._open[asked.participant] = asked.id, dialog
        return dialog

    def withdraw(self, participant: str) -> None:
        """Somebody else has answered, or the turn is over."""
        if participant in self._open:
            self._open.pop(participant)[1].cancel()

    def withdraw_all(self) -> None:
        for participant in list(self._open):
            self.withdraw(participant)
