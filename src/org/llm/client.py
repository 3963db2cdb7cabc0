"""The client of `/v1/chat/completions`: the one part of `llm/` that talks to a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from org.errors import (
    ContextExceeded,
    ServerRefused,
    ServerUnreachable,
    StreamBroken,
    UsageError,
)
from org.events import Delta
from org.llm import wire
from org.llm.answer import Answer
from org.llm.assemble import error_message, parse_json
from org.llm.http import Origin, Response, Unanswered
from org.messages import ChatRequest, Completion, View

CONNECT_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 3600.0
"""Ollama sends nothing while it queues, loads a model, reads the prompt or writes a long argument."""
LISTING_TIMEOUT_S = 30.0
"""Idle timeout of questions that no model has to work on."""
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits between tries when the server is not there yet, or says that it is busy or loading."""
UNREACHABLE_TRIES = 3


class ChatClient:
    """A `ChatModel` behind an OpenAI-compatible server at `base_url` (ending in `/v1`).

    Use it as an async context manager, or close it. One client serves many participants and keeps
    its connections; requests may run at the same time.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._origin = Origin(base_url, connect_timeout_s=connect_timeout_s)
        self._headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
        if api_key := api_key.strip():
            if not (api_key.isascii() and api_key.isprintable()):
                raise UsageError("the API key has characters that no key has", "look at ORG_API_KEY")
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._idle_timeout_s = idle_timeout_s
        self._encoded: WeakKeyDictionary[View, wire.EncodedView] = WeakKeyDictionary()

    @property
    def base_url(self) -> str:
        return self._origin.url

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self._origin.close()
        await asyncio.sleep(0)  # lets the transports finish closing

    async def complete(self, request: ChatRequest, emit: Callable[[Delta], None]) -> Completion:
        """One completion, streamed; see `ChatModel.complete`.

        The calls of the result are those that the server declared and those that the model wrote
        into its text, in this order; the text is without the latter. Raises `ServerUnreachable`,
        `ServerRefused`, `StreamBroken`, `StreamStalled`, all of them `ModelError`.
        """
        encoded = self._encoded.get(request.view)
        if encoded is None:
            encoded = self._encoded[request.view] = wire.EncodedView()
        messages = encoded.of(request.view)
        answer = Answer(request, emit)
        try:
            await self._answer(answer, wire.body(request, messages))
        except StreamBroken as error:
            if not answer.swallowed:
                raise
            # Ollama hides an error of a stream; asked again without one, it says what it was. The
            # model may do better this time: then what was shown of the first try goes no further.
            if answer.begun():
                emit(Delta("\n"))
            answer = Answer(request, emit)
            try:
                await self._answer(answer, wire.body(request, messages, stream=False))
            except StreamBroken:
                raise error from None
        return answer.completion()

    async def _answer(self, answer: Answer, body: bytes) -> None:
        data = self._origin.request("POST", "/chat/completions", self._headers, body)
        answer.end(await self._send(data, self._idle_timeout_s, answer.feed, answer.begun))

    async def models(self) -> list[str]:
        """The ids of the models that the server offers."""
        listing = await self.get_json("/models")
        models = listing.get("data") or listing.get("models")
        if not isinstance(models, list):
            return []
        ids = [m.get("id") or m.get("name") or m.get("model") for m in models if isinstance(m, dict)]
        return [model for model in ids if isinstance(model, str)]

    async def get_json(self, path: str) -> dict[str, Any]:
        """A JSON object by GET; `path` is below the base URL, with `//` in front below `/`.

        Raises `ServerRefused` when the answer is an error or no JSON object.
        """
        data = self._origin.request("GET", path, self._headers)
        response = await self._send(data, LISTING_TIMEOUT_S, lambda _: True, lambda: False)
        try:
            value = parse_json(response.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ServerRefused(
                f"{self.base_url}: `GET {path}` was not answered with a JSON object",
                "is this the address of a model server?",
                status=response.status,
            )
        return value

    async def _send(
        self,
        data: bytes,
        idle_timeout_s: float,
        on_stream: Callable[[bytes], bool],
        begun: Callable[[], bool],
    ) -> Response:
        """Send until it is answered, or until trying again makes no sense.

        Nothing is sent again once a part of an answer was shown (`begun`). A kept connection that
        the server closed meanwhile is replaced at once; a server that is not there or is busy is
        asked again after a while; a model runner that died is asked once more.
        """
        runner_died = False
        for tries, wait in enumerate((*BACKOFF_S, None), 1):
            try:
                response = await self._exchange(data, idle_timeout_s, on_stream)
            except (ServerUnreachable, Unanswered):
                if begun() or wait is None or tries >= UNREACHABLE_TRIES:
                    raise
            else:
                if response.status < 300:
                    return response
                refusal = _refusal(response)
                died = "unexpectedly stopped" in refusal.message
                if wait is None or not (response.status == 503 or (died and not runner_died)):
                    raise refusal
                runner_died = runner_died or died
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _exchange(
        self, data: bytes, idle_timeout_s: float, on_stream: Callable[[bytes], bool]
    ) -> Response:
        while True:
            connection, used = await self._origin.acquire()
            try:
                response = await connection.exchange(data, on_stream, idle_timeout_s)
            except Unanswered:
                if not used:
                    raise
                continue  # it had been closed for idleness; the next one is fresh or as old
            self._origin.release(connection)
            return response


def _refusal(response: Response) -> ServerRefused:
    status = response.status
    if location := response.headers.get("location"):
        return ServerRefused(
            f"the model server answered {status}: it redirects to {location[:500]}",
            "take that address as the base URL, if it is the right one",
            status=status,
        )
    try:
        parsed: object = parse_json(response.body)
    except ValueError:
        parsed = _plain(response.body)
    message = error_message(parsed) or "an error without a message"
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error":
        return ContextExceeded(f"the prompt does not fit into the context: {message}", status=status)
    return ServerRefused(
        f"the model server answered {status}: {message}",
        _HINTS.get(status, "") or _hint(message),
        status=status,
    )


def _plain(body: bytes) -> str:
    """What a body that is not JSON says: its text, of a page only the title."""
    text = body.decode(errors="replace")
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    if title:
        return " ".join(title[1].split())[:500]
    return "" if text.lstrip().startswith("<") else text.strip()[:500]


_HINTS = {
    401: "set the key in ORG_API_KEY",
    403: "the server may refuse the address it was called by: try 127.0.0.1, or set OLLAMA_ORIGINS",
}


def _hint(message: str) -> str:
    if "does not support tools" in message:
        return "take another model, or the profile `simple` for this participant"
    if "not found" in message:
        return "`org models` lists what is there; `ollama pull NAME` fetches one"
    return ""
