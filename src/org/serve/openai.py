"""The rooms as OpenAI's clients see them: models, and chat completions.

A request is answered by a room of its own, which begins with the conversation that the client sends
and is forgotten afterwards; or, when its metadata name one, by a room that is there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from org.config import Member
from org.errors import ModelError, OrgError
from org.events import Stopped
from org.serve.bodies import read_body
from org.serve.caused import Caused
from org.serve.completions import (
    COMMENT,
    DONE,
    Asked,
    Finish,
    Heading,
    encode,
    event_of,
    models,
    no_model,
    read_asked,
)
from org.serve.dialogue import Kind, Piece
from org.serve.forks import Forks
from org.serve.hearing import Hearing, Outcome, Tell
from org.serve.hub import Hub
from org.serve.refusal import Refusal, answer, openai_error

KEEP_ALIVE_S = 15.0
"""Silence after which a client is sent a comment, so that what lies between it and us stays awake."""


Talk: TypeAlias = Callable[[Tell], Awaitable[Outcome]]
"""Has a request answered, telling what is said meanwhile. Raises `OrgError` when nothing comes of it."""


class OpenAi:
    """The endpoints below `/v1`."""

    def __init__(self, hub: Hub, forks: Forks, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._hub = hub
        self._forks = forks
        self._keep_alive_s = keep_alive_s
        self._created = int(time.time())

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{id:path}", self.model),
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": self._models()})

    async def model(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        found = next((model for model in self._models() if model["id"] == wanted), None)
        if found is None:
            raise no_model(wanted)
        return _json(found)

    def _models(self) -> list[dict[str, object]]:
        return models([member.id for member in self._forks.members], self._created)

    async def complete(self, request: Request) -> Response:
        asked = read_asked(await read_body(request))
        talk = self._joined(asked) if asked.room else self._forked(asked)
        return Reply(asked, talk, self._keep_alive_s)

    # -- in a room of its own

    def _forked(self, asked: Asked) -> Talk:
        """Raises `Refusal` for a participant that there is not."""
        members = [
            _told(member, asked.system)
            for member in self._forks.members
            if asked.participant in ("", member.id)
        ]
        if not members:
            raise no_model(asked.model)
        # Between two there is nobody to address: what the person says is for the other as it stands.
        routed = len(members) > 1
        said = asked.said[:-1] if routed else asked.said

        async def talk(tell: Tell) -> Outcome:
            async with self._forks.open(members, said, routed=routed, sampling=asked.sampling) as session:
                hearing = Hearing(session.room, asked.participant, tell)
                session.room.observe(hearing)
                if routed:
                    await session.room.post(session.settings.name, asked.said[-1].text)
                return hearing.outcome(await session.room.answer())

        return talk

    # -- in one that is there

    def _joined(self, asked: Asked) -> Talk:
        async def talk(tell: Tell) -> Outcome:
            served = await self._hub.open(asked.room)
            room = served.room
            if asked.participant and asked.participant not in room.participants:
                raise no_model(asked.model)
            to = f"@{asked.participant} " if asked.participant else ""
            # Others may speak there too: of what happens only what comes of this message is the answer.
            caused = Caused(secrets.token_hex(16))
            hearing = Hearing(room, asked.participant, tell, caused)
            forget = room.observe(hearing)
            try:
                await served.post(self._hub.settings.name, to + asked.said[-1].text, caused.key)
                return hearing.outcome(await _first(room.answer(), hearing.over()))
            except ModelError as error:
                # Clients try again by themselves, and would say it twice.
                raise Refusal(502, error.message, error.hint, {"X-Should-Retry": "false"}) from error
            finally:
                forget()

        return talk


class Reply(Response):
    """A completion, as a stream or whole. A client that leaves ends it."""

    def __init__(self, asked: Asked, talk: Talk, keep_alive_s: float) -> None:
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._asked = asked
        self._talk = talk
        self._keep_alive_s = keep_alive_s
        self._heading = Heading(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), asked.model)
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = self._stream if self._asked.stream else self._whole
        tasks = {asyncio.create_task(_gone(receive)), working := asyncio.create_task(answering(send))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        refusal = None if working.cancelled() else working.result()
        if refusal is not None:
            await answer(refusal, scope["path"])(scope, receive, send)

    async def _whole(self, send: Send) -> OrgError | None:
        """Answer at once when all is said; returns why there is no answer, if so."""
        texts: dict[Kind, list[str]] = {"content": [], "reasoning_content": []}
        try:
            outcome = await self._talk(lambda piece: texts[piece.kind].append(piece.text))
        except OrgError as error:
            return error
        content, reasoning = ("".join(parts) for parts in texts.values())
        body = encode(self._heading.whole(content, reasoning, outcome.finish, outcome.usage))
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
        return None

    async def _stream(self, send: Send) -> OrgError | None:
        """Send what is said as it is said; returns why there is no answer, if nothing was sent."""
        news: asyncio.Queue[Piece | None] = asyncio.Queue()
        talking = asyncio.ensure_future(self._talk(news.put_nowait))
        talking.add_done_callback(lambda _: news.put_nowait(None))
        try:
            await self._relay(news, send)
        finally:
            talking.cancel()
            await asyncio.wait({talking})
        try:
            outcome = talking.result()
        except OrgError as error:
            if not self._begun:
                return error
            data = [event_of({"error": openai_error(error)[1]})]
        else:
            data = [self._chunk({}, outcome.finish)]
            if self._asked.usage:
                data.append(self._heading.usage(outcome.usage))
        await self._send(send, b"".join([*data, DONE]))
        await send({"type": "http.response.body"})
        return None

    async def _relay(self, news: asyncio.Queue[Piece | None], send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(self._keep_alive_s):
                    piece = await news.get()
            except TimeoutError:
                await self._send(send, COMMENT)
                continue
            if piece is None:
                return
            await self._send(send, self._chunk({piece.kind: piece.text}))

    async def _send(self, send: Send, data: bytes) -> None:
        """The answer begins with the first that there is to send: until then it may become a refusal."""
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            data = self._chunk({"role": "assistant", "content": ""}) + data
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _chunk(self, delta: dict[str, str], finish: Finish | None = None) -> bytes:
        return self._heading.chunk(delta, finish, with_usage=self._asked.usage)


async def _first(*waits: Coroutine[Any, Any, Stopped]) -> Stopped:
    """What comes first of these; the others are not waited for any more."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()


async def _gone(receive: Receive) -> None:
    """Wait until the client has left, or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(member: Member, system: str) -> Member:
    """A member that was told that, besides what it is told anyway."""
    return replace(member, system="\n\n".join(text for text in (member.system, system) if text) or None)


def _json(data: dict[str, object]) -> Response:
    return Response(encode(data), media_type="application/json")
