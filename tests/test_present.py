"""What readers who come in the middle are told, and that nothing of it is missing or said twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.chat import present as module
from org.chat.present import Present, Tail
from org.events import (
    Asked,
    CallFinished,
    CallOutput,
    CallStarted,
    Delta,
    Event,
    Invited,
    SoFar,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from org.serve import stream as stream_module
from org.tooling import ToolCall, ToolResult
from test_serve_stream import Log, read

CALL = ToolCall("c1", "sh", {"cmd": "ls"})


async def test_who_comes_in_the_middle_is_told_what_was_said_of_each_turn() -> None:
    log = Log()
    with log.stream.reader(0):
        for event in (
            TurnStarted("ann", 1, "m"),
            TurnStarted("bob", 2, "n"),
            Delta("I th", participant="ann"),
            Delta("hm", "reasoning", "bob"),
            Delta("ink", participant="ann"),
        ):
            log.stream.take(event)
        with log.stream.reader(0) as late:
            assert read(late.take()) == [
                (0, SoFar("ann", 1, "m", "I think")),
                (0, SoFar("bob", 2, "n", "", "hm")),
            ]
            log.stream.take(Delta(" so", participant="ann"))
            log.commit(Stopped("quiet"))
            assert read(late.take()) == [(0, Delta(" so", participant="ann")), (1, Stopped("quiet"))]


async def test_what_was_committed_is_not_told_again() -> None:
    log = Log()
    log.stream.take(TurnStarted("ann", 1))
    log.stream.take(Delta("let me look", participant="ann"))
    log.commit(Stepped("ann", 1, "let me look", (CALL,)))
    log.stream.take(CallStarted("ann", CALL))
    log.stream.take(CallOutput("ann", "c1", "a file"))
    with log.stream.reader(1) as reader:
        assert read(reader.take()) == [(0, SoFar("ann", 1, call=CALL, output="a file"))]
    log.commit(CallFinished("ann", 1, CALL, ToolResult("c1", "a file")))
    with log.stream.reader(1) as reader:
        assert [event for _, event in read(reader.take())][1:] == [SoFar("ann", 1)]
    log.commit(TurnEnded("ann", 1, "answered"))
    with log.stream.reader(3) as reader:
        assert reader.take() == b""


async def test_a_question_stays_until_it_is_decided() -> None:
    log = Log()
    question = Asked("q1", "ann", "sh", {"cmd": "ls"})
    log.stream.take(question)
    with log.stream.reader(0) as reader:
        assert read(reader.take()) == [(0, question)]
    log.commit(CallFinished("bob", 1, CALL, ToolResult("c1", "")))
    with log.stream.reader(1) as reader:
        assert read(reader.take()) == [(0, question)]
    log.commit(CallFinished("ann", 1, CALL, ToolResult("c1", "")))
    with log.stream.reader(2) as reader:
        assert reader.take() == b""


def test_who_was_told_can_tell_others() -> None:
    """What goes on here goes on for those who are told of it, when they take in what they were told."""
    here, there = Present(), Present()
    before: tuple[Event, ...] = (
        TurnStarted("ann", 1, "m"),
        Delta("I th", participant="ann"),
        Delta("hm", "reasoning", "ann"),
        CallStarted("ann", CALL),
        CallOutput("ann", "c1", "a file"),
        Asked("q1", "bob", "sh", {"cmd": "ls"}),
    )
    after: tuple[Event, ...] = (
        Delta("ink", participant="ann"),
        CallOutput("ann", "c1", "s"),
        Stopped("quiet"),
    )
    for event in before:
        here.take(event)
    for told in here.events():
        there.take(told)
    for event in after:
        assert there.events() == here.events() != []
        here.take(event)
        there.take(event)
    assert there.events() == here.events() == []


def test_of_a_long_text_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    tail = Tail()
    for number in range(50):
        tail.add(f"{number:02}")
        assert len(str(tail)) <= 10
    assert str(tail) == "…" + "".join(f"{number:02}" for number in range(50))[-9:]
    tail.clear()
    tail.add("short")
    assert str(tail) == "short"


@dataclass
class Told:
    """What somebody shows of each turn who was told these events: text, thoughts, output."""

    turns: dict[str, list[str]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        match event:
            case TurnStarted(name):
                self.turns[name] = ["", "", ""]
            case SoFar(name):
                self.turns[name] = [event.text, event.reasoning, event.output]
            case Delta(text, kind, name):
                self._of(name)[kind == "reasoning"] += text
            case Stepped(name):
                self._of(name)[:2] = "", ""
            case CallStarted(name) | CallFinished(name):
                self._of(name)[2] = ""
            case CallOutput(name, _, text):
                self._of(name)[2] += text
            case TurnEnded(name):
                self.turns.pop(name, None)
            case _:
                pass

    def _of(self, name: str) -> list[str]:
        return self.turns.setdefault(name, ["", "", ""])


EVENTS: tuple[Callable[[str, str], Event], ...] = (
    lambda name, text: Delta(text, "text", name),
    lambda name, text: Delta(text, "reasoning", name),
    lambda name, text: CallStarted(name, CALL),
    lambda name, text: CallOutput(name, "c1", text),
    lambda name, text: CallFinished(name, 1, CALL, ToolResult("c1", text)),
    lambda name, text: Stepped(name, 1, text),
    lambda name, text: TurnEnded(name, 1, "answered"),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "say", "read", "join", "leave", "pause"]),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, len(EVENTS) - 1),
        st.text("abc\ud83d", max_size=40),
    ),
    max_size=80,
)


@given(STEPS)
def test_whoever_joins_whenever_sees_all_that_is_said(steps: list[tuple[str, str, int, str]]) -> None:
    """Also who reads so seldom that it loses what passes."""

    async def check() -> None:
        log, truth = Log(), Told()
        committed = tuple(stream_module._COMMITTED)

        def happen(event: Event) -> None:
            truth.take(event)
            if isinstance(event, committed):
                log.commit(event)  # type: ignore[arg-type]
            else:
                log.stream.take(event)

        contexts = []
        for what, name, number, text in steps:
            if what == "say":
                if name not in truth.turns:
                    happen(Invited(name, 1, ()))
                    happen(TurnStarted(name, 1, "m"))
                happen(EVENTS[number](name, text))
            elif what == "join":
                context = log.stream.reader(min(number, len(log.events)))
                contexts.append((context, context.__enter__(), Told({n: ["?"] * 3 for n in ("ann", "bob")})))
            elif what == "leave" and contexts:
                contexts.pop(number % len(contexts))[0].__exit__(None, None, None)
            elif what == "read" and contexts:
                _, reader, told = contexts[number % len(contexts)]
                for _, event in read(reader.take()):
                    if event is not None:
                        told.take(event)
            elif what == "pause":
                log.stream._flush_and_wake()
        log.stream._flush_and_wake()
        for context, reader, told in contexts:
            while data := reader.take():
                for _, event in read(data):
                    if event is not None:
                        told.take(event)
            assert {n: told.turns[n] for n in truth.turns} == truth.turns
            context.__exit__(None, None, None)

    kept = stream_module.LIVE_BYTES
    stream_module.LIVE_BYTES = 400
    try:
        asyncio.run(check())
    finally:
        stream_module.LIVE_BYTES = kept
