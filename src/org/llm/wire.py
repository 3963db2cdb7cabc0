"""A request as bytes for `/v1/chat/completions`. Pure.

A view only grows at its end, so each entry is encoded once: an `EncodedView` keeps what it made,
and a request body is a join of bytes. (Walking the whole history on every request is what makes
a long tool loop quadratic.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from org.messages import ChatRequest, Entry, View
from org.tooling import ToolCall, ToolSpec

UNANSWERED = "(no result: the call was interrupted)"


class EncodedView:
    """The messages of one view as JSON, comma-separated, grown as the view grows.

    Servers reject a history with a call that has no result, a result without its call, or results
    out of order: results are held until all of a turn's calls have theirs, or something else follows.
    """

    __slots__ = ("_bytes", "_count", "_expected")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0
        self._expected: dict[str, Entry | None] = {}  # call id -> its result, of the newest calls

    def of(self, view: View) -> bytes:
        """The view's messages; only what was appended since the last call is encoded."""
        for entry in view.since(self._count):
            self._add(entry)
        self._count = len(view)
        if self._expected:
            return bytes(self._bytes) + _results(self._expected)
        return bytes(self._bytes)

    def _add(self, entry: Entry) -> None:
        if entry.role == "tool":
            if entry.call_id in self._expected:
                self._expected[entry.call_id] = entry
                if None not in self._expected.values():
                    self._settle()
            return
        self._settle()
        if self._bytes:
            self._bytes += b","
        self._bytes += _message(entry)
        self._expected = dict.fromkeys((call.id for call in entry.calls), None)

    def _settle(self) -> None:
        if self._expected:
            self._bytes += _results(self._expected)
            self._expected = {}


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


def _message(entry: Entry) -> bytes:
    message: dict[str, Any] = {"role": entry.role, "content": entry.content}
    if entry.calls:
        message["tool_calls"] = [_call(call) for call in entry.calls]
    return _json(message)


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {
        "id": _wire_id(call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _results(expected: dict[str, Entry | None]) -> bytes:
    return b"".join(
        b","
        + _json(
            {
                "role": "tool",
                "content": entry.content if entry else UNANSWERED,
                "tool_call_id": _wire_id(call_id),
            }
        )
        for call_id, entry in expected.items()
    )


def _wire_id(call_id: str) -> str:
    """Mistral's templates accept exactly nine letters and digits; other ids are mapped to such."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.blake2b(call_id.encode(errors="replace"), digest_size=8).hexdigest()[:9]


def _json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no server's JSON parser takes
        return text.encode(errors="replace")
