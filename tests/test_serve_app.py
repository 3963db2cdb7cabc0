"""The JSON API on real sockets."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from org.events import Delta, Joined, Posted, Stopped
from org.journal import RoomJournal, room_folder
from org.messages import EVERYONE, Message
from org.serve.bodies import BODY_BYTES
from serve_kit import TOKEN, Client, Parrot, read_until, request, settings_in, site


def texts(answer: object) -> list[str]:
    assert isinstance(answer, dict)
    return [e["message"]["content"] for e in answer["events"] if e["type"] == "posted"]


async def test_a_room_is_made_talked_in_and_read(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        made = await server.ask("POST", "/rooms", {"id": "main"})
        assert (made.status, made.headers["location"]) == (201, "/rooms/main")
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events"))
            assert (await reader.head())[1]["content-type"].startswith("text/event-stream")
            said = await server.ask("POST", "/rooms/main/messages", {"text": "hello"})
            assert (said.status, said.json) == (202, {"messages": [1]})
            events = await read_until(reader, "stopped")
        kinds = [event["type"] for seq, event in events if seq]
        assert kinds == ["joined", "joined", "posted", "invited", "posted", "turn_ended", "stopped"]
        assert [seq for seq, _ in events if seq] == list(range(1, 8))
        transcript = await server.ask("GET", "/rooms/main/transcript")
        assert texts(transcript.json) == ["hello", "heard: hello"]
        assert transcript.json["seq"] == 7
        room = (await server.ask("GET", "/rooms/main")).json
        assert room["seq"] == 7
        assert [p["name"] for p in room["participants"]] == ["parrot"]
        assert [p["name"] for p in room["people"]] == ["me"]
        assert room["running"] == []
        (line,) = (await server.ask("GET", "/rooms")).json["rooms"]
        assert (line["id"], line["messages"], line["open"], line["busy"]) == ("main", 2, True, "")


async def test_markdown(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        answer = await server.ask("GET", "/rooms/main/transcript?format=md")
        assert answer.headers["content-type"].startswith("text/markdown")
        assert answer.body.startswith(b"# main\n")


async def test_the_same_key_posts_once_also_after_a_restart(tmp_path: Path) -> None:
    body = {"text": "@parrot one\n@group two"}
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        asked = [server.ask("POST", "/rooms/main/messages", body, idempotency_key="k-1") for _ in range(5)]
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {202}
        (ids,) = {tuple(answer.json["messages"]) for answer in answers}
        assert len(ids) == 2
    async with site(tmp_path) as server:
        again = await server.ask("POST", "/rooms/main/messages", body, idempotency_key="k-1")
        assert tuple(again.json["messages"]) == ids
        other = await server.ask("POST", "/rooms/main/messages", body, idempotency_key="k-2")
        assert not set(other.json["messages"]) & set(ids)
        for changed in (body | {"text": "@parrot one"}, body | {"sender": "bob"}):  # one key, one text
            refused = await server.ask("POST", "/rooms/main/messages", changed, idempotency_key="k-1")
            assert (refused.status, refused.error) == (409, "another text was posted with this key: `k-1`")
        told = texts((await server.ask("GET", "/rooms/main/transcript")).json)
        assert told.count("one") == 2


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"text": 1' + b"0" * 5000 + b"}", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        ([], 422, "not a JSON object"),
        ({}, 422, "missing: `text`"),
        ({"text": 1}, 422, "expected text"),
        ({"text": None}, 422, "expected text"),
        ({"text": "hi", "to": "x"}, 422, "unknown: `to`"),
        ({"text": "  "}, 422, "nothing in this message"),
        ({"text": "@parot hi"}, 422, "parot"),
        ({"text": "hi", "sender": "bob"}, 422, "bob"),
        ({"text": "hi", "sender": "parrot"}, 422, "not a person"),
        (b" " * (BODY_BYTES + 1), 413, "longer"),
    ],
)
async def test_what_cannot_be_posted(tmp_path: Path, body: object, status: int, message: str) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        answer = await server.ask("POST", "/rooms/main/messages", body)
        assert (answer.status, message in answer.error) == (status, True), answer.body
        room = (await server.ask("GET", "/rooms/main")).json
        assert room["seq"] == 2


async def test_a_body_without_a_length_is_limited_too(tmp_path: Path) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        head = request("POST", "/rooms", content_length="", transfer_encoding="chunked")
        client.send(head + b"".join(b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in range(17)))
        assert (await client.answer()).status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rooms/none", 404),
        ("GET", "/rooms/..%2f..", 404),
        ("GET", "/rooms/UPPER", 404),
        ("GET", "/rooms/none/events", 404),
        ("GET", "/rooms/none/transcript", 404),
        ("POST", "/rooms/none/messages", 404),
        ("POST", "/rooms/none/interrupt", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/rooms/main", 405),
        ("GET", "/rooms/main/messages", 405),
        ("GET", "/rooms/main/transcript?format=pdf", 422),
        ("GET", "/rooms/main/events?after=-1", 422),
        ("GET", "/rooms/main/events?after=x", 422),
        ("GET", "/rooms/main/events?after=99", 422),
        ("GET", "/rooms/main/events?after=" + "9" * 5000, 422),
        ("DELETE", "/rooms/main/members/nobody", 404),
        ("DELETE", "/rooms/main/members/me", 422),
    ],
)
async def test_what_is_not_there(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        body = {"text": "hi"} if method == "POST" and path.endswith("messages") else None
        answer = await server.ask(method, path, body)
        assert answer.status == status, answer.body
        assert answer.json["error"]["message"]


async def test_a_new_room_needs_a_free_name(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        assert (await server.ask("POST", "/rooms", {"id": "main"})).status == 201
        assert (await server.ask("POST", "/rooms", {"id": "main"})).status == 409
        assert (await server.ask("POST", "/rooms", {"id": "Main/.."})).status == 422
        assert (await server.ask("POST", "/rooms", {"participants": ["ann"]})).status == 422
        assert (await server.ask("POST", "/rooms", {"participants": [1]})).status == 422
        assert [room["id"] for room in (await server.ask("GET", "/rooms")).json["rooms"]] == ["main"]


async def test_an_interrupt_stops_what_runs(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with site(tmp_path, lambda: [Parrot(wait=gate.wait)]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        assert (await server.ask("POST", "/rooms/main/interrupt")).json == {"interrupted": False}
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events?after=2"))
            await reader.head()
            await server.ask("POST", "/rooms/main/messages", {"text": "wait"})
            await read_until(reader, "turn_started")
            room = (await server.ask("GET", "/rooms/main")).json
            assert room["running"] == [{"participant": "parrot", "turn": 1}]
            assert (await server.ask("POST", "/rooms/main/interrupt")).json == {"interrupted": True}
            *_, (_, stopped) = await read_until(reader, "stopped")
        assert stopped["reason"] == "interrupted"


async def test_a_reader_that_was_told_more_elsewhere_is_waited_for(tmp_path: Path) -> None:
    """The room is being opened here, and whoever had it before has written more than is known here."""
    async with site(tmp_path) as server:
        seq = (await server.ask("POST", "/rooms", {"id": "main"})).json["seq"]
    async with site(tmp_path) as server, await Client.connect(server.port) as reader:
        assert (await server.ask("GET", "/rooms/main")).json["seq"] == seq
        (served,) = server.hub.served
        journal = RoomJournal.open(served.folder)
        await journal.append([Stopped("quiet", "elsewhere")])
        await journal.close()
        async with served._lock:
            reader.send(request("GET", f"/rooms/main/events?after={seq + 1}"))
            answer = asyncio.create_task(reader.head())
            assert not (await asyncio.wait({answer}, timeout=0.2))[0]  # the probe: it is not refused
        assert (await answer)[0] == 200


async def test_people_enter_and_participants_leave(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        for _ in range(2):  # coming in twice is no error
            entered = await server.ask("POST", "/rooms/main/members", {"person": "bob"})
            assert entered.status == 201
            assert [p["name"] for p in entered.json["people"]] == ["me", "bob"]
        said = await server.ask("POST", "/rooms/main/messages", {"text": "hi", "sender": "bob"})
        assert said.status == 202
        mode = await server.ask("PUT", "/rooms/main/members/bob/mode", {"mode": "direct:parrot"})
        assert (mode.status, mode.json) == (200, {"mode": "direct:parrot"})
        assert (await server.ask("PUT", "/rooms/main/members/bob/mode", {"mode": "x"})).status == 422
        assert (await server.ask("POST", "/rooms/main/members", {"person": "parrot"})).status == 422
        assert (await server.ask("POST", "/rooms/main/members", {})).status == 422
        assert (await server.ask("POST", "/rooms/main/members", {"participant": "x"})).status == 422
        left = await server.ask("DELETE", "/rooms/main/members/parrot")
        assert left.json["participants"] == []


async def test_a_stream_goes_on_from_any_event(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events"))
            await reader.head()
            await server.ask("POST", "/rooms/main/messages", {"text": "hello"})
            whole = [entry for entry in await read_until(reader, "stopped") if entry[0]]
        for after in range(len(whole)):
            async with await Client.connect(server.port) as reader:
                # What a browser sends when it comes back: the old address, and how far it came.
                reader.send(request("GET", "/rooms/main/events?after=0", last_event_id=str(after)))
                await reader.head()
                assert await read_until(reader, "stopped") == whole[after:]


async def test_a_slow_reader_holds_nobody_up_and_loses_no_message(tmp_path: Path) -> None:
    """It does not read at all while more is said than all buffers take."""
    big = "x" * 200_000
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with await Client.connect(server.port) as slow, await Client.connect(server.port) as quick:
            for reader in (slow, quick):
                reader.send(request("GET", "/rooms/main/events?after=2"))
                await reader.head()
            (served,) = server.hub.served
            for _ in range(40):
                await served.post("me", big)
                await read_until(quick, "stopped")
                for _ in range(50):
                    served.stream.take(Delta("y" * 2000, participant="parrot"))
            assert served.stream.lost > 0
            seqs = [seq for seq, _ in await read_until(slow, "stopped", 40) if seq]
            assert seqs == list(range(3, len(served.events) + 1))


async def test_a_room_that_is_open_elsewhere_is_read_and_followed(tmp_path: Path) -> None:
    folder = room_folder(settings_in(tmp_path).places.rooms, "main")
    async with RoomJournal.open(folder, url="http://127.0.0.1:1") as journal, site(tmp_path) as server:
        await journal.append([Joined("ada", "person"), posted(1, "one")])
        room = (await server.ask("GET", "/rooms/main")).json
        assert (room["seq"], room["open"], "127.0.0.1:1" in room["busy"]) == (2, False, True)
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events"))
            await reader.head()
            await read_until(reader, "posted")
            await journal.append([posted(2, "two")])
            ((seq, event),) = await read_until(reader, "posted")
            assert (seq, event["message"]["content"]) == (3, "two")
            busy = await server.ask("POST", "/rooms/main/messages", {"text": "hi"})
            assert (busy.status, "http://127.0.0.1:1" in busy.error) == (409, True)
            await journal.close()
            assert (await server.ask("POST", "/rooms/main/messages", {"text": "hi"})).status == 202
            seqs = [seq for seq, _ in await read_until(reader, "stopped") if seq]
            assert seqs[0] == 4
            assert seqs == list(range(4, 4 + len(seqs)))


async def test_a_room_that_was_removed_is_gone(tmp_path: Path) -> None:
    folder = room_folder(settings_in(tmp_path).places.rooms, "main")
    async with RoomJournal.open(folder) as journal:
        await journal.append([Joined("ada", "person")])
    async with site(tmp_path) as server:
        assert (await server.ask("GET", "/rooms/main")).status == 200
        (folder / "journal.sqlite").unlink()
        assert (await server.ask("GET", "/rooms/main")).status == 404


async def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    folder = room_folder(settings_in(tmp_path).places.rooms, "main")
    async with RoomJournal.open(folder) as journal:
        await journal.append([Joined("ada", "person")])
    connection = sqlite3.connect(folder / "journal.sqlite")
    with connection:
        connection.execute("UPDATE events SET data = '{}'")
    connection.close()
    async with site(tmp_path) as server:
        answer = await server.ask("GET", "/rooms/main")
        assert (answer.status, "damaged" in answer.error) == (503, True)


async def test_health_answers_without_a_token_and_gives_the_nonce_back(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        health = (await server.ask("GET", "/health?nonce=abc", token="")).json
        assert (health["status"], health["nonce"], health["commit"]) == ("serving", "abc", "")
        assert health["uptime_s"] >= 0


async def test_head_and_pipelining(tmp_path: Path) -> None:
    async with site(tmp_path) as server, await Client.connect(server.port) as client:
        client.send(request("GET", "/health") + request("GET", "/rooms") + request("GET", "/x"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 404]


async def test_half_a_surrogate_pair_passes(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        said = await server.ask("POST", "/rooms/main/messages", b'{"text": "a \\ud83d b\\u0000"}')
        assert said.status == 202
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events"))
            await reader.head()
            events = await read_until(reader, "stopped")
        assert [e["message"]["content"] for _, e in events if e["type"] == "posted"] == [
            "a \ud83d b\0",
            "heard: a \ud83d b\0",
        ]
        assert (await server.ask("GET", "/rooms/main/transcript?format=md")).status == 200


async def test_the_description_names_every_route(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        description = (await server.ask("GET", "/openapi.json", token="")).json
        for path, operations in description["paths"].items():
            for method in operations:
                filled = path.replace("{id}", "none").replace("{name}", "nobody")
                answer = await server.ask(method.upper(), filled, {})
                assert answer.status != 405, (method, path)
        assert json.dumps(description).count(TOKEN) == 0


def posted(id: int, content: str) -> Posted:
    return Posted(Message(id, "ada", "person", EVERYONE, content, 1.0))


async def test_no_answer_is_kept_or_taken_for_something_else(tmp_path: Path) -> None:
    """By a browser, or what lies between it and us."""
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        paths = ("/", "/rooms", "/rooms/main", "/rooms/main/transcript", "/rooms/main/transcript?format=md")
        for path in (*paths, "/rooms/none", "/metrics"):
            headers = (await server.ask("GET", path)).headers
            assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        async with await Client.connect(server.port) as client:
            client.send(request("GET", "/rooms/main/events"))
            assert (await client.head())[1]["cache-control"] == "no-store"
