"""Traces of a room, told to a recorder in place of OpenTelemetry."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from org.events import CallFinished, Delta, Event, Invited, Stepped, TurnEnded, TurnStarted
from org.messages import Usage
from org.serve import otel
from org.serve.otel import Span, Traces
from org.tooling import ToolCall, ToolError, ToolResult


@dataclass
class Recorded:
    name: str
    attributes: dict[str, Any]
    begun: int
    around: Any
    ended: int | None = None

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def end(self, end_time: int | None = None) -> None:
        assert self.ended is None
        self.ended = end_time


@dataclass
class Recorder:
    spans: list[Recorded] = field(default_factory=list)

    def begin(self, name: str, attributes: dict[str, Any], at: int, around: Span | None) -> Span:
        self.spans.append(Recorded(name, attributes, at, around))
        return self.spans[-1]


def told(*events: Event) -> list[Recorded]:
    recorder, clock = Recorder(), itertools.count(100)
    observe = Traces("main", recorder.begin, lambda: next(clock))
    for event in events:
        observe(event)
    return recorder.spans


def test_a_turn_is_one_trace() -> None:
    call = ToolCall("c1", "sh", {"cmd": "a secret"})
    agent, first, tool, second = told(
        Invited("coder", 1, (1,)),
        TurnStarted("coder", 1, "qwen3:8b"),
        Delta("a secret", participant="coder"),
        Stepped("coder", 1, "a secret", (call,), Usage(100, 20), "tool_calls"),
        CallFinished("coder", 1, call, ToolResult("c1", "a secret", ToolError("timeout", "too long"))),
        Stepped("coder", 1, "done", usage=Usage(150, 5)),
        TurnEnded("coder", 1, "answered", 1.5),
    )
    assert [span.name for span in (agent, first, tool, second)] == [
        "invoke_agent coder",
        "chat qwen3:8b",
        "execute_tool sh",
        "chat qwen3:8b",
    ]
    assert agent.attributes["gen_ai.conversation.id"] == "main"
    assert agent.attributes["gen_ai.request.model"] == "qwen3:8b"
    assert agent.attributes["org.turn.status"] == "answered"
    assert first.attributes["gen_ai.usage.input_tokens"] == 100
    assert first.attributes["gen_ai.usage.output_tokens"] == 20
    assert first.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert tool.attributes["error.type"] == "timeout"
    assert all(span.around is agent for span in (first, tool, second))
    times = [(agent.begun, agent.ended), (first.begun, first.ended), (tool.begun, tool.ended)]
    assert times == [(100, 104), (100, 101), (101, 102)]
    assert "a secret" not in str([span.attributes for span in (agent, first, tool, second)])


def test_a_turn_that_fails_is_an_error() -> None:
    (span,) = told(Invited("x", 1, ()), TurnEnded("x", 1, "failed"))
    assert span.attributes["error.type"] == "turn_failed"


def test_what_belongs_to_no_turn_is_passed_over() -> None:
    call = ToolCall("c1", "sh", {})
    assert (
        told(
            TurnStarted("x", 1, "m"),
            Stepped("x", 1, ""),
            CallFinished("x", 1, call, ToolResult("c1", "")),
            TurnEnded("x", 1, "passed"),
        )
        == []
    )


def test_without_opentelemetry_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert otel.traces() is None


def test_opentelemetry_is_asked_as_its_api_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of the same signatures: `get_tracer`, `start_span`, `set_span_in_context`."""
    spans: list[Recorded] = []

    class Tracer:
        def start_span(
            self, name: str, context: Any = None, *, attributes: dict[str, Any], start_time: int
        ) -> Recorded:
            spans.append(Recorded(name, attributes, start_time, context))
            return spans[-1]

    package, api = ModuleType("opentelemetry"), ModuleType("opentelemetry.trace")
    api.get_tracer = lambda name: Tracer()  # type: ignore[attr-defined]
    api.set_span_in_context = lambda span: ("in", span)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
    make = otel.traces()
    assert make is not None
    observe = make("main")
    observe(Invited("x", 1, ()))
    observe(Stepped("x", 1, ""))
    assert [span.around for span in spans] == [None, ("in", spans[0])]
