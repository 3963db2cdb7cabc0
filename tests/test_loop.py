from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from org.chat.guards import HINT
from org.chat.loop import NUDGE_CUT, NUDGE_LAST, NUDGES_EMPTY, Approval
from org.chat.room import Limits, Room
from org.errors import SandboxGone, StreamBroken
from org.events import (
    CallFinished,
    CallOutput,
    CallStarted,
    Delta,
    Event,
    Notice,
    Nudged,
    Stepped,
    Stopped,
    TurnEnded,
)
from org.messages import Completion
from org.ports import Participant
from org.tooling import Tool, ToolCall, ToolError, ToolResult, ToolSpec
from room_kit import EMBEDDED, Answer, Broken, call, calling, endings, model_of, participant, posts, tool

A, B = call("sh", "aaaaaaaaa", cmd="one"), call("sh", "bbbbbbbbb", cmd="two")


async def exchange(
    *participants: Participant, say: str = "go", limits: Limits | None = None
) -> tuple[Stopped, list[Event]]:
    """Why an exchange stopped, and all that was shown of it."""
    events: list[Event] = []
    async with Room(participants=participants, limits=limits) as room:
        room.observe(events.append)
        return await room.say("me", say), events


def results(events: Sequence[Event]) -> list[ToolResult]:
    return [event.result for event in events if isinstance(event, CallFinished)]


def kinds(events: Sequence[Event]) -> list[str]:
    return [result.error.kind if result.error else "ok" for result in results(events)]


def nudges(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Nudged)]


def shown(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.kind == "text")


async def test_calls_run_in_order_and_their_results_come_back() -> None:
    ran: list[str] = []

    def run(made: ToolCall) -> str:
        ran.append(made.arguments["cmd"])
        return f"result of {made.arguments['cmd']}"

    embedded = call("sh", "ccccccccc", EMBEDDED, cmd="three")
    answers: list[Answer] = [calling(A, B, embedded, text="I look.\n@me wait\n@group so"), "All done."]
    coder = participant("coder", *answers, tools=[tool(run=run)])
    stopped, events = await exchange(coder)
    assert stopped.reason == "quiet"
    assert ran == ["one", "two", "three"]
    assert posts(events) == [
        ("me", "group", "go"),
        ("coder", "group", "I look."),
        ("coder", "direct:me", "wait"),
        ("coder", "group", "so"),
        ("coder", "group", "All done."),
    ]
    last = model_of(coder).prompts[-1]
    assert [entry.role for entry in last] == ["system", "user", "assistant", "tool", "tool", "tool"]
    assert last[2].calls == (A, B, embedded)
    assert [(e.call_id, e.content) for e in last[3:]] == [
        ("aaaaaaaaa", "result of one"),
        ("bbbbbbbbb", "result of two"),
        ("ccccccccc", "result of three"),
    ]
    order = [type(e) for e in events if isinstance(e, CallStarted | CallOutput | CallFinished)]
    assert order == [CallStarted, CallOutput, CallFinished] * 3
    assert shown(events).startswith("I look.") and shown(events).endswith("All done.")


async def test_calls_that_cannot_run_are_answered() -> None:
    broken = ToolCall("ddddddddd", "sh", {}, error="not a JSON object: {'cmd'")
    unknown = call("rm_rf", "eeeeeeeee")
    failing = call("python_run", "fffffffff", code="1/0")
    tools = [tool(), tool("python_run", lambda _: ToolError("failed", "exit code 1"))]
    coder = participant("coder", calling(unknown, broken, failing, A), "I see.", tools=tools)
    _, events = await exchange(coder)
    assert kinds(events) == ["unknown_tool", "bad_arguments", "failed", "ok"]
    texts = [entry.content for entry in model_of(coder).prompts[-1] if entry.role == "tool"]
    assert "there are: sh, python_run" in texts[0]
    assert "not a JSON object" in texts[1]
    assert "exit code 1" in texts[2]


@pytest.mark.parametrize(
    ("policy", "embedded", "answer", "kind"),
    [
        ("run", "run", None, "ok"),
        ("off", "run", True, "denied"),
        ("ask", "run", True, "ok"),
        ("ask", "run", False, "denied"),
        ("ask", "run", None, "unattended"),
        ("run", "ask", True, "ok"),
        ("run", "ask", False, "denied"),
        ("run", "ask", None, "unattended"),
        ("run", "off", True, "denied"),
    ],
)
async def test_policies(policy: str, embedded: Any, answer: bool | None, kind: str) -> None:
    asked: list[tuple[str, ToolCall]] = []

    async def ask(name: str, made: ToolCall) -> bool:
        asked.append((name, made))
        return bool(answer)

    approval = Approval(ask if answer is not None else None, embedded)
    written = call("sh", "ccccccccc", EMBEDDED, cmd="x")
    coder = participant("coder", calling(written), "Well.", tools=[tool(policy=policy)], approval=approval)
    stopped, events = await exchange(coder)
    assert kinds(events) == [kind]
    assert asked == (
        [("coder", written)]
        if answer is not None and "ask" in (policy, embedded) and "off" not in (policy, embedded)
        else []
    )
    assert stopped.reason == ("denied" if kind == "unattended" else "quiet")


async def test_the_policy_for_calls_in_text_leaves_declared_ones_alone() -> None:
    coder = participant("coder", calling(A), "Well.", tools=[tool()], approval=Approval(None, "off"))
    assert kinds((await exchange(coder))[1]) == ["ok"]


async def test_a_repeated_call_gets_a_hint_then_no_run_then_no_more_calls() -> None:
    ran = 0

    def run(_: ToolCall) -> str:
        nonlocal ran
        ran += 1
        return "same"

    coder = participant("coder", *[calling(A)] * 3, calling(B), "I give up.", tools=[tool(run=run)])
    stopped, events = await exchange(coder)
    assert stopped.reason == "quiet"
    assert ran == 2
    assert kinds(events) == ["ok", "ok", "repeated", "repeated"]
    assert [HINT in result.output for result in results(events)] == [False, True, False, False]
    assert posts(events)[-1] == ("coder", "group", "I give up.")


async def test_a_model_that_only_calls_ends_with_an_error() -> None:
    coder = participant("coder", *[calling(A)] * 50, tools=[tool()])
    stopped, _ = await exchange(coder)
    assert stopped.reason == "failed" and "only called tools" in stopped.detail
    assert len(model_of(coder).prompts) <= 7


async def test_a_call_that_was_cut_off_is_asked_for_again() -> None:
    cut = Completion("Writing it.", finish="length", incomplete=True)
    coder = participant("coder", cut, "Too long for me.", tools=[tool()])
    _, events = await exchange(coder)
    assert nudges(events) == [NUDGE_CUT]
    assert [text for _, _, text in posts(events)] == ["go", "Writing it.", "Too long for me."]


async def test_a_call_that_is_cut_off_again_fails_the_turn() -> None:
    cut = Completion("Writing it.", finish="length", incomplete=True)
    coder = participant("coder", cut, replace(cut, text="And again."), "Never asked.", tools=[tool()])
    stopped, events = await exchange(coder)
    assert stopped.reason == "failed"
    assert nudges(events) == [NUDGE_CUT]
    assert [text for _, _, text in posts(events)] == ["go", "Writing it.", "And again."]


async def test_the_whole_calls_of_an_answer_that_was_cut_run_and_the_rest_is_asked_for() -> None:
    coder = participant("coder", Completion("", (A,), incomplete=True), "Done.", tools=[tool()])
    _, events = await exchange(coder)
    assert kinds(events) == ["ok"]
    assert nudges(events) == [NUDGE_CUT]
    assert [e.role for e in model_of(coder).prompts[-1]] == ["system", "user", "assistant", "tool", "user"]


async def test_an_empty_answer_is_asked_for_twice_and_then_an_error() -> None:
    empty = Completion("", reasoning="Let me see. " * 30 + "I never came to an end", finish="length")
    coder = participant("coder", *[empty] * 5)
    stopped, events = await exchange(coder)
    assert nudges(events) == list(NUDGES_EMPTY)
    assert len(model_of(coder).prompts) == 3
    (ended,) = [event for event in events if isinstance(event, TurnEnded)]
    assert ended.status == "failed"
    assert "finish: length" in ended.detail and ended.detail.endswith("I never came to an end")
    assert stopped.reason == "failed"


async def test_an_empty_answer_may_recover() -> None:
    coder = participant("coder", " \n", "Here I am.")
    _, events = await exchange(coder)
    assert nudges(events) == [NUDGES_EMPTY[0]]
    assert posts(events)[-1][2] == "Here I am."


async def test_the_last_step_is_for_words() -> None:
    steps = [calling(call("sh", f"{n:09}", cmd=str(n))) for n in range(3)]
    coder = participant("coder", *steps[:2], "What I found.", tools=[tool()], steps=3)
    _, events = await exchange(coder)
    assert nudges(events) == [NUDGE_LAST]
    assert posts(events)[-1][2] == "What I found."


async def test_calls_on_the_last_step_are_not_run_and_its_words_count() -> None:
    calls = [calling(call("sh", f"{n:09}", cmd=str(n)), text=f"Try {n}.") for n in range(3)]
    coder = participant("coder", *calls, tools=[tool()], steps=3)
    _, events = await exchange(coder)
    assert kinds(events) == ["ok", "ok", "denied"]
    assert posts(events)[-1][2] == "Try 2."
    assert endings(events) == [("coder", "answered")]


async def test_steps_without_a_word_end_with_an_error() -> None:
    calls = [calling(call("sh", f"{n:09}", cmd=str(n))) for n in range(9)]
    coder = participant("coder", *calls, tools=[tool()], steps=3)
    stopped, _ = await exchange(coder)
    assert stopped.reason == "failed"
    assert len(model_of(coder).prompts) == 3


async def test_the_sandbox_that_is_gone_fails_the_turn_and_is_in_the_journal() -> None:
    async def gone(made: ToolCall, on_output: object) -> ToolResult:
        raise SandboxGone("the machine does not answer")

    place = Tool(ToolSpec("sh", "", {}), gone)
    coder = participant("coder", calling(A, B), "never", tools=[place])
    stopped, events = await exchange(coder, participant("guide", "@me Still here."))
    assert kinds(events) == ["sandbox_gone"]
    assert endings(events) == [("coder", "failed"), ("guide", "answered")]
    assert stopped.reason == "failed" and "does not answer" in stopped.detail


async def test_a_model_that_fails_fails_its_turn() -> None:
    coder = participant("coder", StreamBroken("it broke", "look at the log"))
    stopped, events = await exchange(coder)
    assert endings(events) == [("coder", "failed")]
    assert Notice("coder's turn failed: it broke", "look at the log", "coder") in events
    assert stopped.reason == "failed"


async def test_what_was_said_before_a_stream_broke_is_kept_and_seen() -> None:
    """Like the words before an interrupt; that the turn failed is still said."""
    coder = participant("coder", Broken("The answer is 4", StreamBroken("it broke")), "Two.")
    silent = participant("silent", Broken("PASS", StreamBroken("it broke too")))
    async with Room(participants=[coder, silent]) as room:
        events: list[Event] = []
        room.observe(events.append)
        stopped = await room.say("me", "@coder go")
        assert stopped.reason == "failed" and "2 of 2 turns failed" in stopped.detail
        assert ("coder", "group", "The answer is 4") in posts(events)
        assert Notice("coder's turn failed: it broke", "", "coder") in events
        ended = next(e for e in events if isinstance(e, TurnEnded) and e.participant == "coder")
        assert (ended.status, ended.text) == ("failed", "The answer is 4")
        await room.say("me", "@coder again")
        assert model_of(coder).prompts[1][2].content == "The answer is 4 [failed]"
        assert endings(events)[:2] == [("coder", "failed"), ("silent", "failed")]
        assert not [text for sender, _, text in posts(events) if sender == "silent"]


async def test_a_bug_in_a_tool_surfaces() -> None:
    def run(_: ToolCall) -> str:
        raise ZeroDivisionError

    coder = participant("coder", calling(A), tools=[tool(run=run)])
    with pytest.raises(ZeroDivisionError):
        await exchange(coder)


async def test_only_the_answer_of_an_answering_profile_is_heard() -> None:
    calc = participant(
        "calc",
        calling(A, text="I will compute.\n@me one moment\n@group go"),
        calling(B, text="And again."),
        "It is 4.",
        tools=[tool()],
        profile="python",
    )
    _, events = await exchange(calc)
    assert [(a, t) for s, a, t in posts(events) if s == "calc"] == [
        ("direct:me", "one moment"),
        ("group", "go"),
        ("group", "It is 4."),
    ]


async def test_pass_beside_a_call_is_not_said() -> None:
    coder = participant("coder", calling(A, text="PASS"), "PASS", tools=[tool()])
    stopped, events = await exchange(coder)
    assert kinds(events) == ["ok"]
    assert endings(events) == [("coder", "passed")]
    assert stopped.reason == "passed"
    assert shown(events) == ""


async def test_it_speaks_as_itself_only() -> None:
    coder = participant("coder", "coder: I think so.\nme: Great!\ncoder: Thanks.")
    _, events = await exchange(coder)
    assert posts(events)[-1] == ("coder", "group", "I think so.")
    assert shown(events) == "I think so.\n"
    assert [e.text for e in events if isinstance(e, Stepped)] == ["I think so."]
    assert any(isinstance(e, Notice) and "in the name of me" in e.text for e in events)


async def test_an_answer_that_was_cut_by_length_is_posted_with_a_notice() -> None:
    _, events = await exchange(participant("coder", Completion("half a", finish="length")))
    assert posts(events)[-1][2] == "half a"
    assert any(isinstance(e, Notice) and "max_tokens" in e.text for e in events)


async def test_reasoning_is_shown_to_people_and_in_no_prompt() -> None:
    coder = participant("coder", Completion("Yes.", reasoning="secret thought"), "Still yes.")
    async with Room(participants=[coder]) as room:
        await room.say("me", "one")
        await room.say("me", "two")
    assert "secret thought" not in str(model_of(coder).prompts)


async def test_an_interrupt_during_a_tool_stops_it_and_says_so_to_the_model() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def sleep(made: ToolCall, on_output: object) -> ToolResult:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    place = Tool(ToolSpec("sh", "", {}), sleep)
    coder = participant("coder", calling(A, B, text="Working."), "Later.", tools=[place])
    guide = participant("guide", "Hello.")
    async with Room(participants=[coder, guide]) as room:
        events: list[Event] = []
        room.observe(events.append)
        saying = asyncio.create_task(room.say("me", "go"))
        await started.wait()
        assert room.interrupt()
        assert (await saying).reason == "interrupted"
        assert stopped.is_set()
        assert kinds(events) == ["interrupted"]
        assert endings(events) == [("coder", "interrupted")]
        assert not model_of(guide).prompts
        await room.say("me", "and now?")
    entries = model_of(coder).prompts[1]
    assert [entry.role for entry in entries] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert "a person stopped it" in entries[3].content


async def test_a_call_that_the_seconds_cut_says_so() -> None:
    async def run(made: ToolCall, _: object) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    slow = Tool(ToolSpec("sh", "waits", {"type": "object", "properties": {}}), run)
    stopped, events = await exchange(
        participant("coder", calling(A), tools=[slow]), limits=Limits(seconds=0.05)
    )
    assert stopped.reason == "seconds"
    assert kinds(events) == ["timeout"]
    error = results(events)[0].error
    assert error and "time for this exchange" in error.message and "person" not in error.message


async def test_an_interrupt_while_a_person_is_asked_answers_the_call() -> None:
    asked = asyncio.Event()

    async def ask(name: str, made: ToolCall) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    coder = participant("coder", calling(A), tools=[tool(policy="ask")], approval=Approval(ask))
    async with Room(participants=[coder]) as room:
        saying = asyncio.create_task(room.say("me", "go"))
        await asked.wait()
        room.interrupt()
        assert (await saying).reason == "interrupted"
        assert kinds(room.events) == ["interrupted"]
