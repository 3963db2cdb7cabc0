from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from org.chat.participant import ModelParticipant
from org.chat.room import Limits, Room, Schedule
from org.chat.state import State
from org.errors import JournalError, SandboxGone, UsageError
from org.events import (
    CallFinished,
    Committed,
    Compacted,
    Delta,
    Event,
    Invited,
    Joined,
    Left,
    Notice,
    Passing,
    Posted,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from org.messages import Audience, ChatRequest, Completion, Message, Usage
from org.ports import Participant, Turn
from org.tooling import Tool, ToolCall, ToolResult, ToolSpec
from room_kit import (
    Answer,
    Echo,
    Files,
    Memo,
    Model,
    call,
    calling,
    endings,
    model_of,
    participant,
    posts,
    tool,
)

ENDLESS = Limits(0, 0, 0, 0, 0)


def invited(room: Room) -> list[str]:
    return [event.participant for event in room.events if isinstance(event, Invited)]


async def others() -> set[asyncio.Task[Any]]:
    """The tasks that are left once all that is done has been cleared away."""
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    return asyncio.all_tasks() - {asyncio.current_task()}


# -- who is invited, and when


async def test_everyone_answers_in_the_order_of_the_roster() -> None:
    people = [participant(name, f"{name} here") for name in ("ann", "bob", "eve")]
    async with Room(participants=people) as room:
        stopped = await room.say("me", "hello")
        assert stopped == Stopped("quiet")
        assert [who for who, _, _ in posts(room.events)] == ["me", "ann", "bob", "eve"]
        assert invited(room) == ["ann", "bob", "eve", "ann", "bob"]  # and then the first two hear the rest


async def test_one_invitation_for_all_that_is_unread() -> None:
    ann, bob = participant("ann", "one\n@bob two\n@group three", "PASS"), participant("bob", "PASS")
    async with Room(participants=[ann, bob]) as room:
        await room.say("me", "hello")
        causes = [event.causes for event in room.events if isinstance(event, Invited)]
    assert causes == [(1,), (1, 2, 3, 4)]
    assert (
        model_of(bob).prompts[0][-1].content
        == "me: hello\n\nann: one\n\nann (only to you): two\n\nann: three"
    )


async def test_each_exchange_begins_with_the_first_of_the_roster() -> None:
    async with Room(participants=[participant(n, "PASS", "PASS") for n in ("ann", "bob", "eve")]) as room:
        await room.say("me", "@ann hi")
        await room.say("me", "all")
        assert invited(room) == ["ann", "ann", "bob", "eve"]


async def test_silence_is_an_answer() -> None:
    async with Room(participants=[participant("ann", "PASS"), participant("bob", "*PASS*")]) as room:
        events: list[Event] = []
        room.observe(events.append)
        assert (await room.say("me", "hello")).reason == "passed"
        assert endings(events) == [("ann", "passed"), ("bob", "passed")]
        assert posts(events) == [("me", "group", "hello")]
        assert not [event for event in events if isinstance(event, Delta)]


async def test_only_who_is_addressed_answers_when_mention_is_asked_for() -> None:
    ann, bob = participant("ann", "@bob and you?", "PASS"), participant("bob", "all fine, thanks")
    async with Room(participants=[ann, bob], schedule=Schedule("mention")) as room:
        events: list[Event] = []
        room.observe(events.append)
        assert (await room.say("me", "hello all")).reason == "quiet"
        assert invited(room) == []
        told = [event for event in events if isinstance(event, Notice)]
        assert told == [
            Notice("nobody was addressed; policy `mention` waits for a name", "begin with `@ann`")
        ]
        await room.say("me", "@ann hello")
        assert invited(room) == ["ann", "bob"]
        assert [event for event in events if isinstance(event, Notice)] == told
    assert "hello all" in model_of(ann).prompts[0][-1].content  # heard all the same


async def test_what_the_room_announces_is_no_reason_to_speak() -> None:
    ann = participant("ann", "PASS")
    async with Room(participants=[ann]) as room:
        await room.invite(participant("bob"))
        assert (await room.run()).reason == "quiet"
        assert invited(room) == []
        await room.say("me", "@ann hi")
        assert invited(room) == ["ann"]
    assert "[room] bob has joined" in model_of(ann).prompts[0][-1].content


async def test_parallel_turns_keep_to_both_limits() -> None:
    models = [Model(), Model()]
    for model in models:
        model.answers = ["@me one"] * 6
    crowd = [participant(f"p{n}", model=models[n % 2], model_name=f"m{n % 2}") for n in range(12)]
    async with Room(participants=crowd, schedule=Schedule("parallel", parallel=3, per_model=2)) as room:
        await room.say("me", "hello")
        running = most = 0
        for event in room.events:
            running += isinstance(event, Invited) - isinstance(event, TurnEnded)
            most = max(most, running)
        assert most == 3
        assert [model.most for model in models] == [2, 2] or sorted(m.most for m in models) == [1, 2]
        assert sorted(invited(room)) == sorted(one.introduction.name for one in crowd)


async def test_parallel_turns_of_one_model_are_grouped() -> None:
    crowd = [participant(f"p{n}", "@me yes", model_name=f"m{n % 2}") for n in range(8)]
    async with Room(participants=crowd, schedule=Schedule("parallel", parallel=1)) as room:
        await room.say("me", "hello")
        models = [f"m{int(name[1:]) % 2}" for name in invited(room)]
    assert models == ["m0"] * 4 + ["m1"] * 4


async def test_a_group_that_chats_does_not_keep_others_waiting() -> None:
    """Two of one model have always something new for each other; the third is asked all the same."""
    chat = [
        participant(f"p{n}", *[f"@p{1 - n} {k} and {n}" for k in range(40)], model_name="m") for n in (0, 1)
    ]
    last = participant("zoe", "@me hello", model_name="other")
    limits = Limits(turns=20)
    async with Room(
        participants=[*chat, last], limits=limits, schedule=Schedule("parallel", parallel=1)
    ) as room:
        await room.say("me", "hello")
        assert "zoe" in invited(room)[:3]


async def test_in_parallel_a_message_invites_at_once() -> None:
    """It does not wait for a turn that takes long to be over."""
    gate = asyncio.Event()
    slow, quick = Model(["slow"], gate), participant("quick", "@me here")
    long = participant("long", model=slow)
    async with Room(participants=[long, quick], schedule=Schedule("parallel")) as room:
        posted = asyncio.Event()
        room.observe(
            lambda e: posted.set() if isinstance(e, Posted) and e.message.sender == "quick" else None
        )
        first = asyncio.create_task(room.say("me", "@long think"))
        await slow.started.wait()
        second = asyncio.create_task(room.say("me", "@quick hello"))
        await posted.wait()
        assert not first.done()
        gate.set()
        assert await first is await second


# -- who sees what

MARK = re.compile(r"<(\d+)>")


class Watch:
    """Gives every message a mark of its own, and follows where each mark turns up."""

    def __init__(self) -> None:
        self.number = 0
        self.seen: dict[str, set[int]] = {}
        self.owed: dict[str, set[int]] = {}  # what the newest invitation of each must have shown it
        self.room: Room | None = None

    def mark(self) -> str:
        self.number += 1
        return f"<{self.number}>"

    def speaker(self, name: str, script: list[str]) -> ModelParticipant:
        """Says what the script holds, with a mark for each `?`; `mode: X` calls a tool that sets it."""
        seen = self.seen.setdefault(name, set())

        def answer(request: ChatRequest) -> Completion:
            model.answers.append(answer)
            now = {int(mark) for entry in request.view for mark in MARK.findall(entry.content)}
            seen.update(now)
            if "Summarise" in list(request.view)[-1].content:
                return Completion("summed up")
            assert self.owed[name] <= now
            text = script.pop(0) if script else "PASS"
            usage = Usage(sum(e.size for e in request.view) // 3, 1)
            if text.startswith("mode: "):
                made = call("chat_mode", self.mark(), mode=text.removeprefix("mode: "))
                return Completion(f"now {self.mark()}", (made,), usage=usage)
            return Completion(re.sub(r"\?", lambda _: self.mark(), text), usage=usage)

        async def run(made: ToolCall, on_output: object) -> ToolResult:
            assert self.room
            await self.room.set_mode(name, made.arguments["mode"])
            return ToolResult(made.id, f"{name} alone sees this")

        model = Model([answer])
        change = Tool(ToolSpec("chat_mode", "", {}), run)
        return participant(name, model=model, tools=[change], context_tokens=1100, max_tokens=500)


HEADS = [
    "",
    "@ann ",
    "@bob ",
    "@eve ",
    "@me ",
    "@ann @bob ",
    "@group ",
    "#file:a.txt ",
    "#file:../x ",
    "@anne ",
    "@bobb ",
    "@eves ",
]
REPLIES = st.lists(st.sampled_from(HEADS), min_size=1, max_size=3).map(
    lambda h: "\n".join(f"{x}? words" for x in h)
)
MODES = st.sampled_from(["group", "direct:me", "file:b.txt"])
SCRIPTS = st.lists(st.one_of(REPLIES, st.just("PASS"), REPLIES, MODES.map("mode: {}".format)), max_size=5)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), REPLIES),
        st.tuples(st.just("interrupt"), st.integers(1, 40)),
        st.tuples(st.just("say"), REPLIES.map(lambda text: text + " long" * 300)),
        st.tuples(
            st.just("mode"),
            st.tuples(
                st.sampled_from(["ann", "bob", "eve", "me"]),
                st.sampled_from(["group", "direct:me", "direct:ann", "direct:bob", "file:b.txt"]),
            ),
        ),
        st.tuples(st.sampled_from(["kick", "invite"]), st.sampled_from(["ann", "bob", "eve"])),
        st.tuples(st.sampled_from(["resume", "clear", "undo"]), st.just("")),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ACTIONS,
    st.lists(SCRIPTS, min_size=3, max_size=3),
    st.sampled_from(["in-turn", "parallel", "mention"]),
    st.booleans(),
)
def test_a_message_is_seen_by_exactly_its_audience(
    actions: list[tuple[str, Any]], scripts: list[list[str]], policy: Any, slow: bool
) -> None:
    asyncio.run(_exactly(actions, scripts, policy, slow))


async def _exactly(actions: list[tuple[str, Any]], scripts: list[list[str]], policy: Any, slow: bool) -> None:
    watch = Watch()
    crowd = {
        name: watch.speaker(name, script) for name, script in zip(("ann", "bob", "eve"), scripts, strict=True)
    }
    here = dict(crowd)
    journal = Memo()
    told: dict[int, set[str]] = {}  # mark -> the models that were in its audience when it was posted

    def note(event: Event) -> None:
        if isinstance(event, Invited):
            known = {message.id: message.content for message in room.transcript}
            shown = "".join(known[cause] for cause in event.causes)
            watch.owed[event.participant] = {int(mark) for mark in MARK.findall(shown)}
        elif isinstance(event, Compacted):
            watch.owed[event.participant] = set()
        if isinstance(event, Posted):
            message = event.message
            present = {n for n, m in room.state.members.items() if m.memory and message.audience.includes(n)}
            for mark in MARK.findall(message.content):
                told.setdefault(int(mark), set()).update(present | {message.sender})

    def open_room() -> Room:
        made = Room(
            participants=here.values(),
            journal=journal if slow else None,
            files=Files(),
            limits=Limits(turns=12, repeats=0),
            schedule=Schedule(policy),
            history=history,
        )
        made.observe(note)
        watch.room = made
        return made

    history: list[Committed] = []
    room = open_room()
    await room.__aenter__()
    for action, value in actions:
        try:
            if action == "say":
                await room.say("me", re.sub(r"\?", lambda _: watch.mark(), value))
            elif action == "interrupt":
                saying = asyncio.create_task(room.say("me", f"{watch.mark()} words"))
                for _ in range(value):
                    await asyncio.sleep(0)
                room.interrupt()
                await saying
            elif action == "mode":
                await room.set_mode(*value)
            elif action == "kick":
                await room.kick(value)
                del here[value]
            elif action == "invite":
                await room.invite(crowd[value])
                here[value] = crowd[value]
            elif action == "resume":
                await room.__aexit__(None, None, None)
                history = list(room.events)
                assert not slow or journal.events == history
                room = open_room()
                await room.__aenter__()
            elif action == "clear":
                await room.clear()
            else:
                await room.undo()
        except UsageError:
            pass
    await room.__aexit__(None, None, None)
    for name, marks in watch.seen.items():
        # What a model said itself it sees again, delivered or not.
        own = {m for m in marks if m not in told}
        heard = {m for m, names in told.items() if name in names}
        assert marks - own <= heard, (name, marks - own - heard)
        assert all(_by(room, name, m) for m in own), (name, own)
    messages = {e.message.id: e.message for e in room.events if isinstance(e, Posted)}
    assert len(messages) == sum(isinstance(event, Posted) for event in room.events)
    for name in crowd:
        others_results = [f"{other} alone sees this" for other in crowd if other != name]
        assert not any(text in str(model_of(crowd[name]).prompts) for text in others_results)
    for event in room.events:
        if isinstance(event, Invited):
            assert all(messages[cause].audience.includes(event.participant) for cause in event.causes)


def _by(room: Room, name: str, mark: int) -> bool:
    """Whether these are words of its own, refused ones included."""
    text = f"<{mark}>"
    return any(getattr(e, "participant", "") == name and text in getattr(e, "text", "") for e in room.events)


async def test_private_words_reach_only_their_addressee() -> None:
    ann = participant("ann", "@bob the code is 4711\n@codr the code is 4712", "PASS")
    bob, coder = participant("bob", "PASS"), participant("coder", "PASS")
    async with Room(participants=[ann, bob, coder], files=Files()) as room:
        await room.say("me", "hello")
        await room.say("me", "@ann #file:x no")
    assert "4711" in str(model_of(bob).prompts)
    assert "4711" not in str(model_of(coder).prompts)
    assert "4712" not in str(model_of(bob).prompts) + str(model_of(coder).prompts)


async def test_a_near_miss_goes_back_to_its_author_once() -> None:
    ann = participant("ann", "@bobb secret", "@bobb secret", "@bobb secret")
    async with Room(participants=[ann, participant("bob")]) as room:
        events: list[Event] = []
        room.observe(events.append)
        await room.say("me", "@ann hello")
        assert invited(room) == ["ann", "ann"]
        assert model_of(ann).prompts[1][-1].content.startswith("[room] nobody is called `@bobb`")
        assert len([e for e in events if isinstance(e, Notice) and "bobb" in e.text]) == 2  # people see each
        assert posts(events) == [("me", "direct:ann", "hello")]


async def test_files_take_what_is_addressed_to_them() -> None:
    files = Files()
    ann = participant("ann", "#file:notes/a.txt one\ntwo\n@group done", "#file:../evil.txt x", "PASS")
    bob = participant("bob", "PASS", "PASS", "PASS")
    async with Room(participants=[ann, bob], files=files) as room:
        await room.say("me", "@ann go")
        await room.say("me", "@ann #not an address\n#file:notes/a.txt three")
        await room.say("me", "@ann again")
    assert files.written == {"notes/a.txt": "one\ntwo\nthree\n"}
    assert "one\ntwo" not in str(model_of(bob).prompts)
    assert "outside of the workspace" in model_of(ann).prompts[2][-1].content


@pytest.mark.parametrize("error", [SandboxGone("the machine is gone"), None])
async def test_a_file_that_cannot_be_written_is_said(error: SandboxGone | None) -> None:
    files = Files(error=error) if error else None
    ann = participant("ann", "#file:a.txt one", "PASS")
    async with Room(participants=[ann], files=files) as room:
        assert (await room.say("me", "hello")).reason in ("quiet", "passed")
        assert "nothing was written to `a.txt`" in model_of(ann).prompts[1][-1].content
        with pytest.raises(UsageError, match="nothing was written"):
            await room.say("me", "#file:b.txt mine")


async def test_modes_hold_until_they_change() -> None:
    ann = participant("ann", "one", "two\n@bob three", "four")
    async with Room(participants=[ann, participant("bob")]) as room:
        await room.set_mode("ann", "direct:me")
        await room.say("me", "@ann a")
        await room.set_mode("ann", "file:x.txt")
        await room.set_mode("me", "direct:ann")
        await room.say("me", "b")
        with pytest.raises(UsageError):
            await room.set_mode("ann", "direct:nobody")
        assert posts(room.events)[:4] == [
            ("me", "direct:ann", "a"),
            ("ann", "direct:me", "one"),
            ("me", "direct:ann", "b"),
            ("ann", "direct:bob", "three"),
        ]


async def test_words_for_one_who_left_are_not_widened() -> None:
    ann, bob, eve = participant("ann", "secret", "PASS"), participant("bob"), participant("eve", "PASS")
    async with Room(participants=[ann, bob, eve]) as room:
        await room.set_mode("ann", "direct:bob")
        await room.kick("bob")
        await room.say("me", "@ann hello")
        assert posts(room.events) == [("me", "direct:ann", "hello")]
        assert "bob left" in model_of(ann).prompts[1][-1].content


async def test_words_for_one_here_and_one_who_left_reach_the_one_who_is_here() -> None:
    ann, bob, eve = participant("ann", "@bob @eve secret", "PASS"), participant("bob"), participant("eve")
    async with Room(participants=[ann, bob, eve]) as room:
        await room.kick("bob")
        await room.say("me", "@ann hello")
        assert posts(room.events)[1:] == [("ann", "direct:eve", "secret")]
        assert "bob left" in model_of(ann).prompts[1][-1].content


async def test_a_mode_changed_by_a_tool_counts_for_the_rest_of_the_turn() -> None:
    async def run(made: ToolCall, on_output: object) -> ToolResult:
        await room.set_mode("ann", "direct:me")
        return ToolResult(made.id, "ok")

    change = Tool(ToolSpec("chat_mode", "", {}), run)
    ann = participant("ann", calling(call("chat_mode"), text="to all"), "to you", tools=[change])
    async with Room(participants=[ann, participant("bob")]) as room:
        await room.say("me", "@ann hello")
        assert posts(room.events)[1:3] == [("ann", "group", "to all"), ("ann", "direct:me", "to you")]


# -- when it is over


def chatter(name: str, other: str, **options: Any) -> Any:
    """One that always has something to say to another."""
    model = Model(**options)

    def answer(request: ChatRequest) -> str:
        model.answers.append(answer)
        return f"@{other} word {len(model.prompts)} of {name}"

    model.answers.append(answer)
    return participant(name, model=model)


async def test_too_many_turns() -> None:
    async with Room(
        participants=[chatter("ann", "bob"), chatter("bob", "ann")], limits=Limits(turns=5)
    ) as room:
        assert await room.say("me", "hello") == Stopped("turns", "5 of 5 turns")
        assert len(invited(room)) == 5
        assert {status for _, status in endings(room.events)} == {"answered"}


async def test_turns_that_run_at_the_last_one_come_to_their_end() -> None:
    steps: list[Answer] = [calling(call("sh", "aaaaaaaaa", cmd="a")), "@me done"]
    crowd = [participant(name, *steps, tools=[tool()]) for name in ("ann", "bob", "eve")]
    schedule = Schedule("parallel", parallel=3)
    async with Room(participants=crowd, limits=Limits(turns=2), schedule=schedule) as room:
        assert (await room.say("me", "hello")).reason == "turns"
        assert endings(room.events) == [("ann", "answered"), ("bob", "answered")]


async def test_a_limit_that_is_just_met_is_no_reason() -> None:
    async with Room(participants=[participant("ann", "hello")], limits=Limits(turns=1)) as room:
        assert (await room.say("me", "hi")).reason == "quiet"


async def test_too_many_tokens() -> None:
    crowd = [chatter("ann", "bob", usage=True), chatter("bob", "ann", usage=True)]
    async with Room(participants=crowd, limits=Limits(tokens=200)) as room:
        stopped = await room.say("me", "hello")
        assert stopped.reason == "tokens" and "of 200 tokens" in stopped.detail
        assert 200 <= room.usage.total <= 400


async def test_too_many_tool_calls_end_the_turn_and_the_room_goes_on() -> None:
    steps = [calling(call("sh", f"{n:09}", cmd=str(n))) for n in range(10)]
    ann = participant("ann", *steps, tools=[tool()])
    async with Room(participants=[ann], limits=Limits(tools=3)) as room:
        assert await room.say("me", "hello") == Stopped("tools", "3 of 3 tool calls")
        assert len([e for e in room.events if isinstance(e, CallFinished)]) == 3
        assert endings(room.events) == [("ann", "interrupted")]
        model_of(ann).answers = ["Fine."]
        assert (await room.say("me", "and?")).reason == "quiet"
    roles = [entry.role for entry in model_of(ann).prompts[-1]]
    assert roles[-3:] == ["tool", "assistant", "user"]


async def test_too_much_time_cuts_a_turn_and_keeps_what_was_said() -> None:
    ann = participant("ann", model=Model(["What I have so far and more"], asyncio.Event()))
    async with Room(participants=[ann], limits=Limits(seconds=0.05)) as room:
        stopped = await room.say("me", "hello")
        assert stopped.reason == "seconds" and stopped.detail.endswith("of 0.05 s")
        assert posts(room.events)[-1] == ("ann", "group", "What I have s")
        assert endings(room.events) == [("ann", "interrupted")]


async def test_going_round_in_circles() -> None:
    crowd = [participant(a, *["Thank you, that was a great help!"] * 20) for a in ("ann", "bob")]
    async with Room(participants=crowd) as room:
        assert (await room.say("me", "hello")).reason == "stagnation"
        assert len(invited(room)) == 4


async def test_a_turn_that_fails_is_said_and_the_room_goes_on() -> None:
    def broken(turn: Turn) -> str:
        raise UsageError("no idea what to do", "help me")

    async with Room(participants=[Echo("ann", broken), participant("bob", "@me I can.")]) as room:
        stopped = await room.say("me", "hello")
        assert stopped == Stopped("failed", "1 of 2 turns failed; the last: no idea what to do")
        assert endings(room.events) == [("ann", "failed"), ("bob", "answered")]
        assert (await room.say("me", "@bob again")).reason == "passed"


# -- participants of one's own


async def test_one_without_steps_sees_its_own_words() -> None:
    def answer(turn: Turn) -> str:
        assert [message.content for message in turn.causes] and turn.names == ("me", "ann")
        return f"I see {len(turn.view())}"

    async with Room(participants=[Echo("ann", answer)]) as room:
        await room.say("me", "one")
        await room.say("me", "two")
        assert [text for who, _, text in posts(room.events) if who == "ann"] == ["I see 2", "I see 4"]


async def test_a_bug_surfaces_and_leaves_nothing_behind() -> None:
    def bug(turn: Turn) -> str:
        raise ZeroDivisionError

    slow = Model(["never"], asyncio.Event())
    crowd: list[Participant] = [participant("ann", model=slow), Echo("bob", bug)]
    before = await others()
    async with Room(participants=crowd, schedule=Schedule("parallel")) as room:
        with pytest.raises(ZeroDivisionError):
            await room.say("me", "hello")
        assert slow.cancelled == 1
        assert await others() == before


async def test_an_observer_that_fails_is_a_bug() -> None:
    def observe(event: Event) -> None:
        if isinstance(event, TurnStarted):
            raise KeyError("shown")

    async with Room(participants=[participant("ann", "hello")]) as room:
        room.observe(observe)
        with pytest.raises(KeyError, match="shown"):
            await room.say("me", "hello")


async def test_observers_come_and_go() -> None:
    one: list[Event] = []
    two: list[Event] = []
    async with Room(participants=[participant("ann", "hello")]) as room:
        room.observe(one.append)

        def once(event: Event) -> None:
            two.append(event)
            end()

        end = room.observe(once)
        await room.say("me", "hello")
        assert len(two) == 1 and len(one) > 5
        end()
        kept = [e for e in one if not isinstance(e, Passing)]
        assert kept == room.events[2:]


# -- interrupting


async def test_an_interrupt_keeps_the_partial_reply_and_invites_nobody_else() -> None:
    slow = Model(["@bob half of a reply, and more of it"], asyncio.Event())
    ann, bob = participant("ann", model=slow), participant("bob", "PASS")
    async with Room(participants=[ann, bob]) as room:
        assert not room.interrupt()
        saying = asyncio.create_task(room.say("me", "hello"))
        await slow.started.wait()
        assert room.interrupt() and room.interrupt()
        assert await saying == Stopped("interrupted")
        assert posts(room.events)[-1] == ("ann", "direct:bob", "half of a rep")
        assert slow.cancelled == 1 and invited(room) == ["ann"]
        slow.gate = None
        slow.answers = ["Now whole."]
        assert (await room.say("me", "go on")).reason == "quiet"
    assert slow.prompts[1][2].content == "@bob half of a rep [interrupted]"
    assert "half of a rep" in str(model_of(bob).prompts)


async def test_a_reply_cut_within_an_address_is_not_sent_back() -> None:
    slow = Model(["@bobb secret here and there"], asyncio.Event())
    async with Room(participants=[participant("ann", model=slow), participant("bob")]) as room:
        saying = asyncio.create_task(room.say("me", "hello"))
        await slow.started.wait()
        room.interrupt()
        await saying
        assert posts(room.events) == [("me", "group", "hello")]
        assert not room.state.members["ann"].unread


async def test_an_interrupt_before_a_turn_has_begun() -> None:
    ann = participant("ann", "hello")
    async with Room(participants=[ann], journal=Memo()) as room:

        def observe(event: Event) -> None:
            if isinstance(event, Invited):
                room.interrupt()

        room.observe(observe)
        assert (await room.say("me", "hello")).reason == "interrupted"
        assert not model_of(ann).prompts
        assert endings(room.events) == [("ann", "interrupted")]


@pytest.mark.parametrize("moment", range(1, 60))
async def test_an_interrupt_at_any_moment_leaves_a_room_that_works(moment: int) -> None:
    """With a journal that takes its time, after any number of the loop's rounds."""
    journal = Memo()
    ann = participant("ann", calling(call("sh"), text="One moment."), "It is done.", tools=[tool()])
    bob = participant("bob", "I heard it.")
    async with Room(participants=[ann, bob], journal=journal) as room:
        saying = asyncio.create_task(room.say("me", "hello"))
        for _ in range(moment):
            await asyncio.sleep(0)
        known = room.interrupt()
        stopped = await saying
        assert stopped.reason == ("interrupted" if known else stopped.reason)
        assert len(invited(room)) == len(endings(room.events))
        assert journal.events == room.events
        contents = [text for who, _, text in posts(room.events) if who == "ann"]
        assert len(contents) == len(set(contents))
        steps = [event.text for event in room.events if isinstance(event, Stepped)]
        assert set(steps) <= {text for _, _, text in posts(room.events)} | {"PASS"}  # what was said is heard
        model_of(ann).answers = ["Here again."]
        model_of(bob).answers = []
        await room.say("me", "@ann still there?")
        assert ("ann", "group", "Here again.") in posts(room.events)
    view = model_of(ann).prompts[-1]
    said = [entry.content for entry in view if entry.role == "assistant" and entry.content == "It is done."]
    assert len(said) <= 1
    assert not [a for a, b in pairwise(view) if a.role == b.role == "user"]


async def test_what_is_said_while_it_runs_joins_in() -> None:
    gate = asyncio.Event()
    slow = Model(["first", "second"], gate)
    async with Room(participants=[participant("ann", model=slow)]) as room:
        one = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        two = asyncio.create_task(room.say("me", "two"))
        await asyncio.sleep(0)
        gate.set()
        assert await one is await two
        assert invited(room) == ["ann", "ann"]
        assert "two" in slow.prompts[1][-1].content


async def test_what_is_said_while_it_ends_is_answered_by_the_next() -> None:
    slow = Model(["half of it", "PASS", "PASS"], asyncio.Event())
    async with Room(participants=[participant("ann", model=slow)], journal=Memo()) as room:
        one = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        room.interrupt()
        slow.gate = None
        two = await room.say("me", "two")
        assert (await one).reason == "interrupted"
        assert two.reason == "passed"
        assert "two" in slow.prompts[-1][-1].content


@pytest.mark.parametrize("moment", range(40))
async def test_nothing_said_at_the_end_of_an_exchange_is_lost(moment: int) -> None:
    ann = participant("ann", "one", "two")
    async with Room(participants=[ann], journal=Memo()) as room:
        first = asyncio.create_task(room.say("me", "first"))
        for _ in range(moment):
            await asyncio.sleep(0)
        await room.say("me", "second")
        await first
        assert not room.state.members["ann"].unread
    assert "second" in str(model_of(ann).prompts)


async def test_giving_up_the_wait_does_not_stop_the_exchange() -> None:
    gate = asyncio.Event()
    slow = Model(["hello"], gate)
    async with Room(participants=[participant("ann", model=slow)], journal=Memo()) as room:
        saying = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        saying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saying
        gate.set()
        assert (await room.run()).reason == "quiet"
        assert posts(room.events)[-1] == ("ann", "group", "hello")


async def test_leaving_stops_what_runs() -> None:
    slow = Model(["half of it"], asyncio.Event())
    before = await others()
    async with Room(participants=[participant("ann", model=slow)], journal=Memo()) as room:
        saying = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
    assert (await saying).reason == "interrupted"
    assert slow.cancelled == 1
    assert posts(room.events)[-1] == ("ann", "group", "half")
    assert await others() == before
    with pytest.raises(UsageError, match="closed"):
        await room.run()


# -- coming and going


async def test_who_is_sent_out_during_a_turn_is_silent_from_then_on() -> None:
    slow = Model(["half of it"], asyncio.Event())
    ann, bob = participant("ann", model=slow), participant("bob", "@me fine")
    async with Room(participants=[ann, bob], journal=Memo()) as room:
        saying = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        await room.kick("ann")
        assert (await saying).reason == "quiet"
        assert slow.cancelled == 1
        assert room.names == ("me", "bob")
        assert ("ann", "interrupted") in endings(room.events)
        assert [who for who, _, _ in posts(room.events)] == ["me", "bob"]
        with pytest.raises(UsageError):
            await room.kick("ann")
        with pytest.raises(UsageError, match="ann left"):
            await room.say("me", "@ann hello")


async def test_one_who_comes_under_the_name_of_one_who_left_is_another() -> None:
    slow = Model(["half of a secret"], asyncio.Event())
    async with Room(participants=[participant("ann", model=slow)], journal=Memo()) as room:
        saying = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        new = participant("ann", "PASS", "Hello.", system="new")
        kicking = asyncio.create_task(room.kick("ann"))
        await asyncio.sleep(0)
        await kicking
        await room.invite(new)
        await saying
        await room.say("me", "two")
    assert "secret" not in str(model_of(new).prompts)
    assert model_of(new).prompts[-1][0].content == "new"


@pytest.mark.parametrize("name", ["", "Ann", "group", "room", "me", "ann", "a b", "1a", "a" * 33, "ü"])
async def test_names(name: str) -> None:
    async with Room(participants=[participant("ann")]) as room:
        with pytest.raises(UsageError):
            await room.invite(participant(name))
        assert room.names == ("me", "ann")


def test_two_of_one_name() -> None:
    for people, names in ((("me",), ["ann", "ann"]), (("ann",), ["ann"]), (("group",), [])):
        with pytest.raises(UsageError):
            Room(participants=[participant(name) for name in names], people=people)


async def test_who_may_speak() -> None:
    async with Room(participants=[participant("ann")]) as room:
        for sender, text in (
            ("ann", "hi"),
            ("nobody", "hi"),
            ("me", " \n"),
            ("me", "@an hi"),
            ("me", "@me hi"),
        ):
            with pytest.raises(UsageError):
                await room.say(sender, text)
        assert not room.transcript


# -- the journal


def replayed(events: list[Committed]) -> dict[str, list[Any]]:
    members = State.of(events).members
    return {n: [list(m.memory.view), m.unread, m.mode] for n, m in members.items() if m.memory}


async def test_resuming_gives_the_same_state_wherever_no_turn_is_open() -> None:
    journal = Memo()
    snapshots: list[tuple[int, dict[str, list[Any]]]] = []
    ann = participant(
        "ann", calling(call("sh"), text="so"), "@bob yes", "", "no", "PASS", "again", tools=[tool()]
    )
    bob = participant("bob", "I see", "@codr hi", "PASS", "well")

    def snap(event: Event) -> None:
        turns = [m.memory.open_turn for m in room.state.members.values() if m.memory]
        if not isinstance(event, Passing) and not any(turns):
            live = {
                n: [list(m.memory.view), list(m.unread), m.mode]
                for n, m in room.state.members.items()
                if m.memory
            }
            snapshots.append((len(room.events), live))

    async with Room(participants=[ann, bob], journal=journal, files=Files()) as room:
        room.observe(snap)
        await room.say("me", "one")
        await room.set_mode("ann", "direct:bob")
        await room.say("me", "two")
        await room.undo()
        await room.invite(participant("coder", "PASS"))
        await room.say("me", "three")
        await room.kick("bob")
        await room.clear()
        await room.say("me", "four")
        await ann.compact(room.aside("ann"))
        assert journal.events == room.events
    assert len(snapshots) > 12
    for count, live in snapshots:
        assert replayed(journal.events[:count]) == live


async def test_a_resumed_room_asks_with_the_same_prompt_and_owes_the_same_answers() -> None:
    journal = Memo()
    ann, bob = participant("ann", "one", "two"), participant("bob", "PASS", "PASS")
    async with Room(participants=[ann, bob], journal=journal) as room:
        await room.say("me", "hello")
    history = list(journal.events)
    again = participant("ann", "three", system="changed since")
    async with Room(participants=[again, bob], journal=journal, history=history) as room:
        assert room.events == history
        await room.say("me", "@ann more")
        assert len({message.id for message in room.transcript}) == len(room.transcript)
    before, after = model_of(ann).prompts[-1], model_of(again).prompts[0]
    assert after[: len(before)] == before


async def test_a_turn_that_a_crash_cut_is_closed() -> None:
    history: list[Committed] = [
        Joined("me", "person"),
        Joined("ann", "model", system="A"),
        Joined("bob", "model"),
        Posted(Message(1, "me", "person", Audience.everyone(), "hello", 0.0)),
        Invited("ann", 1, (1,)),
    ]
    ann = participant("ann", "PASS")
    async with Room(participants=[ann], history=history) as room:
        assert [type(e) for e in room.events[5:]] == [TurnEnded, Left]
        await room.say("me", "again")
    assert [e.role for e in model_of(ann).prompts[0]] == ["system", "user", "assistant", "user"]


async def test_the_journal_and_the_state_agree_on_the_order_of_parallel_turns() -> None:
    journal = Memo()
    crowd = [participant(f"p{n}", *[f"{n} says {k}" for k in range(3)]) for n in range(6)]
    schedule = Schedule("parallel", parallel=6)
    async with Room(participants=crowd, journal=journal, schedule=schedule, limits=Limits(turns=18)) as room:
        events: list[Event] = []
        room.observe(events.append)
        await room.say("me", "hello")
        assert journal.events == room.events
        assert [e for e in events if not isinstance(e, Passing)] == journal.events[7:]
        assert [m.id for m in room.transcript] == list(range(1, len(room.transcript) + 1))


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("broken", range(2, 13))
async def test_a_journal_that_fails_shows_nothing_more_and_stops_the_room(broken: int, once: bool) -> None:
    journal = Memo(broken=broken, error=JournalError("no space left"), once=once)
    crowd = [participant("ann", "one"), participant("bob", "two")]
    before = await others()
    room = Room(participants=crowd, journal=journal)
    events: list[Event] = []
    room.observe(events.append)
    with pytest.raises(JournalError):
        async with room:
            await room.say("me", "hello")
    assert [e for e in events if not isinstance(e, Passing)] == journal.events == room.events
    assert replayed(journal.events) == replayed(list(room.events))
    assert await others() == before


async def test_undoing_and_clearing_wait_for_quiet() -> None:
    slow = Model(["hello"], asyncio.Event())
    async with Room(participants=[participant("ann", model=slow)]) as room:
        with pytest.raises(UsageError):
            await room.undo()
        saying = asyncio.create_task(room.say("me", "one"))
        await slow.started.wait()
        doing: list[Callable[[], Any]] = [room.undo, room.clear]
        for do in doing:
            with pytest.raises(UsageError, match="busy"):
                await do()
        room.interrupt()
        await saying
        assert (await room.undo()).content == "one"
        assert not room.transcript


async def test_refusals_are_few_and_short_however_many_there_are() -> None:
    """Of 20,000 misspelt names a few are told, and how many more; a path that fills a text is cut."""
    marks = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
    lines = "\n".join(f"@ann{marks[n % len(marks)]} number {n}" for n in range(20_000))
    ann, bob = (
        participant("ann"),
        participant("bob", lines, f"#file:/{'x' * 1000} words", context_tokens=1 << 20),
    )
    events: list[Event] = []
    async with Room(participants=[ann, bob], files=Files()) as room:
        room.observe(events.append)
        await room.say("me", "@bob go on")
        with pytest.raises(UsageError) as refused:
            await room.say("me", f"#file:/{'x' * 1000} words")
        told = [m.content for m in room.transcript if m.sender == "room"]
    assert len(told) == 1 and len(told[0]) < 1000 and len(told[0].split("\n")) == 6
    assert told[0].endswith(f"and {len(marks) - 5} more")
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert len(notices) == 7 and "nothing was written" in notices[-1]
    assert all(len(text) < 400 for text in (*notices, refused.value.message))
