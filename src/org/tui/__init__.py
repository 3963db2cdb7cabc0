"""The full screen of a room. What it stands on is read only when it opens: a plain room never needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from org.compose.session import Session
from org.config import Settings
from org.tooling import ToolCall

if TYPE_CHECKING:
    from org.tui.link import Link


class Asking:
    """Puts tool calls before the person at a screen that opens later; without one the answer is no."""

    def __init__(self) -> None:
        self.screen: Callable[[str, ToolCall], Awaitable[bool]] | None = None

    async def __call__(self, participant: str, call: ToolCall) -> bool:
        return self.screen is not None and await self.screen(participant, call)


async def run_app(session: Session, asking: Asking) -> int:
    """Show a room until the person leaves it; the exit code. `asking` is what it was opened with."""
    from org.tui.link import local

    return await _show(local(session), asking)


async def run_attached(url: str, room: str, settings: Settings) -> int:
    """Join a room that is served at `url` and show it until the person leaves; the exit code.

    Raises what `attach` raises.
    """
    from org.tui.attach import attach

    async with attach(url, room, settings) as link:
        return await _show(link, Asking())


async def _show(link: Link, asking: Asking) -> int:
    from org.tui.app import ChatApp

    app = ChatApp(link)
    asking.screen = app.questions.ask
    try:
        await app.run_async()
    finally:
        asking.screen = None
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0
