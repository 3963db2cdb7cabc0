"""A request as bytes for `/v1/chat/completions`. Pure.

A view only grows at its end, so each entry is encoded once: an `EncodedView` keeps what it made,
and a request body is a join of bytes. (Walking the whole history on every request is what makes
a long tool loop quadratic.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from org.messages import ChatRequest, Entry, View
from org.tooling import ToolCall, ToolSpec

UNANSWERED = "(no result: the call was interrupted)"


class EncodedView:
    """The messages of one view as JSON, comma-separated, grown as the view grows.

    Servers reject a history with a call that has no result, a result without its call, or results
    out of order: results are held until all of a turn's calls have theirs, or something else follows.

    Calls are numbered in nine letters and digits, which is what the strictest templates (Mistral)
    accept as an id: so ids never clash, whoever made the calls.
    """

    __slots__ = ("_bytes", "_calls", "_count", "_open")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0  # entries taken in
        self._calls = 0  # calls numbered
        self._open: list[_OpenCall] = []  # the newest calls, while any lacks its result

    def of(self, view: View) -> bytes:
        """The view's messages; only what was appended since the last call is encoded."""
        for entry in view.since(self._count):
            self._add(entry)
            self._count += 1
        return b"".join((self._bytes, *(_result(call) for call in self._open)))

    def _add(self, entry: Entry) -> None:
        if entry.role == "tool":
            self._take_result(entry)
            return
        self._settle()
        calls = entry.calls if entry.role == "assistant" else ()
        opened = [_OpenCall(call.id, f"c{self._calls + n:08}") for n, call in enumerate(calls, 1)]
        message: dict[str, Any] = {"role": entry.role, "content": entry.content}
        if calls:
            message["tool_calls"] = [_call(call, o.wire_id) for call, o in zip(calls, opened, strict=True)]
        encoded = _json(message)
        if self._bytes:
            self._bytes += b","
        self._bytes += encoded
        self._calls += len(calls)
        self._open = opened

    def _take_result(self, entry: Entry) -> None:
        waiting = next((c for c in self._open if c.call_id == entry.call_id and c.result is None), None)
        if waiting is None:
            return  # an orphan
        waiting.result = entry.content
        if all(call.result is not None for call in self._open):
            self._settle()

    def _settle(self) -> None:
        for call in self._open:
            self._bytes += _result(call)
        self._open = []


class _OpenCall:
    """A call of the newest assistant message, under the id it was sent with."""

    __slots__ = ("call_id", "result", "wire_id")

    def __init__(self, call_id: str, wire_id: str) -> None:
        self.call_id = call_id
        self.wire_id = wire_id
        self.result: str | None = None


def body(request: ChatRequest, messages: bytes, *, stream: bool = True) -> bytes:
    """The request's body. `temperature` and `top_p` are always said: left out, Ollama takes 1.0."""
    options: dict[str, Any] = {"model": request.model, "stream": stream}
    if stream:
        options["stream_options"] = {"include_usage": True}
    options["temperature"] = request.temperature
    options["top_p"] = request.top_p
    options["max_tokens"] = request.max_tokens
    if request.seed is not None:
        options["seed"] = request.seed
    if request.stop:
        options["stop"] = list(request.stop)
    if request.tools:
        options["tools"] = schemas(request.tools)
    return b'%b,"messages":[%b]}' % (_json(options)[:-1], messages)


def schemas(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """The tools in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in tools
    ]


def _call(call: ToolCall, wire_id: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"id": wire_id, "type": "function", "function": function}


def _arguments(arguments: Mapping[str, Any]) -> str:
    """An object, as the text that the wire wants. NaN and Infinity are no JSON: they become null."""
    try:
        return json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False)
    except ValueError:
        lenient = json.loads(json.dumps(dict(arguments)), parse_constant=lambda _: None)
        return json.dumps(lenient, ensure_ascii=False)


def _result(call: _OpenCall) -> bytes:
    content = UNANSWERED if call.result is None else call.result
    return b"," + _json({"role": "tool", "content": content, "tool_call_id": call.wire_id})


def _json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no server's JSON parser takes
        return text.encode(errors="replace")
