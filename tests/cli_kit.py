"""Verbs of `org` run in this process, rooms to run them on, and a server that lists models."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from command import Home
from org.__main__ import main
from org.events import Committed, Joined, Posted
from org.journal import RoomJournal, room_folder
from org.messages import EVERYONE, Audience, Message, Role

NOON = 1_700_000_000.0


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Desk:
    """A person's home in which verbs are run in this process, without a terminal."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.home = Home(folder)
        self._capsys = capsys
        for name in (
            "ORG_BASE",
            "ORG_MODEL",
            "OLLAMA_HOST",
            "OLLAMA_BASE",
            "OLLAMA_MODEL",
            "OPENAI_BASE_URL",
        ):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.home.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.home.project)

    def org(self, *words: str) -> Said:
        code = main(list(words))
        return Said(code, *self._capsys.readouterr())

    def room(self, name: str, *events: Committed) -> Path:
        """Write a room with these events; without any, a short talk."""
        folder = room_folder(self.home.rooms, name)
        asyncio.run(_write(folder, events or TALK))
        return folder


async def _write(folder: Path, events: Sequence[Committed]) -> None:
    async with RoomJournal.open(folder) as journal:
        await journal.append(events)


def posted(id: int, sender: str, content: str, audience: Audience = EVERYONE, role: Role = "model") -> Posted:
    return Posted(Message(id, sender, role, audience, content, NOON))


TALK = (
    Joined("ada", "person"),
    Joined("coder", "model", "agent", "qwen3:8b", "You are..."),
    posted(1, "ada", "How many zebras?", role="person"),
    posted(2, "coder", "Three zebras."),
)


@contextmanager
def models_server(*names: str, status: int = 200) -> Iterator[str]:
    """The base URL of a server that lists these models, and answers with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/v1/models"
            body = json.dumps({"data": [{"id": name} for name in names]} if known else {}).encode()
            self.send_response(status if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
