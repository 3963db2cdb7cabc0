"""Deltas to a completion. Pure.

Decides by what is there, not by what `finish_reason` claims: `stop` comes with tool calls on some
servers, several calls share one index on others, and an error may arrive inside a stream that
began with HTTP 200.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from org.errors import ServerRefused, StreamBroken
from org.messages import Usage
from org.tooling import ToolCall


class _Slot:
    """A declared call while its pieces come in."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.arguments = ""


class Assembler:
    """Feed it the payloads of one stream, in order; then read what came of them."""

    def __init__(self) -> None:
        self.finish = ""
        self.done = False
        self.usage: Usage | None = None
        self.swallowed = False
        """Ollama's sign of an error it does not report in a stream: a chunk of no model."""
        self._slots: list[_Slot] = []
        self._by_index: dict[int, _Slot] = {}

    @property
    def complete(self) -> bool:
        """Whether the server said that it was finished, in either of the two ways."""
        return self.done or bool(self.finish)

    def feed(self, payload: bytes) -> tuple[str, str]:
        """Take one payload in; returns its (text, reasoning).

        Raises `ServerRefused` for an error event, `StreamBroken` for what is not JSON.
        """
        if payload == b"[DONE]":
            self.done = True
            return "", ""
        try:
            event = json.loads(payload)
        except ValueError:
            return self._feed_lines(payload)
        if not isinstance(event, dict):
            raise StreamBroken(f"the server sent an event that is no object: `{_excerpt(payload)}`")
        if event.get("error"):
            raise ServerRefused(error_message(event) or "the server reported an error without a message")
        if usage := event.get("usage"):
            self.usage = _usage(usage)
        if event.get("model") == "":
            self.swallowed = True
        choices = event.get("choices")
        if not choices:
            return "", ""
        return self._choice(choices[0])

    def calls(self, new_id: Callable[[], str]) -> tuple[ToolCall, ...]:
        """The declared calls, in the order in which they began, under ids of our own."""
        return tuple(_finished(slot, new_id()) for slot in self._slots if slot.name or slot.arguments)

    def _feed_lines(self, payload: bytes) -> tuple[str, str]:
        """Events that a server put on consecutive lines, without the blank line between them."""
        lines = payload.split(b"\n")
        if len(lines) == 1:
            raise StreamBroken(f"the server sent an event that is not JSON: `{_excerpt(payload)}`")
        pieces = [self.feed(line) for line in lines if line]
        return "".join(p[0] for p in pieces), "".join(p[1] for p in pieces)

    def _choice(self, choice: Any) -> tuple[str, str]:
        if not isinstance(choice, dict) or choice.get("index"):
            return "", ""  # one answer was asked for
        if finish := choice.get("finish_reason"):
            self.finish = str(finish)
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return "", ""
        for piece in delta.get("tool_calls") or ():
            if isinstance(piece, dict):
                self._stitch(piece)
        if isinstance(legacy := delta.get("function_call"), dict):
            self._stitch({"index": 0, "function": legacy})
        content = delta.get("content")
        if content.__class__ is not str:
            content = _text_of(content)
        return content, delta.get("reasoning_content") or delta.get("reasoning") or ""

    def _stitch(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        if not isinstance(function, dict):
            function = {}
        name = str(function.get("name") or "")
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        call_id = str(piece.get("id") or "")
        index = piece.get("index")
        slot = self._slot_for(index if isinstance(index, int) else None, call_id, name, arguments)
        if slot is None:
            slot = _Slot(call_id, name)
            self._slots.append(slot)
        elif name and name != slot.name:
            slot.name += name  # a name that came in pieces
        if isinstance(index, int):
            self._by_index[index] = slot
        slot.id = slot.id or call_id
        slot.arguments += arguments

    def _slot_for(self, index: int | None, call_id: str, name: str, arguments: str) -> _Slot | None:
        """The call that a piece goes on with, or None when it begins a new one."""
        if index is None:
            same_id = next((s for s in reversed(self._slots) if call_id and s.id == call_id), None)
            slot = same_id or (self._slots[-1] if self._slots and not call_id and not name else None)
        else:
            slot = self._by_index.get(index)
        if slot is None or (call_id and slot.id and call_id != slot.id):
            return None
        if name and (_parses(slot.arguments) or (slot.arguments and name != slot.name)):
            echo = bool(call_id) and not arguments  # the same call named once more as it closes
            return slot if echo else None
        return slot


def error_message(body: object) -> str:
    """The message of an error body, in any of the shapes that servers use; empty when there is none."""
    if isinstance(body, str):
        return body.strip()
    if not isinstance(body, dict):
        return ""
    for key in ("error", "message", "detail"):
        if message := error_message(body.get(key)):
            return message
    return ""


def parse_arguments(raw: str) -> tuple[dict[str, Any], str]:
    """(arguments, error): the JSON object that `raw` holds, unwrapped when it was encoded twice."""
    if not raw.strip():
        return {}, ""
    value: Any = raw
    for _ in range(3):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError) as error:
            return {}, f"the arguments are not JSON ({error}): {_excerpt(raw.encode(errors='replace'))}"
        if isinstance(value, dict):
            return value, ""
        if not isinstance(value, str):
            break
    return {}, f"the arguments are not a JSON object: {_excerpt(raw.encode(errors='replace'))}"


def _finished(slot: _Slot, call_id: str) -> ToolCall:
    arguments, error = parse_arguments(slot.arguments)
    return ToolCall(call_id, slot.name.strip(), arguments, error=error)


def _parses(arguments: str) -> bool:
    if not arguments.rstrip().endswith("}"):
        return False
    try:
        json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _text_of(content: object) -> str:
    """Content that is null, or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _usage(usage: object) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _excerpt(data: bytes) -> str:
    text = data.decode(errors="replace")
    return text if len(text) <= 120 else text[:120] + "…"
