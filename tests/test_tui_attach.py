"""A served room, joined over HTTP, on the full screen."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from org.chat.loop import Approval
from org.chat.state import State
from org.commands import COMMANDS
from org.compose.opening import Opening
from org.encoding import encode
from org.errors import EnvironmentProblem, UsageError
from org.events import (
    CallFinished,
    Committed,
    Event,
    Invited,
    Joined,
    Notice,
    Posted,
    Stopped,
    TurnEnded,
    Undone,
)
from org.messages import EVERYONE, Message
from org.ports import Participant
from org.tui.attach import attach
from org.tui.attached import Attached
from org.tui.client import TRIES, Client, Place, place_of
from org.tui.dialogs import Approval as Dialog
from org.tui.link import Link
from room_kit import Model, call, calling, participant, tool
from serve_kit import TOKEN, Parrot, Process, Site, listening, rooms_for, settings_in, site
from tui_kit import Screen, shown_on


@asynccontextmanager
async def joined(folder: Path, served: Site, room: str = "main") -> AsyncIterator[Screen]:
    url = f"http://127.0.0.1:{served.port}/#token={TOKEN}"
    async with attach(url, room, settings_in(folder)) as link, shown_on(link) as screen:
        yield screen


async def test_a_served_room_is_joined_and_talked_in(tmp_path: Path) -> None:
    async with site(tmp_path) as served, joined(tmp_path, served) as shown:
        person = shown.link.person
        assert person in shown.link.state().members
        await shown.say("hello")
        await shown.until("heard: hello")
        await shown.until("── 1 turn")
        await shown.say("/who")
        await shown.until("simple, feathers")
        await shown.say("/mode direct:parrot")
        await shown.until(f"{person} now speaks to @parrot")
        await shown.say("@parot x")
        await shown.until("perhaps you mean")
        assert shown.prompt.text == "@parot x"
        await shown.say("")  # what is in the prompt again
        shown.prompt.text = ""
        await shown.say("!ls")
        await shown.until("only where the room runs")


async def test_who_joins_later_sees_what_was_said_before(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        async with joined(tmp_path, served) as first:
            await first.say("early")
            await first.until("heard: early")
        async with joined(tmp_path, served, room="") as second:  # the one last used
            assert second.link.id == "main"
            await second.until("heard: early")
            await second.until("early")


async def test_an_interrupt_reaches_the_served_room(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with (
        site(tmp_path, lambda: [Parrot(wait=never.wait)]) as served,
        joined(tmp_path, served) as shown,
    ):
        await shown.say("go")
        await shown.until("parrot")
        async with asyncio.timeout(20):
            while not shown.link.interrupt():
                await shown.pilot.pause(0.01)
        await shown.until("parrot was interrupted")


async def test_a_broken_stream_is_taken_up_without_gap_or_duplicate(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        proxy = await Proxy.start(served.port)
        async with proxy:
            url = f"http://127.0.0.1:{proxy.port}/#token={TOKEN}"
            async with attach(url, "main", settings_in(tmp_path)) as link:
                await link.say("one")
                await _until(link, lambda: "heard: one" in _said(link))
                proxy.cut()
                await link.say("two")
                await _until(link, lambda: "heard: two" in _said(link))
                contents = [text for text in _said(link) if text.startswith("heard")]
                assert contents == ["heard: one", "heard: two"]
                answer = await served.ask("GET", "/rooms/main")
                await _until(link, lambda: len(link.events()) == answer.json["seq"])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


async def test_what_a_killed_server_ran_is_over(tmp_path: Path, listener: socket.socket) -> None:
    """Whoever was attached sees it end, once, and may leave."""
    port = int(listener.getsockname()[1])
    (there := tmp_path / "there").mkdir()
    os.mkfifo(there / "gate")
    server = await Process(there, listener).start()
    try:
        url = f"http://127.0.0.1:{port}/#token={TOKEN}"
        async with attach(url, "main", settings_in(tmp_path)) as link, shown_on(link) as shown:
            await link.say("wait")
            await _until(link, lambda: isinstance(link.events()[-1], Invited))
            server.close()
            (there / "gate").unlink()
            server = await Process(there, listener).start()
            await shown.until("parrot was interrupted: the server ended")
            await shown.until("stopped (interrupted: the server ended)")
            assert not link.interrupt()
            await link.say("and now?")
            await shown.until("heard: and now?")
            assert any(isinstance(event, TurnEnded) and event.turn == 1 for event in link.events())
            assert shown.text.count("was interrupted") == 1
    finally:
        server.close()


class Idle(Client):
    """A server in whose room nothing runs, whatever its events said."""

    events: Sequence[Committed] = (Joined("ann", "model"), Invited("ann", 1, ()))

    async def ask(
        self, method: str, path: str, body: object = None, *, again: bool = False
    ) -> dict[str, Any]:
        return {"interrupted": False, "seq": 2, "running": []}

    async def stream(self, path: str, on_event: Callable[[bytes], None]) -> None:
        for event in self.events:
            on_event(encode(event))
        await asyncio.Event().wait()


async def test_an_interrupt_of_nothing_is_said_and_the_next_one_leaves() -> None:
    room = Attached(Idle(Place("http://127.0.0.1:9", "main", TOKEN)), {"id": "main", "seq": 2}, "me")
    shown: list[Event] = []
    room.ledger.observe(shown.append)
    following = asyncio.create_task(room.follow())
    try:
        await room.known()
        said = asyncio.Event()
        room.ledger.observe(lambda event: said.set() if isinstance(event, Notice) else None)
        assert room.interrupt()
        await said.wait()
        assert not room.interrupt()
    finally:
        following.cancel()
    assert [event for event in shown if isinstance(event, TurnEnded | Stopped | Notice)] == [
        TurnEnded("ann", 1, "interrupted", detail="the server ended"),
        Stopped("interrupted", "the server ended"),
        Notice("nothing was stopped: the server runs nothing in this room"),
    ]


class Regretful(Idle):
    """A room in which every second message was taken back."""

    events = tuple(
        event
        for number in range(1, 101, 2)
        for event in (
            Posted(Message(number, "me", "person", EVERYONE, "hi", 0.0)),
            Posted(Message(number + 1, "me", "person", EVERYONE, "hm", 0.0)),
            Undone(number + 1),
        )
    )


async def test_what_was_taken_back_long_ago_is_left_out_once() -> None:
    """Not each time anew while the past comes in."""
    room = Attached(Regretful(Place("http://127.0.0.1:9", "main", TOKEN)), {"id": "main", "seq": 150}, "me")
    states: list[FrameType] = []

    def count(frame: FrameType, kind: str, argument: object) -> None:
        if kind == "call" and frame.f_code is State.of.__func__.__code__:  # type: ignore[attr-defined]
            states.append(frame)

    before = sys.getprofile()
    sys.setprofile(count)
    following = asyncio.create_task(room.follow())
    try:
        await room.known()
    finally:
        sys.setprofile(before)
        following.cancel()
    assert len(room.ledger.state.transcript) == 50
    assert len(states) == 1


async def test_what_the_server_says_is_an_error_here(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        wrong = f"http://127.0.0.1:{served.port}/#token={'x' * 43}"
        with pytest.raises(UsageError, match="token"):
            async with attach(wrong, "main", settings_in(tmp_path)):
                raise AssertionError("it was let in")
    with pytest.raises(EnvironmentProblem, match="no room server at"):
        async with attach(f"http://127.0.0.1:{served.port}/#token={TOKEN}", "main", settings_in(tmp_path)):
            raise AssertionError("there is no server")


async def test_every_command_works_from_elsewhere(tmp_path: Path) -> None:
    def models(opening: Opening) -> Sequence[Participant]:
        answers = ["word " * 300] * 6
        return [participant("ann", *answers, "They talked.", model_name="small", context_tokens=100_000)]

    async with site(tmp_path, open_room=rooms_for(models)) as served, joined(tmp_path, served) as shown:
        for _ in range(6):
            await shown.say("go on")
            await _until(shown.link, lambda: isinstance(shown.link.events()[-1], Stopped))
        for line, expected in (
            ("/who", "simple, small"),
            ("/tools", "ann           none"),
            ("/tokens", "context 0 of 100,000"),
            ("/limits turns 7", "turns 7, seconds 900.0"),
            ("/compact", "older context was summarised"),
            ("/undo", "taken back: go on"),
            ("/export " + str(tmp_path / "room.md"), "written:"),
            ("/clear", "everybody starts afresh"),
            ("/limits steps 1", "not a limit: `steps 1`"),
            ("/limits turns x", "not a number: `x`"),
            ("/unod", "did you mean `/undo`?"),
            ("/model bob large", "nobody here is called `bob`"),
            ("/model ann large", "ann: large from now on"),
            ("/model", "simple, large"),
        ):
            shown.prompt.text = ""
            await shown.say(line)
            await shown.until(expected)
        assert shown.link.limits().turns == 7
        assert set(shown.link.commands) == {name for name, c in COMMANDS.items() if c.about}


async def test_what_is_not_there_is_not_taken_back(tmp_path: Path) -> None:
    async with site(tmp_path) as served, joined(tmp_path, served) as shown:
        await shown.say("/undo")
        await shown.until("there is nothing to undo")


def coders(opening: Opening) -> Sequence[Participant]:
    asked = Approval(opening.ask)
    return [participant("coder", calling(CALL), "I did.", tools=[tool(policy="ask")], approval=asked)]


CALL = call("sh", cmd="rm -r build")


async def test_a_call_is_put_before_whoever_is_attached(tmp_path: Path) -> None:
    async with site(tmp_path, open_room=rooms_for(coders)) as served, joined(tmp_path, served) as shown:
        await shown.say("clean up")
        await shown.asked()
        assert isinstance(shown.app.screen, Dialog)
        assert shown.app.screen._call.arguments == CALL.arguments
        shown.clock.now += 5
        await shown.pilot.press("y")
        await shown.until("I did.")
        finished = [event for event in shown.link.events() if isinstance(event, CallFinished)]
        assert [event.result.output for event in finished] == ["done"]


async def test_who_is_slower_is_not_asked_any_more(tmp_path: Path) -> None:
    async with (
        site(tmp_path, open_room=rooms_for(coders)) as served,
        joined(tmp_path, served) as first,
    ):
        await first.say("clean up")
        await first.asked()
        async with joined(tmp_path, served) as second:  # who joins later is asked too
            await second.asked()
            second.clock.now += 5
            await second.pilot.press("n")
            await first.until("I did.")
            async with asyncio.timeout(20):
                while first.asking:
                    await first.pilot.pause(0.01)
        finished = [event for event in first.link.events() if isinstance(event, CallFinished)]
        assert [event.result.error and event.result.error.kind for event in finished] == ["denied"]


async def test_who_joins_in_the_middle_of_a_turn_sees_all_of_it(tmp_path: Path) -> None:
    gate = asyncio.Event()
    model = Model(["I think that this is so."], gate=gate)
    async with site(tmp_path, lambda: [participant("ann", model=model)]) as served:
        await served.ask("POST", "/rooms", {"id": "main"})
        await served.ask("POST", "/rooms/main/messages", {"text": "what?"})
        await model.started.wait()
        async with joined(tmp_path, served) as shown:
            await shown.until("I think that")
            gate.set()
            await shown.until("I think that this is so.")
            await shown.until("── 1 turn")
            assert shown.text.count("I think that") == 1


def test_an_address_names_server_room_and_token(tmp_path: Path) -> None:
    file = tmp_path / "serve-token"
    file.write_text("s" * 43 + "\n", encoding="ascii")
    place = place_of("http://127.0.0.1:7001/rooms/main#token=abc", "", file)
    assert (place.base, place.room, place.token) == ("http://127.0.0.1:7001", "main", "abc")
    place = place_of("http://localhost:7001/", "other", file)
    assert (place.base, place.room, place.token) == ("http://localhost:7001", "other", "s" * 43)
    with pytest.raises(UsageError, match="no token"):  # one's own is not sent to somebody else
        place_of("https://example.org", "", file)
    with pytest.raises(UsageError, match="open line"):
        place_of("http://example.org/#token=abc", "", file)
    with pytest.raises(UsageError, match="not the address"):
        place_of("ftp://127.0.0.1", "", file)


@pytest.mark.parametrize(
    ("request_of", "sent"),
    [
        ({"method": "GET", "path": "/rooms"}, TRIES),
        ({"method": "PUT", "path": "/rooms/main/limits", "body": {"turns": 1}}, TRIES),
        ({"method": "POST", "path": "/rooms/main/messages", "body": {"text": "hi"}, "again": True}, TRIES),
        ({"method": "POST", "path": "/rooms", "body": {}}, 1),
        ({"method": "POST", "path": "/rooms/main/interrupt"}, 1),
    ],
    ids=lambda value: f"{value['method']}-{value['path']}" if isinstance(value, dict) else str(value),
)
async def test_what_is_not_to_be_done_twice_is_asked_once(request_of: Mapping[str, Any], sent: int) -> None:
    """Of a request without an answer nobody knows whether it was done."""
    keys: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        keys.extend(line for line in head.split(b"\r\n") if line.startswith(b"Idempotency-Key"))
        attempts.append(head)
        writer.close()

    attempts: list[bytes] = []
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(Place(f"http://127.0.0.1:{port}", "main", TOKEN))
        with pytest.raises(EnvironmentProblem, match="no answer from" if sent == 1 else "no room server at"):
            await client.ask(**request_of)
        client.close()
    assert len(attempts) == sent
    assert len(set(keys)) == (request_of["method"] == "POST")


def _said(link: Link) -> list[str]:
    return [event.message.content for event in link.events() if isinstance(event, Posted)]


async def _until(link: Link, holds: Callable[[], bool]) -> None:
    news = asyncio.Event()
    end = link.observe(lambda event: news.set())
    async with asyncio.timeout(20):
        while not holds():
            await news.wait()
            news.clear()
    end()


class Proxy:
    """Passes connections on to a port, and cuts them all when told to."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self._target = 0

    @classmethod
    async def start(cls, target: int) -> Proxy:
        proxy = cls()
        proxy._target = target
        proxy._server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = proxy._server.sockets[0].getsockname()[1]
        return proxy

    _server: asyncio.Server

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, there_writer]
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
