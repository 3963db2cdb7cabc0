"""A full screen on a real room with participants of our own, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from org.chat.room import Limits, Room, Schedule
from org.compose.opening import Opening
from org.compose.servers import Servers
from org.compose.session import Session
from org.config import load
from org.events import Committed
from org.ports import Participant
from org.tui.app import ChatApp
from org.tui.dialogs import Approval
from org.tui.link import Link, local
from org.tui.prompt import Prompt
from org.tui.transcript import Transcript

PLACE = "in bubblewrap: no network, only the workspace can be written"


class Clock:
    """The screen's clock: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """The app with what tests ask of it."""

    def __init__(self, app: ChatApp, pilot: Pilot[Any], link: Link, clock: Clock) -> None:
        self.app = app
        self.pilot = pilot
        self.link = link
        self.clock = clock
        self.room: Room

    @property
    def prompt(self) -> Prompt:
        return self.app.screen_stack[0].query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        return self.app.screen_stack[0].query_one(Transcript)

    @property
    def rows(self) -> list[str]:
        """All rows of the transcript, in sight or not."""
        return [strip.text.rstrip() for item in self.transcript._rows.items for strip in item.strips]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    async def type(self, text: str) -> None:
        self.prompt.insert(text)
        await self.pilot.pause()

    async def say(self, text: str) -> None:
        await self.type(text)
        await self.pilot.press("enter")

    async def until(self, text: str) -> None:
        """Wait until the transcript has it."""
        async with asyncio.timeout(20):
            while text not in self.text:
                await self.pilot.pause(0.01)

    @property
    def asking(self) -> bool:
        """Whether a call is put before the person."""
        return isinstance(self.app.screen, Approval)

    async def asked(self) -> None:
        """Wait until a call is put before the person."""
        async with asyncio.timeout(20):
            while not self.asking:
                await self.pilot.pause(0.01)

    async def quiet(self) -> None:
        """Wait until nobody speaks, and it is drawn."""
        async with asyncio.timeout(20):
            while self.app._scene.running or self.app._news or self.app._work:
                await self.pilot.pause(0.01)
        await self.pilot.pause()


@asynccontextmanager
async def screen(
    folder: Path,
    *participants: Participant,
    size: tuple[int, int] = (80, 24),
    history: Sequence[Committed] = (),
    limits: Limits | None = None,
    schedule: Schedule | None = None,
    **room_options: Any,
) -> AsyncIterator[Screen]:
    settings = load(cwd=folder, flags={}, env={"HOME": str(folder), "USER": "ada"})
    async with AsyncExitStack() as stack:
        servers = Servers(settings, stack, lambda text: None)
        session = Session(settings, Opening(), "room-1", folder, None, PLACE, servers)
        session.room = Room(
            participants=participants,
            people=(settings.name,),
            history=history,
            limits=limits,
            schedule=schedule,
            **room_options,
        )
        await stack.enter_async_context(session.room)
        async with shown_on(local(session), size) as shown:
            shown.room = session.room
            yield shown


@asynccontextmanager
async def shown_on(link: Link, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    """The app on a link, without a terminal."""
    clock = Clock()
    app = ChatApp(link, clock)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield Screen(app, pilot, link, clock)
