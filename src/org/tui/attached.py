"""A room that a server runs, as whoever joined it sees it.

Events come over one stream, from the first on; committed ones are counted, so that a stream that
breaks, or a server that hands over to another, is picked up again without gap or duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args
from urllib.parse import quote

from org.chat.exchange import Limits
from org.chat.ledger import Ledger
from org.chat.present import Present
from org.encoding import decode
from org.errors import Busy, EnvironmentProblem, ModelError, OrgError, StreamStalled, UsageError
from org.events import Committed, Invited, Notice, Stopped, TurnEnded
from org.tui.client import RETRY_S, Client

_COMMITTED: tuple[type, ...] = get_args(Committed)


class Attached:
    """A served room: its events as they come, and what a person does in it."""

    def __init__(self, client: Client, room: Mapping[str, Any], person: str) -> None:
        self.id = str(room["id"])
        self.person = person
        self.know(room)
        self.ledger = Ledger(None)
        self.present = Present()
        self._client = client
        self._path = f"/rooms/{quote(self.id)}"
        self._awaited = int(room.get("seq", 0))
        self._known = asyncio.Event()  # all that had happened before we came
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def follow(self) -> None:
        """Take in what happens, and take up the stream again when it ends."""
        failures = 0
        while True:
            before = len(self.ledger.events)
            problem = ""
            try:
                await self._client.stream(f"{self._path}/events?after={before}", self._take)
            except (ModelError, EnvironmentProblem) as error:
                problem = "it is silent" if isinstance(error, StreamStalled) else error.message
            if len(self.ledger.events) > before:
                failures = 0
            pause = RETRY_S[min(failures, len(RETRY_S) - 1)]
            failures += 1
            if problem and failures == 2:
                self.ledger.emit(Notice("the connection to the server is lost", "trying again"))
            await asyncio.sleep(pause)

    def lost(self, following: asyncio.Task[None]) -> None:
        """Say why no more events come."""
        if not following.cancelled() and isinstance(error := following.exception(), OrgError):
            self.ledger.emit(Notice(f"nothing more is shown: {error.message}", error.hint))

    async def known(self) -> None:
        """Wait until everything that had happened before is here."""
        if self._awaited:
            await self._known.wait()

    def _take(self, payload: bytes) -> None:
        try:
            event = decode(payload)
        except ValueError as error:
            raise UsageError(f"the server tells what this version does not know: {error}") from error
        self.present.take(event)
        if not isinstance(event, _COMMITTED):
            self.ledger.emit(event)
            return
        committed: Committed = event  # type: ignore[assignment]
        self.ledger.take(committed)
        match committed:
            case Invited(name):
                self._running.add(name)
            case TurnEnded(name):
                self._running.discard(name)
            case Stopped():
                self._running.clear()
            case _:
                pass
        if len(self.ledger.events) >= self._awaited:
            self._known.set()

    # -- what the person does

    async def say(self, text: str) -> None:
        await self.ask("POST", "/messages", {"text": text, "sender": self.person})

    def interrupt(self) -> bool:
        if not self._running:
            return False
        task = asyncio.create_task(self._interrupt())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _interrupt(self) -> None:
        try:
            await self.ask("POST", "/interrupt")
        except OrgError as error:
            self.ledger.emit(Notice(f"nothing was stopped: {error.message}", error.hint))

    async def decide(self, id: str, allow: bool) -> None:
        """Answer a call that was asked about; that somebody else was faster is no error."""
        with suppress(Busy):
            await self.ask("POST", f"/approvals/{quote(id)}", {"allow": allow})

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer to a request about this room, often the room as it is then."""
        answer = await self._client.ask(method, f"{self._path}{path}", body)
        if "limits" in answer:
            self.know(answer)
        return answer

    def know(self, room: Mapping[str, Any]) -> None:
        """Take in what the server says of the room beside its events."""
        self.place = str(room.get("place") or "where the server runs")
        found = room.get("limits")
        self.limits = Limits(**found) if isinstance(found, dict) else Limits(0, 0, 0, 0)
