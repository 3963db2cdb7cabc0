"""Rooms on the real engine: HTTP, SSE, the server's template and call parser, the client, the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from engine import Engine, call
from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES, system_prompt
from org.chat.room import Room, Schedule
from org.events import CallFinished, CallOutput, Delta, Event, Invited, Joined, Stepped, TurnEnded
from org.llm.client import ChatClient
from org.llm.scripted import FOREVER
from org.sandbox.bubblewrap import Bubblewrap
from org.tooling import Tool
from org.tools.python_run import python_run
from org.tools.sh import sh
from room_kit import endings, posts

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]

Scripted: TypeAlias = Callable[..., AbstractAsyncContextManager[Engine]]


def seat(name: str, profile: str, client: ChatClient, engine: Engine, *tools: Tool) -> ModelParticipant:
    """A participant that recites the script of its own name."""
    text = system_prompt(PROFILES[profile], name, ["me"], f"[[{name}]]")
    sampling = Sampling(max_tokens=400, context_tokens=16_384)
    return ModelParticipant(
        Joined(name, "model", profile, engine.model, text), PROFILES[profile], client, tools, sampling
    )


def outputs(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.participant, e.result.output.strip()) for e in events if isinstance(e, CallFinished)]


async def test_three_work_on_a_task(scripted: Scripted, tmp_path: Path) -> None:
    """Steps, several calls at once, thinking, private words, a file, and an end when all is said."""
    scripts = {
        "coder": [
            "I count the lines.\n" + call("sh", cmd="printf 'a\\nb\\n' > data.txt; wc -l < data.txt"),
            call("sh", cmd="cat data.txt") + "\n" + call("sh", cmd="echo oops >&2; exit 3"),
            "There are 2 lines.\n@calc what is 2 to the power of 10?",
        ],
        "calc": [
            "<think>\nI compute it.\n</think>\n\n" + call("python_run", code="print(2**10)"),
            "@coder It is 1024.\n#file:result.txt 1024\n@group Done.",
        ],
        "guide": ["<think>\nNothing to add yet.\n</think>\n\nPASS"],
    }
    place = Bubblewrap(tmp_path)
    events: list[Event] = []
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [
            seat("coder", "agent", client, engine, sh(place)),
            seat("calc", "python", client, engine, python_run(place)),
            seat("guide", "simple", client, engine),
        ]
        async with Room(participants=crowd, files=place) as room:
            room.observe(events.append)
            stopped = await room.say("me", "@coder count, then let calc compute")
            assert room.usage.prompt > 0
    assert stopped.reason == "quiet"
    assert outputs(events)[0] == ("coder", "2")
    assert outputs(events)[1] == ("coder", "a\nb")
    assert "oops" in outputs(events)[2][1]
    assert outputs(events)[3] == ("calc", "1024")
    codes = [e.result.exit_code for e in events if isinstance(e, CallFinished)]
    assert codes == [0, 0, 3, 0]
    assert posts(events) == [
        ("me", "direct:coder", "@coder count, then let calc compute".removeprefix("@coder ")),
        ("coder", "group", "I count the lines."),
        ("coder", "group", "There are 2 lines."),
        ("coder", "direct:calc", "what is 2 to the power of 10?"),
        ("calc", "direct:coder", "It is 1024."),
        ("calc", "file:result.txt", "1024"),
        ("calc", "group", "Done."),
    ]
    assert (tmp_path / "result.txt").read_text() == "1024\n"
    shown = "".join(e.text for e in events if isinstance(e, Delta) and e.kind == "text")
    assert "tool_call" not in shown and "PASS" not in shown and "compute it" not in shown
    assert [e.text for e in events if isinstance(e, Delta) and e.kind == "reasoning"]


async def test_calls_in_the_text_run_as_well(scripted: Scripted, tmp_path: Path) -> None:
    """The server leaves them there: its own parser is off."""
    both = call("sh", cmd="echo one") + "\n" + call("sh", cmd="echo two")
    scripts = {"coder": [f"@me Looking.\n{both}", "Both ran."]}
    place = Bubblewrap(tmp_path)
    events: list[Event] = []
    async with scripted(scripts, raw=True) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat("coder", "agent", client, engine, sh(place))]
        async with Room(participants=crowd) as room:
            room.observe(events.append)
            assert (await room.say("me", "go")).reason == "quiet"
    assert outputs(events) == [("coder", "one"), ("coder", "two")]
    (first, *_) = [e for e in events if isinstance(e, Stepped)]
    assert [made.origin.kind for made in first.calls] == ["embedded"] * 2
    assert posts(events)[1:] == [("coder", "direct:me", "Looking."), ("coder", "group", "Both ran.")]


GRAMMARS = {
    "hermes": '<tool_call>\n{"name": "sh", "arguments": {"cmd": "echo hermes"}}\n</tool_call>',
    "openai": '{"tool_calls": [{"type": "function", "function": {"name": "sh", "arguments": '
    '"{\\"cmd\\": \\"echo openai\\"}"}}]}',
    "bare": '{"name": "sh", "parameters": {"cmd": "echo bare"}}',
    "qwen-coder": "<tool_call>\n<function=sh>\n<parameter=cmd>\necho qwen-coder\n</parameter>\n"
    "</function>\n</tool_call>",
    "mistral": '[TOOL_CALLS] [{"name": "sh", "arguments": {"cmd": "echo mistral"}}]',
    "llama": '<|python_tag|>{"name": "sh", "parameters": {"cmd": "echo llama"}}',
    "pythonic": '[sh(cmd="echo pythonic")]',
    "glm": "<tool_call>sh\n<arg_key>cmd</arg_key>\n<arg_value>echo glm</arg_value>\n</tool_call>",
    "invoke": '<function_calls>\n<invoke name="sh">\n<parameter name="cmd">echo invoke</parameter>'
    "\n</invoke>\n</function_calls>",
    "react": 'Action: sh\nAction Input: {"cmd": "echo react"}',
}


async def test_calls_in_many_grammars_run(scripted: Scripted, tmp_path: Path) -> None:
    """Each participant writes its call in another grammar; none of it is ever shown."""
    names = {name.replace("-", "_"): text for name, text in GRAMMARS.items()}
    scripts = {name: [f"I look.\n{text}", "Done."] for name, text in names.items()}
    place = Bubblewrap(tmp_path)
    events: list[Event] = []
    async with scripted(scripts, raw=True) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat(name, "agent", client, engine, sh(place)) for name in scripts]
        async with Room(participants=crowd, schedule=Schedule("mention")) as room:
            room.observe(events.append)
            assert (await room.say("me", " ".join(f"@{name}" for name in names) + " go")).reason == "quiet"
    assert sorted(outputs(events)) == sorted((name, name.replace("_", "-")) for name in names)
    calls = [made for e in events if isinstance(e, Stepped) for made in e.calls]
    assert all(made.origin.kind == "embedded" and made.origin.span for made in calls)
    said = {content for _, _, content in posts(events)[1:]}
    assert said == {"I look.", "Done."}
    shown = "".join(e.text for e in events if isinstance(e, Delta) and e.kind == "text")
    assert "echo" not in shown


async def test_parallel_turns_share_the_engine(scripted: Scripted) -> None:
    scripts = {f"p{n}": [f"@me This is {n}, at the same time as the others."] for n in range(4)}
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat(name, "simple", client, engine) for name in scripts]
        schedule = Schedule("parallel", parallel=4, per_model=4)
        async with Room(participants=crowd, schedule=schedule) as room:
            assert (await room.say("me", "hello")).reason == "quiet"
            kinds = [type(e) for e in room.events if isinstance(e, Invited | TurnEnded)]
            assert kinds[:4] == [Invited] * 4
            assert sorted(text for _, _, text in posts(room.events)[1:]) == sorted(
                text[0].removeprefix("@me ") for text in scripts.values()
            )


async def until(events: asyncio.Queue[Event], wanted: Callable[[Event], bool]) -> None:
    while not wanted(await events.get()):
        pass


async def test_a_server_that_stands_still_can_be_interrupted(scripted: Scripted) -> None:
    scripts = {"clock": [f"Listen: {FOREVER}tick tock ", "It is noon."], "guide": ["never asked"]}
    events: asyncio.Queue[Event] = asyncio.Queue()
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat(name, "simple", client, engine) for name in scripts]
        async with Room(participants=crowd) as room:
            room.observe(events.put_nowait)
            saying = asyncio.create_task(room.say("me", "what time is it?"))
            await until(events, lambda e: isinstance(e, Delta) and "tock" in e.text)
            engine.freeze()
            try:
                assert room.interrupt()
                assert (await saying).reason == "interrupted"
            finally:
                engine.thaw()
            assert endings(room.events) == [("clock", "interrupted")]
            assert posts(room.events)[-1][2].startswith("Listen: tick tock")
            await room.say("me", "@clock and now?")
            assert ("clock", "group", "It is noon.") in posts(room.events)


async def test_a_server_that_dies_fails_the_turn_and_the_room_lives(scripted: Scripted) -> None:
    scripts = {"clock": [f"Listen: {FOREVER}tick tock "], "guide": ["never heard"]}
    events: asyncio.Queue[Event] = asyncio.Queue()
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat("clock", "simple", client, engine)]
        async with Room(participants=crowd) as room:
            room.observe(events.put_nowait)
            saying = asyncio.create_task(room.say("me", "what time is it?"))
            await until(events, lambda e: isinstance(e, Delta) and "tock" in e.text)
            engine.kill()
            stopped = await saying
            assert stopped.reason == "failed" and stopped.detail
            assert endings(room.events) == [("clock", "failed")]
            assert (await room.say("me", "hello?")).reason == "failed"


async def test_a_runaway_is_cut_by_its_length(scripted: Scripted) -> None:
    scripts = {"clock": [f"Listen: {FOREVER}tick tock "]}
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat("clock", "simple", client, engine)]
        async with Room(participants=crowd) as room:
            assert (await room.say("me", "what time is it?")).reason == "quiet"
            assert [e.finish for e in room.events if isinstance(e, Stepped)] == ["length"]
            assert posts(room.events)[-1][2].startswith("Listen: tick")


async def test_an_interrupt_kills_the_running_command(scripted: Scripted, tmp_path: Path) -> None:
    scripts = {"coder": [call("sh", cmd="echo begun; sleep 1000; touch late")]}
    place = Bubblewrap(tmp_path)
    events: asyncio.Queue[Any] = asyncio.Queue()
    async with scripted(scripts) as engine, ChatClient(engine.base_url) as client:
        crowd = [seat("coder", "agent", client, engine, sh(place))]
        async with Room(participants=crowd) as room:
            room.observe(events.put_nowait)
            saying = asyncio.create_task(room.say("me", "go"))
            await until(events, lambda e: isinstance(e, CallOutput) and "begun" in e.text)
            room.interrupt()
            assert (await saying).reason == "interrupted"
            (finished,) = [e for e in room.events if isinstance(e, CallFinished)]
            assert finished.result.error and finished.result.error.kind == "interrupted"
    assert not (tmp_path / "late").exists()
