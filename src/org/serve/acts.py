"""What a person does in a room beside speaking: the API for what is a slash command where a room runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from org.chat.participant import ModelParticipant
from org.commands import LIMITS
from org.compose.rooms import rooms_of
from org.compose.servers import list_models
from org.events import Notice, Undone
from org.journal import INDEX, search
from org.ports import Turn
from org.serve.bodies import Json, read_object
from org.serve.hub import Hub
from org.serve.refusal import Refusal
from org.serve.snapshot import describe

MOST = 10**9
"""The highest limit."""
QUERY_LENGTH = 200
MAX_HITS = 100


class Acts:
    """The endpoints, on the rooms of a hub. What changes a room answers with the room as it is then."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def routes(self) -> list[BaseRoute]:
        room = "/rooms/{id}"
        return [
            Route("/models", self.models),
            Route(f"{room}/approvals/{{approval}}", self.approve, methods=["POST"]),
            Route(f"{room}/undo", self.undo, methods=["POST"]),
            Route(f"{room}/clear", self.clear, methods=["POST"]),
            Route(f"{room}/limits", self.set_limits, methods=["PUT"]),
            Route(f"{room}/members/{{name}}/model", self.set_model, methods=["PUT"]),
            Route(f"{room}/members/{{name}}/compact", self.compact, methods=["POST"]),
            Route(f"{room}/search", self.search),
        ]

    async def models(self, request: Request) -> Response:
        client, names = await list_models(self._hub.settings)
        await client.aclose()
        return Json({"models": names})

    async def approve(self, request: Request) -> Response:
        body = await read_object(request, {"allow": bool}, required=("allow",))
        served = await self._hub.look(request.path_params["id"])
        served.asking.answer(request.path_params["approval"], body["allow"])
        return Json({"allowed": body["allow"]})

    async def undo(self, request: Request) -> Response:
        """Which message is meant is said, so that asking twice, or late, takes back no other."""
        body = await read_object(request, {"message": int}, required=("message",))
        served = await self._hub.open(request.path_params["id"])
        async with served.at_rest() as room:
            newest = next((m.id for m in reversed(room.transcript) if m.role == "person"), 0)
            if newest == body["message"]:
                await room.undo()
            elif not any(isinstance(e, Undone) and e.message == body["message"] for e in room.events):
                hint = f"it is {newest}" if newest else "nobody has said anything"
                raise Refusal(409, f"{body['message']} is not the newest message of a person", hint)
        return Json(describe(served))

    async def clear(self, request: Request) -> Response:
        served = await self._hub.open(request.path_params["id"])
        async with served.at_rest() as room:
            await room.clear()
        return Json(describe(served))

    async def set_limits(self, request: Request) -> Response:
        body = await read_object(request, LIMITS)
        if not body:
            raise Refusal(422, "no limit is named", "known are: " + ", ".join(LIMITS))
        for name, value in body.items():
            if not 0 <= value <= MOST:
                raise Refusal(422, f"`{name}`: expected 0 to {MOST}", "0 is no limit")
        served = await self._hub.open(request.path_params["id"])
        served.room.limits = limits = replace(served.room.limits, **body)
        told = ", ".join(f"{name} {getattr(limits, name):,}" for name in LIMITS)
        served.stream.take(Notice(f"limits of an exchange from now on: {told}"))
        return Json(describe(served))

    async def set_model(self, request: Request) -> Response:
        body = await read_object(request, {"model": str}, required=("model",))
        if not body["model"].strip(" "):
            raise Refusal(422, "`model`: expected a name", "`GET /models` lists those of the server")
        name = request.path_params["name"]
        served = await self._hub.open_with(request.path_params["id"], name)
        assert served.session is not None
        await served.session.set_model(name, body["model"])
        return Json(describe(served))

    async def compact(self, request: Request) -> Response:
        """It takes a completion, so it is done in the background; what came of it is an event."""
        name = request.path_params["name"]
        served = await self._hub.open_with(request.path_params["id"], name)
        participant = served.room.participants.get(name)
        if not isinstance(participant, ModelParticipant):
            raise Refusal(422, f"no participant with a model is called `{name}`")
        served.aside(name, lambda: _compact(participant, served.room.aside(name)))
        return Json({"compacting": True}, 202)

    async def search(self, request: Request) -> Response:
        words = request.query_params.get("q", "")
        limit = request.query_params.get("limit", "20")
        if len(words) > QUERY_LENGTH:
            raise Refusal(422, f"`q`: expected at most {QUERY_LENGTH} characters")
        if not (limit.isdecimal() and limit.isascii() and len(limit) < 4 and 0 < int(limit) <= MAX_HITS):
            raise Refusal(422, f"`limit`: expected 1 to {MAX_HITS}")
        settings = self._hub.settings
        served = await self._hub.look(request.path_params["id"])
        index = settings.places.cache / INDEX
        found = await asyncio.to_thread(search, rooms_of(settings), index, words, int(limit), served.id)
        return Json({"hits": [asdict(hit) for hit in found.hits]})


async def _compact(participant: ModelParticipant, occasion: Turn) -> None:
    if not await participant.compact(occasion):
        occasion.emit(Notice("there is nothing to compact yet", "", occasion.participant))
