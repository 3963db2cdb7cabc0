"""Joining a room that a server runs (`org serve`), as the screen needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from org.config import Settings
from org.tui.attached import Attached
from org.tui.client import Client, Place, place_of
from org.tui.link import Link
from org.tui.remote import COMMANDS, command


@asynccontextmanager
async def attach(url: str, room: str, settings: Settings) -> AsyncIterator[Link]:
    """Join a room of a server as the person of these settings; made when there is none of that name.

    Raises `UsageError`, `Busy` when another process has the room, `EnvironmentProblem` without a server.
    """
    place = place_of(url, room, settings.places.state / "serve-token")
    client = Client(place)
    try:
        name = place.room or await _newest(client)
        known = [entry.get("id") for entry in (await client.ask("GET", "/rooms"))["rooms"]]
        if name not in known:
            name = str((await client.ask("POST", "/rooms", {"id": name} if name else {}))["id"])
        joined = await client.ask(
            "POST", f"/rooms/{quote(name)}/members", {"person": settings.name}, again=True
        )
        attached = Attached(client, joined, settings.name)
        following = asyncio.create_task(attached.follow())
        try:
            await _first(attached.known(), following)
            following.add_done_callback(attached.lost)
            yield _link(attached, place, settings)
        finally:
            following.cancel()
            await asyncio.wait([following])
    finally:
        client.close()


async def _newest(client: Client) -> str:
    rooms = (await client.ask("GET", "/rooms"))["rooms"]
    return str(rooms[0]["id"]) if rooms else ""


async def _first(waited: Coroutine[Any, Any, None], following: asyncio.Task[None]) -> None:
    """Wait, unless what brings it has ended: then raise why."""
    waiting = asyncio.ensure_future(waited)
    try:
        await asyncio.wait([waiting, following], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        waiting.cancel()


def _link(attached: Attached, place: Place, settings: Settings) -> Link:
    ledger = attached.ledger
    return Link(
        id=attached.id,
        person=attached.person,
        place=attached.place,
        welcome=f"This room is served by {place.base}; commands run {attached.place}.",
        state=lambda: ledger.state,
        events=lambda: ledger.events,
        observe=ledger.observe,
        limits=lambda: attached.limits,
        say=attached.say,
        command=partial(command, attached),
        interrupt=attached.interrupt,
        present=attached.present.events,
        decide=attached.decide,
        commands={name: (c.usage, c.about) for name, c in COMMANDS.items() if c.about},
        history=settings.places.state / "history",
    )
