"""Traces by OpenTelemetry's conventions for generative AI, when its API is installed (`org[otel]`).

One trace for a turn: the agent that was invoked, and in it its completions and tool calls. What was
said goes into no trace, and where traces go is set the way OpenTelemetry does, by its own environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from org.events import CallFinished, Event, Invited, Stepped, TurnEnded, TurnStarted

SYSTEM = "org"


Span: TypeAlias = Any
"""A span of OpenTelemetry, of which `set_attribute` and `end` are used."""

Begin = Callable[[str, dict[str, Any], int, Span | None], Span]
"""Begins a span: (name, attributes, Unix time in nanoseconds, the span around it)."""


@dataclass(slots=True)
class _Turn:
    span: Span
    model: str
    since: int  # when its newest step or call was over


class Traces:
    """An observer of one room that makes spans of what it sees."""

    def __init__(self, room: str, begin: Begin, clock: Callable[[], int] = time.time_ns) -> None:
        self._room = room
        self._begin = begin
        self._clock = clock
        self._turns: dict[str, _Turn] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Invited():
                self._invited(event)
            case TurnStarted():
                self._started(event)
            case Stepped():
                self._stepped(event)
            case CallFinished():
                self._called(event)
            case TurnEnded():
                self._ended(event)
            case _:
                pass

    def _invited(self, event: Invited) -> None:
        now = self._clock()
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": SYSTEM,
            "gen_ai.agent.name": event.participant,
            "gen_ai.conversation.id": self._room,
        }
        span = self._begin(f"invoke_agent {event.participant}", attributes, now, None)
        self._turns[event.participant] = _Turn(span, "", now)

    def _started(self, event: TurnStarted) -> None:
        if turn := self._turns.get(event.participant):
            turn.model = event.model
            turn.span.set_attribute("gen_ai.request.model", event.model)

    def _stepped(self, event: Stepped) -> None:
        attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": SYSTEM}
        if event.usage is not None:
            attributes["gen_ai.usage.input_tokens"] = event.usage.prompt
            attributes["gen_ai.usage.output_tokens"] = event.usage.completion
        if event.finish:
            attributes["gen_ai.response.finish_reasons"] = [event.finish]
        if turn := self._turns.get(event.participant):
            attributes["gen_ai.request.model"] = turn.model
            self._add(turn, f"chat {turn.model}".strip(), attributes)

    def _called(self, event: CallFinished) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.call.name,
            "gen_ai.tool.call.id": event.call.id,
        }
        if event.result.error is not None:
            attributes["error.type"] = event.result.error.kind
        if turn := self._turns.get(event.participant):
            self._add(turn, f"execute_tool {event.call.name}", attributes)

    def _ended(self, event: TurnEnded) -> None:
        if turn := self._turns.pop(event.participant, None):
            turn.span.set_attribute("org.turn.status", event.status)
            if event.status == "failed":
                turn.span.set_attribute("error.type", "turn_failed")
            turn.span.end(self._clock())

    def _add(self, turn: _Turn, name: str, attributes: dict[str, Any]) -> None:
        """A span from where the one before it ended until now."""
        now = self._clock()
        self._begin(name, attributes, turn.since, turn.span).end(now)
        turn.since = now


def traces() -> Callable[[str], Traces] | None:
    """What makes an observer for a room; None where OpenTelemetry is not installed."""
    if importlib.util.find_spec("opentelemetry") is None:
        return None
    api = importlib.import_module("opentelemetry.trace")
    tracer = api.get_tracer("org")

    def begin(name: str, attributes: dict[str, Any], at: int, around: Span | None) -> Span:
        context = None if around is None else api.set_span_in_context(around)
        span: Span = tracer.start_span(name, context, attributes=attributes, start_time=at)
        return span

    return lambda room: Traces(room, begin)
