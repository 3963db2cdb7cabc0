"""The stream: text in, visible text out, calls at the end. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from org.llm.extract.result import Extraction, Incomplete
from org.tooling import Origin, ToolCall

_OPEN = re.compile(r'<tool_call>\s*(?=\{)|\{\s*(?="tool_calls"\s*:)|"tool_calls"\s*:\s*(?=\[)')
_HINT = re.compile(r'[<{"]')
_MARKERS = ("<tool_call>", '{"tool_calls"', '"tool_calls"')


def extract_tool_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> Extraction:
    """The calls in `text` to any of `tools` (OpenAI tool schemas), and the text without them."""
    stream = ToolCallStream(tools)
    shown = stream.feed(text)
    found = stream.finish()
    return Extraction(found.calls, found.content, found.incomplete, shown + found.tail, found.refused)


class ToolCallStream:
    """`feed` chunks of a text, then `finish`. `tools` are OpenAI tool schemas."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._names = {str(tool.get("function", tool).get("name", "")) for tool in tools}
        self._held = ""
        self._shown: list[str] = []
        self._start = 0

    def feed(self, chunk: str) -> str:
        """Take the next piece of the text; return what may be shown now."""
        text = self._held + chunk
        hint = _HINT.search(text) if self._names else None
        while hint is not None:
            rest = text[hint.start() :]
            if _OPEN.match(rest) or any(
                marker.startswith(rest) or rest.startswith(marker) for marker in _MARKERS
            ):
                break
            hint = _HINT.search(text, hint.end())
        cut = hint.start() if hint else len(text)
        self._held = text[cut:]
        self._start += cut
        if cut:
            self._shown.append(text[:cut])
        return text[:cut]

    def finish(self) -> Extraction:
        """The calls of everything that was fed."""
        text, visible, at = self._held, [], 0
        calls: list[ToolCall] = []
        incomplete: list[Incomplete] = []
        for opening in _OPEN.finditer(text) if self._names else ():
            if opening.start() < at:
                continue
            hermes = opening.group().startswith("<")
            try:
                payload, end = json.JSONDecoder(strict=False).raw_decode(
                    text, opening.start() if opening.group().startswith("{") else opening.end()
                )
            except ValueError:
                span = (self._start + opening.start(), self._start + len(text))
                incomplete.append(Incomplete("", "hermes" if hermes else "openai", span))
                visible.append(text[at : opening.start()])
                at = len(text)
                break
            if hermes and (close := re.compile(r"\s*</tool_call>").match(text, end)):
                end = close.end()
            span = (self._start + opening.start(), self._start + end)
            found = self._calls(payload, Origin("embedded", "hermes" if hermes else "openai", span))
            if found:
                calls += found
                visible.append(text[at : opening.start()])
                at = end
        visible.append(text[at:])
        tail = "".join(visible)
        return Extraction(tuple(calls), "".join(self._shown) + tail, tuple(incomplete), tail)

    def _calls(self, payload: Any, origin: Origin) -> list[ToolCall]:
        if isinstance(payload, dict):
            payload = payload.get("tool_calls", [payload])
        found = []
        for item in payload if isinstance(payload, list) else []:
            call = item.get("function", item) if isinstance(item, dict) else {}
            name, arguments = call.get("name"), call.get("arguments", call.get("parameters", {}))
            if isinstance(arguments, str):
                try:
                    arguments = json.loads(arguments, strict=False)
                except ValueError:
                    continue
            if name in self._names and isinstance(arguments, dict):
                found.append(ToolCall("", name, arguments, origin))
        return found
