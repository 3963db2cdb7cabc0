"""The demo's words fit the room: each step comes when it should, and what it claims is so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from engine import Engine
from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES, system_prompt
from org.chat.room import Room
from org.events import CallFinished, Event, Joined, Stopped
from org.llm.client import ChatClient
from org.llm.demo_scripts import demo_scripts
from org.sandbox.bubblewrap import Bubblewrap
from org.tooling import Tool
from org.tools.chat_mode import chat_mode
from org.tools.python_run import python_run
from org.tools.sh import sh

Scripted: TypeAlias = Callable[..., AbstractAsyncContextManager[Engine]]

ROSTER = {"coder": "agent", "calc": "python", "guide": "simple"}


def participant(name: str, engine: Engine, client: ChatClient, tools: dict[str, Tool]) -> ModelParticipant:
    profile = PROFILES[ROSTER[name]]
    others = [other for other in ("ada", *ROSTER) if other != name]
    system = system_prompt(profile, name, others, f"[[{name}]]")
    joined = Joined(name, "model", profile.name, engine.model, system)
    chosen = [tools[tool] for tool in profile.tools]
    return ModelParticipant(joined, profile, client, chosen, Sampling(context_tokens=16_384))


@pytest.mark.engine
@pytest.mark.sandbox
async def test_the_demo_goes_as_written(scripted: Scripted, tmp_path: Path) -> None:
    demo = demo_scripts()
    events: list[Event] = []
    sandbox = Bubblewrap(tmp_path)

    async def set_mode(mode: str) -> None:
        await room.set_mode("coder", mode)

    tools = {"sh": sh(sandbox), "python_run": python_run(sandbox), "chat_mode": chat_mode(set_mode)}
    async with scripted(demo.scripts, ctx=16_384) as engine, ChatClient(engine.base_url) as client:
        members = [participant(name, engine, client, tools) for name in ROSTER]
        room = Room(participants=members, people=["ada"], files=sandbox)
        room.observe(events.append)
        async with room:
            stopped = await room.say("ada", demo.task)

    assert stopped == Stopped("quiet")
    assert [(message.sender, str(message.audience)) for message in room.transcript] == [
        ("ada", "direct:guide"),
        ("guide", "group"),
        ("guide", "direct:calc"),
        ("guide", "direct:coder"),
        ("coder", "group"),
        ("coder", "group"),
        ("calc", "group"),
        ("coder", "group"),
        ("coder", "direct:guide"),
        ("coder", "file:report.md"),
        ("coder", "group"),
        ("guide", "group"),
    ]
    ran = [event for event in events if isinstance(event, CallFinished)]
    assert [(event.call.name, event.call.origin.kind, event.result.output) for event in ran] == [
        ("sh", "declared", ""),
        ("sh", "declared", "25 1060\n"),
        ("python_run", "declared", "25 1060\n"),
        ("sh", "embedded", "the same\n"),
        ("chat_mode", "declared", "You now speak to `direct:guide`."),
    ]
    assert (tmp_path / "report.md").read_text().startswith("# The primes below 100")
