"""The client of `/v1/chat/completions`: the one part of `llm/` that talks to a server."""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from org.errors import ContextExceeded, ModelError, ServerRefused, ServerUnreachable, StreamBroken
from org.events import Delta
from org.llm import wire
from org.llm.assemble import Assembler, error_message
from org.llm.extract import ToolCallStream
from org.llm.http import Origin, Response, Unanswered
from org.llm.sse import Splitter
from org.llm.think import ThinkSplitter
from org.messages import ChatRequest, Completion, View
from org.tooling import ToolCall

CONNECT_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 3600.0
"""Ollama sends nothing while it queues, loads a model, reads the prompt or writes a long argument."""
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits between tries when the server is not there yet or says that it is busy."""
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
        self._api_key = api_key
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
        answer = _Answer(request, emit)
        body = wire.body(request, messages)
        try:
            response = await self._send("POST", "/chat/completions", body, answer.feed, answer.begun)
            answer.end(response)
        except StreamBroken as error:
            if not answer.swallowed:
                raise
            # Ollama hides an error of a stream; asked again without one, it says what it was.
            answer = _Answer(request, emit)
            body = wire.body(request, messages, stream=False)
            try:
                answer.end(await self._send("POST", "/chat/completions", body, answer.feed, answer.begun))
            except StreamBroken:
                raise error from None
        return answer.completion()

    async def models(self) -> list[str]:
        """The ids of the models that the server offers."""
        listing = await self.get_json("/models")
        data = listing.get("data") or listing.get("models") or []
        return [str(m.get("id") or m.get("name") or m.get("model")) for m in data if isinstance(m, dict)]

    async def get_json(self, path: str) -> dict[str, Any]:
        """A JSON object by GET; `path` is below the base URL, with `//` in front below `/`.

        Raises `ServerRefused` when the answer is an error or no JSON object.
        """
        response = await self._send("GET", path, b"", lambda _: True, lambda: False)
        try:
            value = json.loads(response.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ServerRefused(f"{self.base_url}: `GET {path}` was not answered with a JSON object")
        return value

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        on_stream: Callable[[bytes], bool],
        begun: Callable[[], bool],
    ) -> Response:
        """Send until it is answered, or until trying again makes no sense.

        Nothing is sent again once a part of an answer was shown (`begun`). A kept connection that
        the server closed meanwhile is replaced at once; a server that is not there or is busy is
        asked again after a while; a model runner that died is asked once more.
        """
        headers = {"Accept": "text/event-stream, application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        data = self._origin.request(method, path, headers, body)
        runner_died = False
        for tries, wait in enumerate((*BACKOFF_S, None), 1):
            try:
                response = await self._exchange(data, on_stream)
            except (ServerUnreachable, Unanswered):
                if begun() or wait is None or tries >= UNREACHABLE_TRIES:
                    raise
            else:
                if response.status < 300:
                    return response
                refusal = _refusal(response)
                died = "unexpectedly stopped" in refusal.message
                if begun() or wait is None or not (response.status == 503 or (died and not runner_died)):
                    raise refusal
                runner_died = runner_died or died
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _exchange(self, data: bytes, on_stream: Callable[[bytes], bool]) -> Response:
        while True:
            connection, used = await self._origin.acquire()
            try:
                response = await connection.exchange(data, on_stream, self._idle_timeout_s)
            except Unanswered:
                if not used:
                    raise
                continue  # it had been closed for idleness; the next one is fresh or as old
            self._origin.release(connection)
            return response


class _Answer:
    """One completion while it comes in: bytes to payloads to text, reasoning and calls."""

    def __init__(self, request: ChatRequest, emit: Callable[[Delta], None]) -> None:
        self._emit = emit
        self._splitter = Splitter()
        self._assembler = Assembler()
        self._think = ThinkSplitter()
        self._calls = ToolCallStream(wire.schemas(request.tools))
        self._reasoning: list[str] = []
        self._begun = False

    @property
    def swallowed(self) -> bool:
        return self._assembler.swallowed

    def begun(self) -> bool:
        """Whether anything of the answer has come, so that asking again would repeat it."""
        return self._begun

    def feed(self, data: bytes) -> bool:
        """Take bytes of the stream; whether it is over."""
        self._take(self._splitter.feed(data))
        return self._assembler.done

    def end(self, response: Response) -> None:
        """The answer is over. Raises `StreamBroken` when the server did not say so itself."""
        self._take([response.body] if response.body else self._splitter.finish())
        if not self._assembler.complete:
            raise StreamBroken(
                "the server ended the stream early, without a finish reason",
                "the model's runner may have failed: the server's own log says why (`ollama serve`)",
            )

    def completion(self) -> Completion:
        said, thought, unclosed = self._think.finish()
        shown = self._calls.feed(said)
        if unclosed:
            # Only a closed thought is surely none of the answer: an unclosed one may hold the call.
            self._calls.feed(unclosed)
        extraction = self._calls.finish()
        if unclosed:
            text = ""
        else:
            text, opening = _after_unopened_thought(extraction.content)
            thought += opening
            self._show(shown + extraction.tail, "")
        self._reasoning.append(thought)
        calls = (*self._assembler.calls(new_call_id), *map(_with_id, extraction.calls))
        # The last call of an answer that was cut by length has half its arguments: none is run.
        cut = self._assembler.finish == "length" and bool(calls)
        return Completion(
            text=text,
            calls=() if cut else calls,
            reasoning="".join(self._reasoning),
            finish=self._assembler.finish,
            incomplete=cut or bool(extraction.incomplete),
            usage=self._assembler.usage,
        )

    def _take(self, payloads: list[bytes]) -> None:
        feed = self._assembler.feed
        pieces = [feed(payload) for payload in payloads]
        if not pieces:
            return
        text = "".join([p[0] for p in pieces])
        reasoning = "".join([p[1] for p in pieces])
        self._begun = self._begun or bool(text or reasoning)
        if text:
            text, thought = self._think.feed(text)
            text = self._calls.feed(text)
            reasoning += thought
        if reasoning:
            self._reasoning.append(reasoning)
        self._show(text, reasoning)

    def _show(self, text: str, reasoning: str) -> None:
        if reasoning:
            self._emit(Delta(reasoning, "reasoning"))
        if text:
            self._emit(Delta(text))


ALPHANUMERIC = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Nine letters and digits: what the strictest chat templates accept."""
    return "".join(random.choices(ALPHANUMERIC, k=9))


def _with_id(call: ToolCall) -> ToolCall:
    return ToolCall(new_call_id(), call.name, call.arguments, call.origin, call.error)


def _after_unopened_thought(text: str) -> tuple[str, str]:
    """(text, thought) of an answer whose template opened the thought before the answer began."""
    thought, mark, rest = text.partition("</think>")
    return (rest.lstrip("\n"), thought) if mark else (text, "")


def _refusal(response: Response) -> ModelError:
    try:
        parsed: object = json.loads(response.body)
    except ValueError:
        parsed = response.body.decode(errors="replace")[:500]
    message = error_message(parsed) or "an empty answer"
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error":
        return ContextExceeded(f"the prompt does not fit into the context: {message}", status=response.status)
    return ServerRefused(
        f"the model server answered {response.status}: {message}",
        _HINTS.get(response.status, "") or _hint(message),
        status=response.status,
    )


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
