from __future__ import annotations

import pytest

from org.chat.exchange import Exchange, Limits
from org.errors import UsageError
from org.events import CallFinished, Committed, Posted, Stepped, Stopped, StopReason, TurnEnded
from org.messages import EVERYONE, Message, Usage
from org.tooling import ToolCall, ToolError, ToolResult

CALL = ToolCall("c", "sh", {})


def said(text: str, sender: str = "ann") -> Posted:
    return Posted(Message(1, sender, "model", EVERYONE, text, 0.0))


def account(*events: Committed, limits: Limits | None = None, turns: int = 1) -> Exchange:
    exchange = Exchange(limits or Limits())
    exchange.turns = turns
    for event in events:
        exchange.note(event)
    return exchange


def test_why_it_is_over() -> None:
    unattended = ToolResult("c", "", ToolError("unattended", "nobody is there"))
    cases: list[tuple[StopReason, list[Committed]]] = [
        ("quiet", [said("hello")]),
        ("passed", [TurnEnded("ann", 1, "passed")]),
        ("failed", [said("hello"), TurnEnded("ann", 1, "failed", detail="it broke")]),
        ("denied", [CallFinished("ann", 1, CALL, unattended), TurnEnded("ann", 1, "failed")]),
    ]
    for reason, events in cases:
        assert account(*events).stopped().reason == reason
    assert account(turns=0).stopped() == Stopped("quiet")
    assert account(cases[2][1][1], turns=3).stopped().detail == "1 of 3 turns failed; the last: it broke"


@pytest.mark.parametrize("name", ["turns", "seconds", "tokens", "tools", "repeats"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_limit_is_nothing_or_more(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"not a limit of {name}: `{value}`"):
        Limits(**{name: value})  # type: ignore[arg-type]
    assert getattr(Limits(**{name: 0}), name) == 0


def test_each_limit_says_its_numbers() -> None:
    step = Stepped("ann", 1, "", usage=Usage(900, 100))
    call = CallFinished("ann", 1, CALL, ToolResult("c", ""))
    cases: list[tuple[StopReason, Limits, list[Committed], str]] = [
        ("turns", Limits(turns=2), [], "2 of 2 turns"),
        ("tokens", Limits(tokens=1000), [step], "1,000 of 1,000 tokens"),
        ("tools", Limits(tools=2), [call, call], "2 of 2 tool calls"),
        ("seconds", Limits(seconds=1e-9), [], "0 of 1e-09 s"),
    ]
    for reason, limits, events, detail in cases:
        exchange = account(*events, limits=limits, turns=2)
        exchange.halt = exchange.full()
        assert exchange.stopped() == Stopped(reason, detail)


@pytest.mark.parametrize("halt", ["turns", "stagnation", "interrupted", "tokens"])
def test_the_last_turns_come_to_their_end_all_else_ends_them(halt: StopReason) -> None:
    exchange = account()
    exchange.halt = halt
    assert exchange.spent() == (None if halt == "turns" else halt)


def test_no_limits() -> None:
    exchange = account(
        Stepped("ann", 1, "", usage=Usage(10**9, 10**9)), limits=Limits(0, 0, 0, 0, 0), turns=10**6
    )
    for _ in range(50):
        exchange.note(said("again"))
    assert exchange.full() is None and exchange.halt is None


def test_circles_are_noticed() -> None:
    assert account(*[said("the same report")] * 3).stopped().reason == "stagnation"
