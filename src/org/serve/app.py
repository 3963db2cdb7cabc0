"""The JSON API: what can be asked of the rooms over HTTP. `docs/http.md` describes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from org.config import Member, parse_with
from org.errors import OrgError, UsageError
from org.serve.bodies import Json, read_object
from org.serve.doors import events_of
from org.serve.health import Health
from org.serve.hub import Hub
from org.serve.openapi import DESCRIPTION
from org.serve.passes import Passes
from org.serve.refusal import Refusal, answer
from org.serve.snapshot import describe, listed
from org.serve.stream import Stream
from org.transcript import to_json_lines, to_markdown

MAX_READERS = 4096
KEY_LENGTH = 200
TICKET_S = 30
"""Within which an event stream must be asked for with its ticket."""
PART_BYTES = 64 * 1024
"""How much is given to a connection at once: what a reader does not take is not copied for it."""
RECONNECT_MS = 500
"""After which a browser whose event stream has ended comes back."""


class Api:
    """The endpoints, on the rooms of a hub."""

    def __init__(self, hub: Hub, health: Health, passes: Passes) -> None:
        self._hub = hub
        self._health = health
        self._passes = passes

    def routes(self) -> list[BaseRoute]:
        room = "/rooms/{id}"
        return [
            Route("/health", self._health.endpoint),
            Route("/openapi.json", self.openapi),
            Route("/rooms", self.rooms, methods=["GET", "POST"]),
            Route(room, self.room),
            Route(f"{room}/messages", self.post, methods=["POST"]),
            Route(f"{room}/events", self.events),
            Route(f"{room}/tickets", self.ticket, methods=["POST"]),
            Route(f"{room}/interrupt", self.interrupt, methods=["POST"]),
            Route(f"{room}/transcript", self.transcript),
            Route(f"{room}/members", self.enter, methods=["POST"]),
            Route(f"{room}/members/{{name}}", self.leave, methods=["DELETE"]),
            Route(f"{room}/members/{{name}}/mode", self.set_mode, methods=["PUT"]),
        ]

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(DESCRIPTION)

    # -- rooms

    async def rooms(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._create(request)
        rooms = await asyncio.to_thread(self._hub.listing)
        opened = {served.id for served in self._hub.served if served.session is not None}
        return JSONResponse({"rooms": [listed(room, here=room.id in opened) for room in rooms]})

    async def _create(self, request: Request) -> Response:
        body = await read_object(request, {"id": str, "participants": list})
        named = body.get("participants")
        members = None if named is None else [_member(text) for text in named]
        served = await self._hub.create(body.get("id"), members)
        return Json(describe(served), 201, {"Location": f"/rooms/{served.id}"})

    async def room(self, request: Request) -> Response:
        served = await self._hub.look(request.path_params["id"])
        busy = "" if served.session else await asyncio.to_thread(self._hub.holder, served.id)
        return Json(describe(served, busy))

    async def post(self, request: Request) -> Response:
        body = await read_object(request, {"text": str, "sender": str}, required=("text",))
        key = request.headers.get("idempotency-key", "")
        if len(key) > KEY_LENGTH or not (key.isascii() and key.isprintable()):
            raise Refusal(422, f"not a key: expected at most {KEY_LENGTH} printable ASCII characters")
        served = await self._hub.open(request.path_params["id"])
        sender = body.get("sender", self._hub.settings.name)
        messages = await served.post(sender, body["text"], key)
        return JSONResponse({"messages": [message.id for message in messages]}, 202)

    async def interrupt(self, request: Request) -> Response:
        served = await self._hub.look(request.path_params["id"])
        return JSONResponse({"interrupted": served.interrupt()})

    async def ticket(self, request: Request) -> Response:
        served = await self._hub.look(request.path_params["id"])
        ticket = self._passes.issue(events_of(f"/rooms/{served.id}/events"), TICKET_S)
        return JSONResponse({"ticket": ticket}, 201)

    async def events(self, request: Request) -> Response:
        served = await self._hub.look(request.path_params["id"])
        # A browser that comes back repeats the address it began with, and says in a header how far it came.
        after = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not (after.isdecimal() and after.isascii() and len(after) < 16):
            raise Refusal(422, "not the id of an event: expected a whole number", "begin with `?after=0`")
        if int(after) > served.stream.seq:  # whoever had the room before may have told more of it
            await served.catch_up()
        if int(after) > served.stream.seq:
            raise Refusal(422, f"there are only {served.stream.seq} events", "begin with `?after=0`")
        if sum(other.stream.readers for other in self._hub.served) >= MAX_READERS:
            raise Refusal(503, "too many read events", "close some", {"Retry-After": "5"})
        if self._hub.draining:
            served.stream.end()
        served.follow()
        return EventStream(served.stream, int(after))

    async def transcript(self, request: Request) -> Response:
        served = await self._hub.look(request.path_params["id"])
        wanted = request.query_params.get("format", "json")
        events = list(served.events)
        if wanted == "md":
            text = await asyncio.to_thread(to_markdown, events, served.id)
            return PlainTextResponse(text, media_type="text/markdown")
        if wanted != "json":
            raise Refusal(422, f"not a format: {wanted[:40]!r}", "it is `json` or `md`")
        lines = await asyncio.to_thread(lambda: ",\n".join(to_json_lines(events)))
        head = json.dumps({"room": served.id, "seq": len(events)})
        return Response(f'{head[:-1]}, "events": [{lines}]}}', media_type="application/json")

    # -- who is in a room

    async def enter(self, request: Request) -> Response:
        body = await read_object(request, {"participant": str, "person": str})
        if len(body) != 1:
            raise Refusal(422, "expected either `participant` or `person`")
        member = _member(body["participant"]) if "participant" in body else None
        served = await self._hub.open(request.path_params["id"])
        room = served.room
        if member is None:
            await room.admit(body["person"])
        else:
            assert served.session is not None
            await room.invite(await served.session.participant(member, room.names))
        return Json(describe(served), 201)

    async def leave(self, request: Request) -> Response:
        name = request.path_params["name"]
        served = await self._hub.open_with(request.path_params["id"], name)
        await served.room.kick(name)
        return Json(describe(served))

    async def set_mode(self, request: Request) -> Response:
        body = await read_object(request, {"mode": str}, required=("mode",))
        name = request.path_params["name"]
        served = await self._hub.open_with(request.path_params["id"], name)
        return JSONResponse({"mode": str(await served.room.set_mode(name, body["mode"]))})


class EventStream(Response):
    """The events of a room from one on, as they come, until the reader leaves or the stream ends."""

    def __init__(self, stream: Stream, after: int) -> None:
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        writing = asyncio.create_task(self._write(send))
        try:
            # Nothing more is sent to us: what comes is the end of the answer, or of the connection.
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            writing.cancel()
            await asyncio.wait([writing])
        if not writing.cancelled():
            writing.result()

    async def _write(self, send: Send) -> None:
        stream = self._stream
        try:
            with stream.reader(self._after) as reader:
                await send(_part(b"retry: %d\n\n" % RECONNECT_MS))
                while True:
                    if data := reader.take():
                        for place in range(0, len(data), PART_BYTES):
                            await send(_part(data[place : place + PART_BYTES]))
                    elif stream.ended:
                        return
                    else:
                        await stream.news()
        finally:
            await send({"type": "http.response.body"})


def _part(data: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": True}


def make_app(api: Api, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application, with `more` routes beside those of the API."""
    handlers: Mapping[Any, Any] = {OrgError: _refused, HTTPException: _http_error, Exception: _bug}
    return Starlette(routes=[*api.routes(), *more], exception_handlers=handlers)


def _member(text: object) -> Member:
    if not isinstance(text, str):
        raise Refusal(422, "`participants`: expected a list of texts")
    try:
        return parse_with(text)
    except ValueError as error:
        raise UsageError(f"not a participant: expected {error}", "for example `ann=simple`") from None


async def _refused(request: Request, error: OrgError) -> Response:
    return answer(error, request.url.path)


async def _http_error(request: Request, error: HTTPException) -> Response:
    hint = "`GET /openapi.json` lists what there is" if error.status_code in (404, 405) else ""
    refusal = Refusal(error.status_code, error.detail.lower(), hint, error.headers)
    return answer(refusal, request.url.path)


async def _bug(request: Request, error: Exception) -> Response:
    return answer(Refusal(500, "a bug in org", "its log has the details"), request.url.path)
