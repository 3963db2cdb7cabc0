from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from org.chat.context import Estimate
from org.chat.participant import Sampling
from org.chat.room import Limits, Room
from org.errors import ContextExceeded, StreamBroken
from org.events import CallFinished, Compacted, Event, Notice, TurnEnded
from org.llm.wire import EncodedView
from org.messages import ChatRequest, Completion, Usage, View
from org.tooling import ToolCall
from room_kit import Answer, Model, call, calling, endings, model_of, participant, posts, tool

NO_LIMITS = Limits(0, 0, 0, 0, 0)


def compactions(room: Room) -> list[Compacted]:
    return [event for event in room.events if isinstance(event, Compacted)]


def is_summary(request: ChatRequest) -> bool:
    return "Summarise the conversation so far" in list(request.view)[-1].content


def talk(length: int, summary: str | StreamBroken = "They talked.") -> Model:
    """A model that always has something to say, and sums up when it is asked to."""
    model = Model(usage=True)

    def answer(request: ChatRequest) -> str | StreamBroken:
        model.answers.append(answer)
        return summary if is_summary(request) else f"{len(model.prompts)} {'word ' * (length // 5)}"

    model.answers.append(answer)
    return model


async def test_each_prompt_begins_with_the_whole_one_before_it() -> None:
    """Byte for byte as sent, through tools, nudges and silence, until a compaction starts afresh."""
    answers: list[Answer] = [
        "Hello.",
        calling(call("sh", "aaaaaaaaa", cmd="ls"), text="Looking."),
        *("Found it.", "", "PASS"),
        calling(call("nope", "bbbbbbbbb"), call("sh", "ccccccccc", cmd="ls")),
        "Well.",
    ]
    coder = participant("coder", *answers, tools=[tool()])
    guide = participant("guide", *[f"I say {n}" for n in range(4)], "PASS")
    async with Room(participants=[coder, guide], limits=NO_LIMITS) as room:
        for text in ("one", "@coder two", "three", "@guide four"):
            await room.say("me", text)
    for one in (coder, guide):
        sent = [EncodedView().of(View(prompt)) for prompt in model_of(one).prompts]
        assert len(sent) >= 4
        for before, after in pairwise(sent):
            assert after.startswith(before) and len(after) > len(before)
        assert len({tuple(spec.name for spec in r.tools) for r in model_of(one).requests}) == 1


async def test_compaction_is_one_big_step_and_the_prefix_is_stable_between() -> None:
    model = talk(600)
    coder = participant("coder", model=model, context_tokens=4000, max_tokens=500)
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        for n in range(40):
            await room.say("me", f"question {n} " + "about it " * 30)
        done = compactions(room)
    assert 2 <= len(done) <= 8
    assert all(event.summary == "They talked." for event in done)
    asked = [
        prompt
        for prompt, request in zip(model.prompts, model.requests, strict=True)
        if not is_summary(request)
    ]
    broken = sum(after[: len(before)] != before for before, after in pairwise(asked))
    assert broken == len(done)
    assert (
        max(sum(entry.size for entry in prompt) / 4 for prompt in asked) <= coder.sampling.prompt_budget * 1.3
    )
    for event, before in zip(done, [p for p in model.prompts if "Summarise" in p[-1].content], strict=True):
        assert len(before) == 1 and event.dropped >= 4
    after = next(
        p for p in asked if len(p) > 1 and "The conversation up to here was left out" in p[1].content
    )
    assert [entry.role for entry in after[:4]] == ["system", "user", "assistant", "user"]
    assert after[0].content == "You are coder."


async def test_a_summary_that_fails_leaves_a_marker() -> None:
    model = talk(600, StreamBroken("no"))
    coder = participant("coder", model=model, context_tokens=3000, max_tokens=500)
    events: list[Event] = []
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        room.observe(events.append)
        for n in range(20):
            await room.say("me", f"question {n} " + "about it " * 30)
        assert compactions(room) and not any(event.summary for event in compactions(room))
        told = [e.text for e in events if isinstance(e, Notice)]
        assert len(told) == len(compactions(room)) and all("without a summary" in text for text in told)
        assert not [e for e in room.events if isinstance(e, TurnEnded) and e.status != "answered"]
    assert any("no summary could be made" in str(prompt) for prompt in model.prompts)


async def test_a_long_turn_of_many_steps_is_compacted_within() -> None:
    """Calls keep their results, and what the turn is about stays, summary or not."""
    model = Model(usage=True)
    number = 0

    def answer(request: ChatRequest) -> Completion | StreamBroken:
        nonlocal number
        number += 1
        model.answers.append(answer)
        if is_summary(request):
            return StreamBroken("no")
        if number > 30:
            return Completion("Finished.")
        return calling(call("sh", f"{number:09}", cmd=f"step {number}"))

    model.answers.append(answer)

    def run(made: ToolCall) -> str:
        return f"{made.arguments['cmd']}: " + "output " * 100

    coder = participant(
        "coder", model=model, tools=[tool(run=run)], context_tokens=3000, max_tokens=500, steps=50
    )
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        stopped = await room.say("me", "find the needle")
        assert compactions(room)
    assert stopped.reason == "quiet"
    for prompt, request in zip(model.prompts, model.requests, strict=True):
        if is_summary(request):
            continue
        assert "find the needle" in str(prompt)
        made = {c.id for entry in prompt for c in entry.calls}
        assert {entry.call_id for entry in prompt if entry.role == "tool"} == made
        assert all(not (a.role == b.role != "tool") for a, b in pairwise(prompt))


async def test_an_entry_that_is_longer_than_all_ends_in_an_answer_or_an_error() -> None:
    def answer(request: ChatRequest) -> str | ContextExceeded:
        if sum(entry.size for entry in request.view) > 1000:
            return ContextExceeded("too long: 99999 tokens")
        return "Fine."

    coder = participant("coder", model=Model([answer] * 50), context_tokens=2000, max_tokens=500)
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        assert (await room.say("me", "x" * 40_000)).reason == "failed"
        assert (await room.say("me", "short")).reason == "quiet"
        assert endings(room.events) == [("coder", "failed"), ("coder", "answered")]
        assert len(compactions(room)) == 1
    assert len(model_of(coder).prompts) <= 5


async def test_a_prompt_that_the_server_refuses_is_compacted_and_sent_again() -> None:
    model = Model(["one " * 300, "two " * 300, ContextExceeded("too long"), "A summary.", "three"])
    coder = participant("coder", model=model, context_tokens=100_000)
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        for text in "abc":
            await room.say("me", text)
        assert len(compactions(room)) == 1
        assert posts(room.events)[-1] == ("coder", "group", "three")


async def test_a_view_that_stays_too_long_is_not_compacted_at_every_step() -> None:
    coder = participant(
        "coder",
        *["word " * 20] * 30,
        system="S" * 9000,
        context_tokens=2000,
        max_tokens=500,
    )
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        for n in range(20):
            await room.say("me", f"{n}")
        assert len(compactions(room)) <= 4


async def test_tokens_of_a_summary_count() -> None:
    model = talk(600)
    coder = participant("coder", model=model, context_tokens=3000, max_tokens=500)
    total = 0
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        while not compactions(room):
            await room.say("me", "question " + "about it " * 30)
        total = room.usage.prompt
    assert total > sum(entry.size for entry in model.prompts[-1]) // 4


async def test_silent_truncation_is_said_once() -> None:
    def answer(request: ChatRequest) -> Completion:
        size = sum(entry.size for entry in request.view)
        return Completion("word " * 100, usage=Usage(min(size // 4, 2051), 1))

    coder = participant("coder", *[answer] * 40, context_tokens=1_000_000)
    events: list[Event] = []
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        room.observe(events.append)
        for n in range(20):
            await room.say("me", f"{n} " + "about it " * 40)
    warnings = [e for e in events if isinstance(e, Notice) and "dropped a part of the prompt" in e.text]
    assert len(warnings) == 1 and "OLLAMA_CONTEXT_LENGTH" in warnings[0].hint


async def test_no_warning_from_a_server_that_reads_all() -> None:
    model = talk(500)
    coder = participant("coder", model=model, context_tokens=4000, max_tokens=500, tools=[tool()])
    events: list[Event] = []
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        room.observe(events.append)
        for n in range(40):
            await room.say("me", f"{n} " + "about it " * 40)
    assert any(isinstance(e, Compacted) for e in events)
    assert not [e for e in events if isinstance(e, Notice) and "dropped a part" in e.text]


async def test_no_warning_when_another_model_counts_otherwise() -> None:
    def answer(request: ChatRequest) -> Completion:
        size = sum(entry.size for entry in request.view)
        return Completion("word " * 100, usage=Usage(size // (3 if request.model == "one" else 5), 1))

    coder = participant("coder", *[answer] * 6, model_name="one", context_tokens=1_000_000)
    events: list[Event] = []
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        room.observe(events.append)
        for n in range(6):
            if n == 3:
                coder.introduction = replace(coder.introduction, model="two")
            await room.say("me", f"{n} " + "about it " * 40)
    assert not [e for e in events if isinstance(e, Notice) and "dropped a part" in e.text]


async def test_compacting_by_hand_between_exchanges() -> None:
    coder = participant("coder", *["word " * 200] * 3, "A summary.", "Yes.")
    async with Room(participants=[coder]) as room:
        assert not await coder.compact(room.aside("coder"))
        for n in range(3):
            await room.say("me", f"{n}")
        assert await coder.compact(room.aside("coder"))
        assert [event.summary for event in compactions(room)] == ["A summary."]
        await room.say("me", "still there?")
    assert "A summary." in model_of(coder).prompts[-1][1].content


def test_the_budget_of_a_prompt() -> None:
    assert Sampling(max_tokens=2048, context_tokens=8192).prompt_budget == 6144
    assert Sampling(max_tokens=8192, context_tokens=8192).prompt_budget == 4096
    assert Sampling(max_tokens=100, context_tokens=10).prompt_budget == 512


# -- the size of one entry


@pytest.mark.parametrize("size", [16_417, 54_000, 2_400_000])
async def test_what_a_participant_sees_fits_whatever_one_entry_holds(size: int) -> None:
    """A message, a result, several of each; and the same prompts when the room is gone on with."""
    calls = [call("sh", f"{n:09}", cmd=f"cat {n}") for n in range(4)]
    coder = participant(
        "coder",
        *(calling(calls[0]), calling(*calls[1:]), "Long.", "Long again.", "Short."),
        tools=[tool(run=lambda made: f"first{'x' * size}last")],
        context_tokens=4096,
    )
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        await room.say("me", f"begin{'y' * size}end")
        await room.post("me", f"one{'z' * size}")
        await room.post("me", f"two{'z' * size}")
        await room.answer()
        assert {status for _, status in endings(room.events)} == {"answered"}
    for prompt in model_of(coder).prompts:
        characters = sum(entry.size for entry in prompt)
        assert characters * Estimate.PER_CHARACTER <= coder.sampling.prompt_budget
        if "Summarise the conversation so far" not in prompt[-1].content:
            assert all(len(entry.content) <= coder.sampling.entry_limit + 100 for entry in prompt)
    result = model_of(coder).prompts[1][-1].content
    assert result.startswith("first") and result.endswith("last") and "characters left out" in result
    assert f"first{'x' * size}last" in [e.result.output for e in room.events if isinstance(e, CallFinished)]

    again = participant("coder", "Yes.", context_tokens=4096)
    async with Room(participants=[again], limits=NO_LIMITS, history=room.events) as resumed:
        before = room.state.members["coder"].memory
        after = resumed.state.members["coder"].memory
        assert before and after and list(before.view) == list(after.view)


async def test_the_limit_is_the_one_of_the_turn_not_of_the_one_who_reads_the_journal_later() -> None:
    small = participant("coder", "Yes.", context_tokens=2048)
    async with Room(participants=[small], limits=NO_LIMITS) as room:
        await room.say("me", "x" * 9000)
    large = participant("coder", "Yes.", context_tokens=65_536)
    async with Room(participants=[large], limits=NO_LIMITS, history=room.events) as resumed:
        await resumed.say("me", "y" * 9000)
    sent = model_of(large).prompts[0]
    assert sent[:2] == model_of(small).prompts[0]
    assert sent[-1].content == "me: " + "y" * 9000


async def test_the_limit_follows_the_context_that_a_server_tells_later() -> None:
    coder = participant("coder", "Yes.", "Yes.", context_tokens=2048)
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        await room.say("me", "x" * 9000)
        coder.sampling = Sampling(context_tokens=65_536)
        await room.say("me", "y" * 9000)
    assert "left out" in model_of(coder).prompts[0][-1].content
    assert model_of(coder).prompts[1][-1].content == "me: " + "y" * 9000


async def test_answers_end_where_it_is_asked_for_and_summaries_do_not() -> None:
    model = talk(600)
    coder = participant("coder", model=model, context_tokens=4000, max_tokens=500)
    coder.sampling = replace(coder.sampling, stop=("\n\n",), seed=7)
    async with Room(participants=[coder], limits=NO_LIMITS) as room:
        for n in range(20):
            await room.say("me", f"question {n} " + "about it " * 30)
    assert {(is_summary(request), request.stop) for request in model.requests} == {
        (True, ()),
        (False, ("\n\n",)),
    }
    assert {request.seed for request in model.requests} == {7}
