from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from org.chat.participant import ModelParticipant
from org.compose.opening import Opening
from org.compose.session import Session
from org.config import Member, Settings
from org.errors import EnvironmentProblem, UsageError
from org.messages import Audience
from org.sandbox.local import Local
from org.serve.completions import Said
from org.serve.forks import MAX_FORKS, Forks
from org.serve.refusal import Refusal
from serve_kit import settings_in

HERE = Opening(unsafe_local=True)
TWO = (Member("guide", "simple"), Member("coder", "agent"))
HISTORY = [Said("user", "one"), Said("assistant", "two"), Said("user", "@coder three")]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of somebody whose temporary files are in `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return replace(settings_in(tmp_path), model="feathers", policy="mention")


async def entered(stack: AsyncExitStack, forks: Forks, members: Sequence[Member] = TWO[:1]) -> Session:
    opened = forks.open(
        members, HISTORY, routed=len(members) > 1, sampling=lambda usual: replace(usual, seed=7)
    )
    return await stack.enter_async_context(opened)


async def test_a_fork_leaves_nothing(tmp_path: Path, settings: Settings) -> None:
    async with Forks(settings, HERE) as forks:
        async with AsyncExitStack() as stack:
            session = await entered(stack, forks, TWO)
            assert isinstance(session.sandbox, Local)
            assert session.workspace.parent == tmp_path / "tmp"
            (session.workspace / "left").write_text("behind")
            assert [m.content for m in session.room.transcript] == ["one", "two", "three"]
            assert session.room.transcript[-1].audience == Audience.only("coder")
            assert forks.count == 1
        assert forks.count == 0
    assert os.listdir(tmp_path / "tmp") == []
    assert not settings.places.rooms.exists()


async def test_a_folder_of_the_persons_own_stays(tmp_path: Path, settings: Settings) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    async with Forks(settings, replace(HERE, folder=mine)) as forks, AsyncExitStack() as stack:
        assert (await entered(stack, forks)).workspace == mine
    assert mine.is_dir()


async def test_who_is_alone_is_asked_without_an_address(settings: Settings) -> None:
    async with Forks(settings, HERE) as forks, AsyncExitStack() as stack:
        alone, together = await entered(stack, forks), await entered(stack, forks, TWO)
        assert [room.schedule.policy for room in (alone.room, together.room)] == ["in-turn", "mention"]
        assert alone.room.transcript[-1].content == "@coder three"


async def test_what_takes_long_is_done_once(settings: Settings) -> None:
    chosen: list[str] = []

    async def choose(settings: Settings) -> str:
        await asyncio.sleep(0)
        chosen.append("parrot")
        return "parrot"

    async with Forks(settings, HERE, choose) as forks, AsyncExitStack() as stack:
        sessions = await asyncio.gather(*(entered(stack, forks) for _ in range(5)))
        participants = [session.room.participants["guide"] for session in sessions]
        assert len({id(p.model) for p in participants if isinstance(p, ModelParticipant)}) == 1
        assert {p.introduction.model for p in participants} == {"parrot"}
        assert {p.sampling.seed for p in participants if isinstance(p, ModelParticipant)} == {7}
    assert len(chosen) == 1


async def test_a_model_that_could_not_be_chosen_is_chosen_later(settings: Settings) -> None:
    models = [""]

    async def choose(settings: Settings) -> str:
        if not models[-1]:
            raise UsageError("which one?")
        return models[-1]

    async with Forks(settings, HERE, choose) as forks, AsyncExitStack() as stack:
        with pytest.raises(UsageError, match="which one"):
            await entered(stack, forks)
        models.append("parrot")
        assert (await entered(stack, forks)).room.participants["guide"].introduction.model == "parrot"


async def test_there_are_only_so_many(settings: Settings) -> None:
    async with Forks(settings, HERE) as forks, AsyncExitStack() as stack:
        names = {(await entered(stack, forks)).id for _ in range(MAX_FORKS)}
        assert len(names) == MAX_FORKS
        with pytest.raises(Refusal) as raised:
            await entered(stack, forks)
        assert (raised.value.status, raised.value.headers) == (429, {"Retry-After": "1"})


async def test_nowhere_to_work(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "tmp").rmdir()
    async with Forks(settings, HERE) as forks, AsyncExitStack() as stack:
        with pytest.raises(EnvironmentProblem, match="no workspace can be made"):
            await entered(stack, forks)
        assert forks.count == 0
