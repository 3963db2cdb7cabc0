"""A served room, joined over HTTP, on the full screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from org.chat.loop import Approval
from org.commands import COMMANDS
from org.compose.opening import Opening
from org.errors import EnvironmentProblem, UsageError
from org.events import CallFinished, Posted, Stopped
from org.ports import Participant
from org.tui.attach import attach
from org.tui.client import place_of
from org.tui.dialogs import Approval as Dialog
from org.tui.link import Link
from room_kit import Model, call, calling, participant, tool
from serve_kit import TOKEN, Parrot, Site, rooms_for, settings_in, site
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
