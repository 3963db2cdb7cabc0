"""The full screen of a room. What it stands on is read only when it opens: a plain room never needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from org.compose import Session
from org.tooling import ToolCall


class Asking:
    """Puts tool calls before the person at a screen that opens later; without one the answer is no."""

    def __init__(self) -> None:
        self.screen: Callable[[str, ToolCall], Awaitable[bool]] | None = None

    async def __call__(self, participant: str, call: ToolCall) -> bool:
        return self.screen is not None and await self.screen(participant, call)


async def run_app(session: Session, asking: Asking) -> int:
    """Show a room until the person leaves it; the exit code. `asking` is what it was opened with."""
    from org.tui.app import ChatApp
    from org.tui.link import local

    app = ChatApp(local(session))
    asking.screen = app.ask
    try:
        await app.run_async()
    finally:
        asking.screen = None
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0
