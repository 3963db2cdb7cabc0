"""Calls that wait for a person's word, in a served room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from org.chat.loop import Approval
from org.compose.opening import Opening
from org.errors import Denied
from org.events import Asked, Event, Stopped
from org.ports import Participant
from org.serve import asking as module
from org.serve.asking import Asking
from org.serve.refusal import Refusal
from org.serve.stream import Stream
from org.tooling import ToolCall
from room_kit import call, calling, participant, tool
from serve_kit import DEADLINE_S, Client, Site, read_until, request, rooms_for, site

CALL = call("sh", cmd="rm -r \ud83d")


def coders(opening: Opening) -> Sequence[Participant]:
    """One who calls a tool that is asked about, and says that it did."""
    asked = Approval(opening.ask)
    return [participant("coder", calling(CALL), "I did.", tools=[tool(policy="ask")], approval=asked)]


@asynccontextmanager
async def asked(folder: Path, **options: Any) -> AsyncIterator[tuple[Site, Client, dict[str, Any]]]:
    """A server on which a call waits, a reader of its room, and what the reader was asked."""
    async with site(folder, open_room=rooms_for(coders), **options) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events?after=2"))
            await reader.head()
            await server.ask("POST", "/rooms/main/messages", {"text": "clean up"})
            *_, (seq, question) = await read_until(reader, "asked")
            assert seq == 0
            yield server, reader, question


async def test_a_person_allows_a_call_and_the_first_answer_counts(tmp_path: Path) -> None:
    async with asked(tmp_path) as (server, reader, question):
        assert (question["participant"], question["tool"]) == ("coder", "sh")
        assert question["arguments"] == {"cmd": "rm -r \ud83d"}
        (waiting,) = (await server.ask("GET", "/rooms/main")).json["asking"]
        assert waiting == {name: question[name] for name in ("id", "participant", "tool", "arguments")}
        path = f"/rooms/main/approvals/{question['id']}"
        answers = await asyncio.gather(*(server.ask("POST", path, {"allow": True}) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
        events = [event for _, event in await read_until(reader, "stopped")]
        (finished,) = [event for event in events if event["type"] == "call_finished"]
        assert finished["result"]["output"] == "done"
        assert (await server.ask("GET", "/rooms/main")).json["asking"] == []
        late = await server.ask("POST", path, {"allow": False})
        assert (late.status, late.error) == (409, "this was decided already: it was allowed")


async def test_a_person_refuses_a_call(tmp_path: Path) -> None:
    async with asked(tmp_path) as (server, reader, question):
        path = f"/rooms/main/approvals/{question['id']}"
        assert (await server.ask("POST", path, {"allow": False})).json == {"allowed": False}
        *_, (_, finished) = await read_until(reader, "call_finished")
        assert finished["result"]["error"]["kind"] == "denied"
        assert "a person said no" in finished["result"]["error"]["message"]


@pytest.mark.parametrize("body", [{}, {"allow": 1}, {"allow": "y"}, {"allow": None}, {"allow": True, "x": 1}])
async def test_what_is_no_answer(tmp_path: Path, body: object) -> None:
    async with asked(tmp_path) as (server, _, question):
        path = f"/rooms/main/approvals/{question['id']}"
        assert (await server.ask("POST", path, body)).status == 422
        assert (await server.ask("POST", "/rooms/main/approvals/other", {"allow": True})).status == 404
        assert len((await server.ask("GET", "/rooms/main")).json["asking"]) == 1


async def test_an_interrupt_withdraws_the_question(tmp_path: Path) -> None:
    async with asked(tmp_path) as (server, reader, question):
        await server.ask("POST", "/rooms/main/interrupt")
        events = [event for _, event in await read_until(reader, "stopped")]
        (finished,) = [event for event in events if event["type"] == "call_finished"]
        assert finished["result"]["error"]["kind"] == "interrupted"
        assert (await server.ask("GET", "/rooms/main")).json["asking"] == []
        late = await server.ask("POST", f"/rooms/main/approvals/{question['id']}", {"allow": True})
        assert (late.status, "the turn was stopped" in late.error) == (409, True)


async def test_who_comes_later_is_asked_too(tmp_path: Path) -> None:
    async with asked(tmp_path) as (server, _, question), await Client.connect(server.port) as late:
        late.send(request("GET", "/rooms/main/events"))
        await late.head()
        assert (await read_until(late, "asked"))[-1] == (0, question)


async def test_where_nobody_is_a_call_is_denied_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNATTENDED_S", 0.01)
    async with asked(tmp_path) as (server, reader, _):
        (served,) = server.hub.served
        over = asyncio.Event()
        served.room.observe(lambda event: over.set() if isinstance(event, Stopped) else None)
        await reader.close()
        await asyncio.wait_for(over.wait(), DEADLINE_S)
        async with await Client.connect(server.port) as other:
            other.send(request("GET", "/rooms/main/events?after=2"))
            await other.head()
            events = [event for _, event in await read_until(other, "stopped")]
        (finished,) = [event for event in events if event["type"] == "call_finished"]
        assert finished["result"]["error"] == {
            "kind": "unattended",
            "message": "`sh` needs a person's approval: nobody was there for 0.01 s",
        }
        assert events[-1]["reason"] == "denied"


async def test_a_server_that_ends_denies(tmp_path: Path) -> None:
    async with asked(tmp_path) as (server, reader, _):
        server.end()
        while await reader.event():
            pass
        await server.task
        (served,) = server.hub.served
        told = [str(event) for event in served.events if type(event).__name__ == "CallFinished"]
        assert "the server is about to end" in told[0]


# -- without a network


class Log:
    """A stream and what it showed."""

    def __init__(self) -> None:
        self.stream = Stream([])
        self.asking = Asking(self.stream)
        self.shown: list[Event] = []
        take = self.stream.take

        def note(event: Event) -> None:
            self.shown.append(event)
            take(event)

        self.stream.take = note  # type: ignore[method-assign]


async def test_as_long_as_somebody_reads_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNATTENDED_S", 0.01)
    log = Log()
    with log.stream.reader(0):
        asking = asyncio.create_task(log.asking("coder", CALL))
        with log.stream.reader(0):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)  # one of two is still there
        assert not asking.done()
    with pytest.raises(Denied, match="nobody was there"):
        await asyncio.wait_for(asking, DEADLINE_S)
    assert log.asking.waiting == []


async def test_several_wait_and_each_is_answered_by_its_name() -> None:
    log = Log()
    with log.stream.reader(0):
        tasks = [
            asyncio.create_task(log.asking(f"p{n}", ToolCall(f"c{n}", "sh", {"n": n}))) for n in range(3)
        ]
        await asyncio.sleep(0)
        waiting = log.asking.waiting
        assert [asdict(question)["arguments"] for question in waiting] == [{"n": 0}, {"n": 1}, {"n": 2}]
        log.asking.answer(waiting[1].id, True)
        log.asking.answer(waiting[0].id, False)
        with pytest.raises(Refusal) as early:  # decided, though whoever asked has not heard yet
            log.asking.answer(waiting[1].id, False)
        assert early.value.status == 409
        tasks[2].cancel()
        assert await asyncio.gather(*tasks[:2]) == [False, True]
        await asyncio.wait([tasks[2]])
    assert [event for event in log.shown if isinstance(event, Asked)] == waiting


async def test_only_so_many_decisions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    log = Log()
    ids = []
    for _ in range(3):
        task = asyncio.create_task(log.asking("coder", CALL))
        await asyncio.sleep(0)
        ids.append(log.asking.waiting[0].id)
        log.asking.answer(ids[-1], True)
        assert await task
    statuses = []
    for id in ids:
        with pytest.raises(Refusal) as refused:
            log.asking.answer(id, True)
        statuses.append(refused.value.status)
    assert statuses == [404, 409, 409]
