"""A served room, joined over HTTP, on the full screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from org.errors import EnvironmentProblem, UsageError
from org.events import Posted
from org.tui.attach import attach, place_of
from org.tui.link import Link
from serve_kit import TOKEN, Parrot, Site, settings_in, site
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
