"""A room that a server runs (`org serve`), as the screen needs it: a small client of its HTTP API.

Events come over one stream, from the first on; committed ones are counted, so that a stream that
breaks, or a server that hands over to another, is picked up again without gap or duplicate.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from org.chat.exchange import Limits
from org.chat.ledger import Ledger
from org.commands import Quit, newest_calls, split, who, write_room
from org.config import Settings
from org.config.urls import is_loopback
from org.encoding import decode
from org.errors import Busy, EnvironmentProblem, ModelError, OrgError, StreamStalled, UsageError
from org.events import Committed, Invited, Notice, Stopped, TurnEnded
from org.llm.http import Origin, Response
from org.llm.sse import Splitter
from org.tui.link import Link
from org.wording import address

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
SILENCE_S = 40.0
"""After this long without a byte, not even a comment, a stream is taken for dead."""

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before a broken stream is taken up again; the last is repeated."""

TRIES = 4
"""How often a request that got no answer is sent, each with the same key."""

_COMMITTED: tuple[type, ...] = get_args(Committed)
_URL = re.compile(
    r"(?P<base>https?://[^/#?\s]+)(?:/(?:rooms/(?P<room>[\w.-]+)/?)?)?(?:#token=(?P<token>[\w.~-]+))?",
    re.ASCII,
)

COMMANDS: Mapping[str, tuple[str, str]] = {
    "help": ("", "the keys and this list"),
    "who": ("", "who is here, on which model, talking to whom"),
    "invite": ("ID=PROFILE[:MODEL]", "let a participant in"),
    "kick": ("ID", "send a participant out"),
    "mode": ("[ID] MODE", "whom one talks to: group, direct:ID, file:PATH"),
    "tools": ("last", "what the newest calls gave"),
    "export": ("[FILE.md|.json]", "write the room into a file here"),
    "exit": ("", "leave (Ctrl-D does too); the room goes on"),
    "quit": ("", "leave"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a room is served: the server, the room's name (empty: the one last used) and the token."""

    base: str
    room: str
    token: str


def place_of(url: str, room: str, token_file: Path) -> Place:
    """What an address given by a person means. The token is the one behind `#token=`, or for a
    server of this machine the one in `token_file`. Raises `UsageError`."""
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise UsageError(f"not the address of a server: `{url}`", "write it like http://127.0.0.1:7001")
    base, token = match["base"], match["token"] or ""
    if not is_loopback(base) and base.startswith("http:"):
        raise UsageError(f"a token is not sent over an open line: `{base}`", "use https://")
    if not token and is_loopback(base) and token_file.is_file():
        token = token_file.read_text(encoding="ascii", errors="replace").strip()
    if not token:
        raise UsageError(
            f"no token for {base}", "take the whole address that `org serve` printed, `#token=...` too"
        )
    return Place(base, room or match["room"] or "", token)


class Client:
    """Requests to one server. They raise `EnvironmentProblem` when it cannot be reached."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._origin = Origin(place.base, connect_timeout_s=CONNECT_TIMEOUT_S)

    def close(self) -> None:
        self._origin.close()

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer to a request, which is sent again when none came."""
        key = secrets.token_hex(16) if method == "POST" else ""
        for left in reversed(range(TRIES)):
            try:
                response = await self._send(method, path, body, key)
            except ModelError as error:
                if not left:
                    raise self._lost(error) from error
                await asyncio.sleep(RETRY_S[0])
                continue
            if response.status != 503 or not left:
                return _answer(response)
            await asyncio.sleep(RETRY_S[1])  # one server hands over to another
        raise AssertionError("the last try returns or raises")

    async def stream(self, path: str, on_event: Callable[[bytes], None]) -> None:
        """Read an event stream until it ends. Raises `ModelError` when it breaks."""
        splitter = Splitter()

        def take(data: bytes) -> bool:
            for payload in splitter.feed(data):
                on_event(payload)
            return False

        connection, _ = await self._origin.acquire()
        try:
            request = self._origin.request("GET", path, self._headers())
            response = await connection.exchange(request, take, SILENCE_S)
        finally:
            connection.close()
        _answer(response)

    async def _send(self, method: str, path: str, body: object, key: str) -> Response:
        headers = self._headers()
        data = b"" if body is None else json.dumps(body).encode()
        if key:
            headers["Idempotency-Key"] = key
        if method != "POST" and data:  # the request adds them to a POST only
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        connection, _ = await self._origin.acquire()
        request = self._origin.request(method, path, headers, data)
        response = await connection.exchange(request, lambda data: False, ANSWER_TIMEOUT_S)
        self._origin.release(connection)
        return response

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._place.token}"}

    def _lost(self, error: OrgError) -> EnvironmentProblem:
        reason = error.message.rpartition(": ")[2]
        return EnvironmentProblem(
            f"no room server at {self._place.base}: {reason}", "start one with `org serve`"
        )


def _answer(response: Response) -> dict[str, Any]:
    """The body of an answer; an error in it is raised."""
    try:
        data = json.loads(response.body or b"{}")
    except ValueError:
        data = {}
    if response.status < 400:
        return data if isinstance(data, dict) else {}
    error = data.get("error") if isinstance(data, dict) else None
    detail = error if isinstance(error, dict) else {}
    message = str(detail.get("message") or f"the server answers with {response.status}")
    hint = str(detail.get("hint") or "")
    if response.status == 409:
        raise Busy(message, hint)
    kind = EnvironmentProblem if response.status >= 500 else UsageError
    raise kind(message, hint)


class Attached:
    """A served room: its events as they come, and what a person does in it."""

    def __init__(self, client: Client, room: Mapping[str, Any], person: str) -> None:
        self.id = str(room["id"])
        self.person = person
        self.place = str(room.get("place") or "where the server runs")
        limits = room.get("limits")
        self.limits = Limits(**limits) if isinstance(limits, dict) else Limits(0, 0, 0, 0)
        self.ledger = Ledger(None)
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
        await self._client.ask("POST", f"{self._path}/messages", {"text": text, "sender": self.person})

    def interrupt(self) -> bool:
        if not self._running:
            return False
        task = asyncio.create_task(self._interrupt())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _interrupt(self) -> None:
        try:
            await self._client.ask("POST", f"{self._path}/interrupt")
        except OrgError as error:
            self.ledger.emit(Notice(f"nothing was stopped: {error.message}", error.hint))

    async def command(self, text: str) -> str | None:
        """What a line asks for; commands of the room's own place are not for those who joined it."""
        if text.startswith("!"):
            raise UsageError("`!` runs commands only where the room runs", "ask a participant to run it")
        if not text.startswith("/"):
            return None
        name, rest = split(text, COMMANDS)
        members = f"{self._path}/members"
        match name:
            case "exit" | "quit":
                raise Quit
            case "who":
                return who(self.ledger.state)
            case "tools":
                return newest_calls(self.ledger.events)
            case "export":
                return write_room(self.id, self.ledger.events, rest)
            case "invite":
                await self._client.ask("POST", members, {"participant": rest})
            case "kick":
                await self._client.ask("DELETE", f"{members}/{quote(rest.removeprefix('@'), safe='')}")
            case "mode":
                return await self._mode(rest.split())
            case _:
                raise AssertionError(f"`/{name}` is listed and does nothing")
        return ""

    async def _mode(self, words: list[str]) -> str:
        modes = {name: member.mode for name, member in self.ledger.state.members.items()}
        if len(words) == 1 and words[0] in modes:
            return f"{words[0]} -> {address(modes[words[0]])}"
        name = words.pop(0) if len(words) > 1 else self.person
        if words:
            path = f"{self._path}/members/{quote(name, safe='')}/mode"
            answer = await self._client.ask("PUT", path, {"mode": words[0]})
            return f"{name} -> {answer.get('mode', words[0])}"
        return f"{name} -> {address(modes[name])}"


@asynccontextmanager
async def attach(url: str, room: str, settings: Settings) -> AsyncIterator[Link]:
    """Join a room of a server as the person of these settings; made when there is none of that name.

    Raises `UsageError`, `Busy` when another process has the room, `EnvironmentProblem` without a server.
    """
    place = place_of(url, room, settings.places.state / "serve-token")
    client = Client(place)
    try:
        name = place.room or await _newest(client)
        known = [entry.get("id") for entry in (await client.ask("GET", "/rooms"))["rooms"]]
        if name not in known:
            name = str((await client.ask("POST", "/rooms", {"id": name} if name else {}))["id"])
        joined = await client.ask("POST", f"/rooms/{quote(name)}/members", {"person": settings.name})
        attached = Attached(client, joined, settings.name)
        following = asyncio.create_task(attached.follow())
        try:
            await _first(attached.known(), following)
            following.add_done_callback(attached.lost)
            yield _link(attached, place, settings)
        finally:
            following.cancel()
            await asyncio.wait([following])
    finally:
        client.close()


async def _newest(client: Client) -> str:
    rooms = (await client.ask("GET", "/rooms"))["rooms"]
    return str(rooms[0]["id"]) if rooms else ""


async def _first(waited: Coroutine[Any, Any, None], following: asyncio.Task[None]) -> None:
    """Wait, unless what brings it has ended: then raise why."""
    waiting = asyncio.ensure_future(waited)
    try:
        await asyncio.wait([waiting, following], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        waiting.cancel()


def _link(attached: Attached, place: Place, settings: Settings) -> Link:
    ledger = attached.ledger
    return Link(
        id=attached.id,
        person=attached.person,
        place=attached.place,
        welcome=f"This room is served by {place.base}; commands run {attached.place}.",
        state=lambda: ledger.state,
        events=lambda: ledger.events,
        observe=ledger.observe,
        limits=lambda: attached.limits,
        say=attached.say,
        command=attached.command,
        interrupt=attached.interrupt,
        commands=COMMANDS,
        history=settings.places.state / "history",
    )
