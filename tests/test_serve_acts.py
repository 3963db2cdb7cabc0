"""What a person does in a served room beside speaking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cli_kit import models_server
from org.chat.loop import Approval
from org.chat.participant import ModelParticipant
from org.compose.opening import Opening
from org.ports import Participant
from org.serve import acts
from room_kit import Model, model_of, participant, tool
from serve_kit import Client, Parrot, Site, read_until, request, rooms_for, site


async def talk(server: Site, text: str, room: str = "main") -> list[int]:
    """Say something and wait until it is answered; the ids of what it became."""
    seq = (await server.ask("GET", f"/rooms/{room}")).json["seq"]
    async with await Client.connect(server.port) as reader:
        reader.send(request("GET", f"/rooms/{room}/events?after={seq}"))
        await reader.head()
        said = await server.ask("POST", f"/rooms/{room}/messages", {"text": text})
        await read_until(reader, "stopped")
    messages: list[int] = said.json["messages"]
    return messages


async def said(server: Site) -> list[str]:
    events = (await server.ask("GET", "/rooms/main/transcript")).json["events"]
    return [event["message"]["content"] for event in events if event["type"] == "posted"]


def models(opening: Opening) -> Sequence[Participant]:
    """One whose model can be changed, with a tool that is asked about."""
    made = participant("ann", model=Model(), model_name="small", tools=[tool(policy="ask")])
    made.approval = Approval(opening.ask)
    return [made]


async def test_the_newest_message_is_taken_back_once_however_often_one_asks(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        (first,) = await talk(server, "one")
        (second,) = await talk(server, "two")
        early = await server.ask("POST", "/rooms/main/undo", {"message": first})
        assert (early.status, early.json["error"]["hint"]) == (409, f"it is {second}")
        asked = (server.ask("POST", "/rooms/main/undo", {"message": second}) for _ in range(5))
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
        assert await said(server) == ["one", "heard: one"]
        assert (await server.ask("POST", "/rooms/main/undo", {"message": first})).status == 200
        assert await said(server) == []
        none = await server.ask("POST", "/rooms/main/undo", {"message": 99})
        assert (none.status, none.json["error"]["hint"]) == (409, "nobody has said anything")


async def test_what_is_said_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    """One takes back a message while another speaks: whoever comes second is told so, or speaks after it."""
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        (first,) = await talk(server, "one")
        undone, _ = await asyncio.gather(
            server.ask("POST", "/rooms/main/undo", {"message": first}), talk(server, "two")
        )
        assert undone.status in (200, 409)
        assert (await said(server))[-2:] == ["two", "heard: two"]


async def test_everybody_starts_afresh(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        await talk(server, "one")
        cleared = await server.ask("POST", "/rooms/main/clear")
        assert (cleared.status, cleared.json["id"]) == (200, "main")
        events = (await server.ask("GET", "/rooms/main/transcript")).json["events"]
        assert events[-1]["type"] == "cleared"


@pytest.mark.parametrize(("path", "body"), [("undo", {"message": 1}), ("clear", {})])
async def test_not_while_somebody_speaks(tmp_path: Path, path: str, body: object) -> None:
    never = asyncio.Event()
    async with site(tmp_path, lambda: [Parrot(wait=never.wait)]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        await server.ask("POST", "/rooms/main/messages", {"text": "wait"})
        answer = await server.ask("POST", f"/rooms/main/{path}", body)
        assert (answer.status, answer.error) == (409, "the room is busy")
        assert await said(server) == ["wait"]


async def test_limits_are_set_one_by_one_and_told_to_all(tmp_path: Path) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as reader:
        before = (await server.ask("POST", "/rooms", {"id": "main"})).json["limits"]
        reader.send(request("GET", "/rooms/main/events?after=2"))
        await reader.head()
        answer = await server.ask("PUT", "/rooms/main/limits", {"turns": 1, "seconds": 2.5})
        assert answer.json["limits"] == before | {"turns": 1, "seconds": 2.5}
        ((_, notice),) = await read_until(reader, "notice")
        assert "turns 1, seconds 2.5" in notice["text"]
        assert (await server.ask("GET", "/rooms/main")).json["limits"]["turns"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"turns": -1},
        {"turns": 1.5},
        {"turns": True},
        {"turns": "3"},
        {"turns": acts.MOST + 1},
        {"seconds": None},
        b'{"seconds": 1e999}',
        b'{"seconds": NaN}',
        {"steps": 3},
    ],
)
async def test_what_is_no_limit(tmp_path: Path, body: object) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        assert (await server.ask("PUT", "/rooms/main/limits", body)).status == 422


async def test_a_participant_speaks_through_another_model(tmp_path: Path) -> None:
    async with site(tmp_path, open_room=rooms_for(models)) as server:
        room = (await server.ask("POST", "/rooms", {"id": "main"})).json
        (ann,) = room["participants"]
        assert (ann["model"], ann["context"] > 0) == ("small", True)
        assert ann["tools"] == [{"name": "sh", "policy": "ask"}]
        path = "/rooms/main/members/ann/model"
        changed = await server.ask("PUT", path, {"model": "large"})
        assert (changed.status, changed.json["participants"][0]["model"]) == (200, "large")
        events = (await server.ask("GET", "/rooms/main/transcript")).json["events"]
        assert (events[-1]["type"], events[-1]["model"]) == ("model_changed", "large")


@pytest.mark.parametrize(
    ("name", "model", "status"),
    [
        ("ann", " ", 422),
        ("ann", "no/such/file.gguf", 422),
        ("ann", "~nobody-here/x.gguf", 422),
        ("ann", "a\0.gguf", 422),
        ("me", "large", 422),
        ("bob", "large", 404),
    ],
)
async def test_what_is_no_model(tmp_path: Path, name: str, model: str, status: int) -> None:
    async with site(tmp_path, open_room=rooms_for(models)) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        answer = await server.ask("PUT", f"/rooms/main/members/{name}/model", {"model": model})
        assert answer.status == status, answer.body


async def test_words_are_found_in_this_room_alone(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        for room in ("main", "other"):
            await server.ask("POST", "/rooms", {"id": room})
            await talk(server, f"an apple in {room}", room)
        found = (await server.ask("GET", "/rooms/main/search?q=Apple")).json["hits"]
        assert {hit["room"] for hit in found} == {"main"}
        assert {(hit["sender"], hit["snippet"]) for hit in found} == {
            ("me", "an [apple] in main"),
            ("parrot", "heard: an [apple] in main"),
        }
        assert len((await server.ask("GET", "/rooms/main/search?q=apple&limit=1")).json["hits"]) == 1
        assert (await server.ask("GET", "/rooms/main/search?q=pear")).json == {"hits": []}


@pytest.mark.parametrize("query", ["", "q=", "q=!", "q=" + "x" * 201, "q=x&limit=0", "q=x&limit=x"])
async def test_what_cannot_be_searched(tmp_path: Path, query: str) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        assert (await server.ask("GET", f"/rooms/main/search?{query}")).status == 422
        assert (await server.ask("GET", "/rooms/none/search?q=x")).status == 404


async def test_the_models_of_a_server(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        nobody = await server.ask("GET", "/models")
        assert (nobody.status, "no model server" in nobody.error) == (502, True)
        with models_server("one", "two") as base:
            server.hub.settings = replace(server.hub.settings, base=base)
            assert (await server.ask("GET", "/models")).json == {"models": ["one", "two"]}


async def test_older_context_is_summarised_in_the_background(tmp_path: Path) -> None:
    gate = asyncio.Event()

    def wordy(opening: Opening) -> Sequence[Participant]:
        return [participant("ann", *["word " * 300] * 6, "They talked.", model=None, context_tokens=100_000)]

    async with site(tmp_path, open_room=rooms_for(wordy)) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        path = "/rooms/main/members/ann/compact"
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events?after=2"))
            await reader.head()
            assert (await server.ask("POST", path)).json == {"compacting": True}
            *_, (_, notice) = await read_until(reader, "notice")
            assert notice["text"] == "there is nothing to compact yet"
        for _ in range(6):
            await talk(server, "go on")
        (served,) = server.hub.served
        ann = served.room.participants["ann"]
        assert isinstance(ann, ModelParticipant)
        model_of(ann).gate = gate
        async with await Client.connect(server.port) as reader:
            seq = (await server.ask("GET", "/rooms/main")).json["seq"]
            reader.send(request("GET", f"/rooms/main/events?after={seq}"))
            await reader.head()
            assert (await server.ask("POST", path)).status == 202
            assert (await server.ask("POST", path)).status == 409  # one at a time
            await server.ask("POST", "/rooms/main/messages", {"text": "and now?"})  # is answered after it
            gate.set()
            kinds = [event["type"] for seq, event in await read_until(reader, "stopped") if seq]
        assert kinds.index("posted") < kinds.index("compacted") < kinds.index("invited")
        assert (await server.ask("POST", "/rooms/main/members/me/compact")).status == 422


async def test_an_interrupt_stops_a_summary(tmp_path: Path) -> None:
    def slow(opening: Opening) -> Sequence[Participant]:
        made = participant("ann", *["word " * 300] * 6, "They talked.", context_tokens=100_000)
        return [made]

    async with site(tmp_path, open_room=rooms_for(slow)) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        for _ in range(6):
            await talk(server, "go on")
        (served,) = server.hub.served
        ann = served.room.participants["ann"]
        assert isinstance(ann, ModelParticipant)
        model = model_of(ann)
        model.gate = asyncio.Event()
        await server.ask("POST", "/rooms/main/members/ann/compact")
        assert (await server.ask("POST", "/rooms/main/interrupt")).json == {"interrupted": True}
        assert (await server.ask("POST", "/rooms/main/clear")).status == 200
        assert model.cancelled == 1
