"""Deltas to a completion. Pure.

Decides by what is there, not by what `finish_reason` claims: `stop` comes with tool calls on some
servers, several calls share one index on others, and an error may arrive inside a stream that
began with HTTP 200. Nothing in an event is trusted to have the type it should have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from org.errors import ServerRefused, StreamBroken
from org.messages import Usage
from org.tooling import ToolCall

DEPTH_LIMIT = 100
"""Levels of nesting in a call's arguments; deeper ones could not be walked, copied or kept safely."""
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


class _Slot:
    """A declared call while its pieces come in."""

    __slots__ = ("id", "name", "pieces")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


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

        The two may hold halves of surrogate pairs; see `whole`. Raises `ServerRefused` for an error
        event, `StreamBroken` for what is not JSON.
        """
        if self.done or payload == b"[DONE]":
            self.done = True
            return "", ""
        try:
            event = parse_json(payload)
        except ValueError:
            return self._feed_lines(payload)
        if event.__class__ is not dict:
            raise StreamBroken(f"the server sent an event that is no object: `{_excerpt(payload)}`")
        if error := event.get("error"):
            raise ServerRefused(
                f"the model server reported an error: {error_message(error) or 'without a message'}"
            )
        if usage := event.get("usage"):
            self.usage = _usage(usage) or self.usage
        if event.get("model") == "":
            self.swallowed = True
        choices = event.get("choices")
        if choices.__class__ is list:
            for choice in choices:
                if choice.__class__ is dict and not choice.get("index"):  # one answer was asked for
                    return self._choice(choice)
        return "", ""

    def calls(self, new_id: Callable[[], str]) -> tuple[ToolCall, ...]:
        """The declared calls, in the order in which they began, under ids of our own."""
        return tuple(_finished(slot, new_id()) for slot in self._slots if slot.name or slot.pieces)

    def _feed_lines(self, payload: bytes) -> tuple[str, str]:
        """Events that a server put on consecutive lines, without the blank line between them."""
        lines = payload.split(b"\n")
        if len(lines) == 1:
            raise StreamBroken(f"the server sent an event that is not JSON: `{_excerpt(payload)}`")
        pieces = [self.feed(line) for line in lines if line]
        return "".join(p[0] for p in pieces), "".join(p[1] for p in pieces)

    def _choice(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        finish = choice.get("finish_reason")
        if finish and finish.__class__ is str:
            self.finish = whole(finish)
        delta = choice.get("delta") or choice.get("message")
        if delta.__class__ is not dict:
            return "", ""
        if declared := delta.get("tool_calls"):
            for piece in declared if isinstance(declared, list) else [declared]:
                if isinstance(piece, dict):
                    self._stitch(piece)
        if legacy := delta.get("function_call"):
            self._stitch({"index": 0, "function": legacy})
        content = delta.get("content")
        if content.__class__ is not str:
            content = _text_of(content)
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if reasoning.__class__ is not str:
            reasoning = _text_of(reasoning)
        return content, reasoning

    def _stitch(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        if not isinstance(function, dict):
            function = {}
        name = _string(function.get("name"))
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        call_id = _string(piece.get("id"))
        index = piece.get("index")
        slot = self._slot_for(index if isinstance(index, int) else None, call_id, name, arguments)
        if slot is None:
            slot = _Slot(call_id, name)
            self._slots.append(slot)
        elif name and name != slot.name:
            slot.name += name  # a name that came in pieces
        elif name and arguments and _parses(slot):
            arguments = ""  # the whole call once more, as it closes
        if isinstance(index, int):
            self._by_index[index] = slot
        slot.id = slot.id or call_id
        if arguments:
            slot.pieces.append(arguments)

    def _slot_for(self, index: int | None, call_id: str, name: str, arguments: str) -> _Slot | None:
        """The call that a piece goes on with, or None when it begins a new one."""
        if index is None:
            same_id = next((s for s in reversed(self._slots) if call_id and s.id == call_id), None)
            slot = same_id or (self._slots[-1] if self._slots and not call_id and not name else None)
        else:
            slot = self._by_index.get(index)
        if slot is None:
            return None
        if call_id and slot.id and call_id != slot.id:
            # Another id is another call; without a name, some servers only number their pieces.
            return None if name or not slot.pieces or _parses(slot) else slot
        if name and slot.name and slot.pieces and (name != slot.name or _parses(slot)):
            # A call after one that is whole, unless it is that one named again as it closes.
            again = name == slot.name and (not arguments or (bool(call_id) and arguments == slot.arguments))
            return slot if again else None
        return slot


def parse_json(data: bytes) -> Any:
    """The JSON value in `data`. Raises `ValueError`, for nesting too deep to read as well.

    Takes what models make servers send: raw control characters in strings, bytes that are no UTF-8.
    """
    try:
        return _decode(data.decode(errors="replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


_decode = json.JSONDecoder(strict=False).decode


def whole(text: str) -> str:
    """The text without halves of surrogate pairs, which no UTF-8 can hold; two halves are joined."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class PairJoiner:
    """Makes streamed text `whole`, also where a pair was cut between two pieces."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        if not self._half and text.isascii():
            return text
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return whole(text.removesuffix(self._half))

    def finish(self) -> str:
        half, self._half = self._half, ""
        return whole(half)


def error_message(body: object, depth: int = 4) -> str:
    """The message of an error body, in any of the shapes that servers use; empty when there is none."""
    if isinstance(body, str):
        return whole(body).strip()
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict) or not depth:
        return ""
    for key in ("error", "message", "detail", "msg"):
        if message := error_message(body.get(key), depth - 1):
            return message
    return ""


def parse_arguments(raw: str) -> tuple[dict[str, Any], str]:
    """(arguments, error): the JSON object that `raw` holds, unwrapped when it was encoded twice."""
    value: Any = whole(raw)
    if not value.strip():
        return {}, ""
    try:
        for _ in range(3):
            if isinstance(value, str):
                value = _decode_arguments(value)
        if _HALF_ESCAPED.search(raw):
            value = _decode_arguments(whole(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        return {}, f"the arguments are not JSON ({error}): {_excerpt(raw.encode(errors='replace'))}"
    if not isinstance(value, dict):
        return {}, f"the arguments are not a JSON object: {_excerpt(raw.encode(errors='replace'))}"
    if _deeper_than(DEPTH_LIMIT, value):
        return {}, f"the arguments are nested more than {DEPTH_LIMIT} levels deep"
    return value, ""


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no JSON number")
    return value


# Numbers that JSON does not have are refused here: they could never be sent back in a history.
_decode_arguments = json.JSONDecoder(strict=False, parse_float=_finite, parse_constant=_finite).decode


def _deeper_than(limit: int, value: object) -> bool:
    level = [value]
    for _ in range(limit):
        branches = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [child for branch in branches for child in branch]
    return bool(level)


def _finished(slot: _Slot, call_id: str) -> ToolCall:
    arguments, error = parse_arguments(slot.arguments)
    return ToolCall(call_id, slot.name.strip(), arguments, error=error)


def _parses(slot: _Slot) -> bool:
    """Whether the arguments are whole."""
    if not slot.pieces or not slot.pieces[-1].rstrip().endswith("}"):
        return False
    return not parse_arguments(slot.arguments)[1]


def _string(value: object) -> str:
    return whole(str(value)) if isinstance(value, str | int) else ""


def _text_of(content: object) -> str:
    """Content that is null, or a list of parts."""
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(part for part in parts if isinstance(part, str))


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
