"""Which rooms a hub keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from org.compose.opening import Opening
from org.compose.session import Session
from org.config import Settings
from org.serve import hub as module
from org.serve.hub import Hub
from serve_kit import parrots, rooms_with, settings_in


async def test_a_room_that_is_being_opened_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others are looked at meanwhile; else it would be open twice, or its stream lost."""
    monkeypatch.setattr(module, "MAX_LOOKED_AT", 1)
    settings = settings_in(tmp_path)
    async with Hub(settings, rooms_with(parrots)) as before:
        for name in ("main", "one", "two", "three"):
            await before.create(name)
    gate, begun = asyncio.Event(), asyncio.Event()
    opens = rooms_with(parrots)

    @asynccontextmanager
    async def slowly(settings: Settings, opening: Opening) -> AsyncIterator[Session]:
        begun.set()
        await gate.wait()
        async with opens(settings, opening) as session:
            yield session

    async with Hub(settings, slowly) as hub:
        opening = asyncio.create_task(hub.open("main"))
        await begun.wait()
        for name in ("one", "two", "three"):
            await hub.look(name)
        again = asyncio.create_task(hub.open("main"))
        gate.set()
        served = await opening
        assert await again is served
        assert await hub.look("main") is served
        assert len(hub.served) == 2
