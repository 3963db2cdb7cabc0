"""The rooms that are served, without a network."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType

import pytest

from org.chat.state import State
from org.compose.opening import Opening
from org.compose.rooms import open_session
from org.compose.session import Session
from org.config import Member, Settings
from org.errors import Busy, OrgError
from org.events import Joined, Notice, Posted
from org.journal import RoomJournal, room_folder
from org.messages import EVERYONE, Message
from org.serve import hub as module
from org.serve.health import Health
from org.serve.hub import Hub
from org.serve.refusal import Refusal
from serve_kit import DEADLINE_S, Parrot, parrots, rooms_with, settings_in, site


async def test_many_who_open_a_room_open_it_once(tmp_path: Path) -> None:
    async with Hub(settings_in(tmp_path), rooms_with(parrots)) as hub:
        made, *found = await asyncio.gather(hub.create("main"), *(hub.open("main") for _ in range(5)))
        assert all(served is made for served in found)
        with pytest.raises(Refusal) as refused:
            await hub.create("main")
        assert refused.value.status == 409


async def test_a_room_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    async with Hub(settings_in(tmp_path), rooms_with(lambda: [Parrot("Not A Name")])) as hub:
        with pytest.raises(Exception, match="not a name"):
            await hub.create("main")
        assert hub.served == ()


async def test_the_room_that_was_idle_longest_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    gate = asyncio.Event()
    settings = settings_in(tmp_path)
    async with Hub(settings, rooms_with(lambda: [Parrot(wait=gate.wait)])) as hub:
        busy, read, idle = [await hub.create(name) for name in ("busy", "read", "idle")]
        await busy.post("me", "wait")
        with read.stream.reader(0):
            await hub.create("new")
            assert {served.id for served in hub.served} == {"busy", "read", "new"}
            (await RoomJournal.open(room_folder(settings.places.rooms, "idle")).close())
            with pytest.raises(Refusal, match="let go"):
                await idle.post("me", "too late")
            with (await hub.look("new")).stream.reader(0), pytest.raises(Refusal, match="3 rooms"):
                await hub.create("newer")
        gate.set()


async def test_a_room_for_nobody_has_nobody_in_it(tmp_path: Path) -> None:
    """Only where nothing is said of participants are they those that are configured."""
    rosters: list[Sequence[Member]] = []

    def open_room(settings: Settings, opening: Opening) -> AbstractAsyncContextManager[Session]:
        rosters.append(settings.participants)
        return rooms_with(parrots)(settings, opening)

    settings = settings_in(tmp_path)
    async with site(tmp_path, open_room=open_room) as server:
        for room, asked in (
            ("usual", {}),
            ("empty", {"participants": []}),
            ("one", {"participants": ["a=simple"]}),
        ):
            assert (await server.ask("POST", "/rooms", {"id": room, **asked})).status == 201
    usual, empty, one = rosters
    assert (usual, empty, [member.id for member in one]) == (settings.participants, (), ["a"])
    assert usual


async def test_a_long_room_is_read_beside_the_loop(tmp_path: Path) -> None:
    """Looked at, opened and let go of, it holds up no other: what was said is taken in by other threads."""
    settings, size, here = settings_in(tmp_path), 500, 0
    said = [Posted(Message(n, "me", "person", EVERYONE, "hi", 0.0)) for n in range(1, size + 1)]
    async with RoomJournal.open(room_folder(settings.places.rooms, "long")) as journal:
        await journal.append([Joined("me", "person"), *said])

    def count(frame: FrameType, kind: str, argument: object) -> None:
        nonlocal here
        here += kind == "call" and frame.f_code is State.apply.__code__

    hub = Hub(settings, open_session)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        looked_at = await hub.look("long")
        assert len(looked_at.state.transcript) == looked_at.stream.seq - 1 == size
        opened = await hub.open("long")
        assert opened.room.transcript == looked_at.state.transcript
        await hub.close(0)
        assert len(opened.state.transcript) == size
    finally:
        sys.setprofile(before)
        await hub.close(0)
    assert here < size / 10


async def test_a_new_generation_waits_for_the_room(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        Hub(settings, rooms_with(parrots)) as old,
        Hub(settings, rooms_with(parrots), patience_s=DEADLINE_S) as new,
        Hub(settings, rooms_with(parrots)) as hasty,
    ):
        served = await old.create("main")
        await served.post("me", "hello")
        with pytest.raises(Busy, match="open elsewhere"):
            await hasty.open("main")
        opening = asyncio.create_task(new.open("main"))
        seen = await new.look("main")  # is answered meanwhile
        assert len(seen.events) >= 3
        assert not opening.done()
        await old.close(DEADLINE_S)
        taken = await opening
        assert taken is seen
        assert list(taken.events) == list(served.events)
        assert [message.id for message in await taken.post("me", "again")] == [3]


async def test_a_journal_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Hub(settings_in(tmp_path), rooms_with(parrots)) as hub:
        served = await hub.create("main")
        shown: list[object] = []
        monkeypatch.setattr(served.stream, "take", shown.append)

        async def broken() -> object:
            raise OrgError("no space left", "free some")

        monkeypatch.setattr(served.room, "answer", broken)
        await served.post("me", "hello")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert Notice("no space left", "free some") in shown


async def test_health_never_waits_for_the_model_server() -> None:
    asked = asyncio.Event()
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def probe() -> bool:
        asked.set()
        return await answer

    health = Health(probe)
    assert health.report()["model_reachable"] is None
    await asked.wait()
    assert health.report()["model_reachable"] is None
    answer.set_result(True)
    for _ in range(3):  # for the task that asked
        await asyncio.sleep(0)
    assert health.report()["model_reachable"] is True
    await health.close()


async def test_health_that_still_asks_is_closed() -> None:
    asked = asyncio.Event()

    async def probe() -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    health = Health(probe)
    health.report()
    await asked.wait()
    await health.close()
