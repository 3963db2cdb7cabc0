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
        self._past: list[Committed] = []  # of what had happened before we came, what is here
        self._known = asyncio.Event()  # all that had happened before we came
        self._running: dict[str, int] = {}  # turns, by participant
        self._told: tuple[int, set[int]] | None = None  # (after so many events, these turns run)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def follow(self) -> None:
        """Take in what happens, and take up the stream again when it ends."""
        failures, again = 0, False
        while True:
            before = self._seen
            problem = ""
            try:
                if again:
                    await self._reconcile()
                again = True
                await self._client.stream(f"{self._path}/events?after={before}", self._take)
            except (ModelError, EnvironmentProblem) as error:
                problem = "it is silent" if isinstance(error, StreamStalled) else error.message
            if self._seen > before:
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
        self._past.append(event)  # type: ignore[arg-type]
        match event:
            case Invited(name, turn):
                self._running[name] = turn
            case TurnEnded(name):
                self._running.pop(name, None)
            case Stopped():
                self._running.clear()
            case _:
                pass
        if self._seen >= self._awaited:  # all at once: what was undone is left out once
            past, self._past = self._past, []
            self.ledger.take(*past)
            self._known.set()
        self._end_what_is_over()

    @property
    def _seen(self) -> int:
        """How many committed events have come."""
        return len(self.ledger.events) + len(self._past)

    async def _reconcile(self) -> None:
        """Ask what runs: of a server that was killed no event says that its turns are over."""
        room = await self.ask("GET", "")
        self._told = int(room["seq"]), {int(turn["turn"]) for turn in room["running"]}
        self._end_what_is_over()

    def _end_what_is_over(self) -> None:
        if self._told is None or len(self.ledger.events) < self._told[0]:
            return
        _, run = self._told
        self._told = None
        over = {name: turn for name, turn in self._running.items() if turn not in run}
        for name, turn in over.items():
            self._show(TurnEnded(name, turn, "interrupted", detail="the server ended"))
        self._running = {name: turn for name, turn in self._running.items() if name not in over}
        if over and not self._running:
            self._show(Stopped("interrupted", "the server ended"))

    def _show(self, event: TurnEnded | Stopped) -> None:
        """Show the end of what nobody has written down, and may never."""
        self.present.take(event)
        self.ledger.emit(event)

    # -- what the person does

    async def say(self, text: str) -> None:
        await self.ask("POST", "/messages", {"text": text, "sender": self.person}, again=True)

    def interrupt(self) -> bool:
        if not self._running:
            return False
        task = asyncio.create_task(self._interrupt())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _interrupt(self) -> None:
        try:
            if not (await self.ask("POST", "/interrupt"))["interrupted"]:
                await self._reconcile()
                self._running.clear()
                self.ledger.emit(Notice("nothing was stopped: the server runs nothing in this room"))
        except OrgError as error:
            self.ledger.emit(Notice(f"nothing was stopped: {error.message}", error.hint))

    async def decide(self, id: str, allow: bool) -> None:
        """Answer a call that was asked about; that somebody else was faster is no error."""
        with suppress(Busy):
            await self.ask("POST", f"/approvals/{quote(id)}", {"allow": allow}, again=True)

    async def ask(
        self, method: str, path: str, body: object = None, *, again: bool = False
    ) -> dict[str, Any]:
        """The answer to a request about this room, often the room as it is then; `again` as the client
        has it."""
        answer = await self._client.ask(method, f"{self._path}{path}", body, again=again)
        if "limits" in answer:
            self.know(answer)
        return answer

    def know(self, room: Mapping[str, Any]) -> None:
        """Take in what the server says of the room beside its events."""
        self.place = str(room.get("place") or "where the server runs")
        found = room.get("limits")
        self.limits = Limits(**found) if isinstance(found, dict) else Limits(0, 0, 0, 0)
