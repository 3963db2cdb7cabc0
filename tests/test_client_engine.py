"""The client against the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest

from engine import SCRIPTS, Engine, call
from org.errors import (
    ContextExceeded,
    ServerRefused,
    ServerUnreachable,
    StreamBroken,
    StreamStalled,
)
from org.events import Delta
from org.llm.client import ChatClient
from org.messages import ChatRequest, Completion, Entry, View
from org.tooling import ToolCall, ToolSpec

pytestmark = pytest.mark.engine

Scripted: TypeAlias = Callable[..., AbstractAsyncContextManager[Engine]]
TOOLS = (
    ToolSpec(
        "sh",
        "Run a command",
        {
            "type": "object",
            "properties": {"cmd": {"type": "string"}, "timeout_s": {"type": "number"}},
            "required": ["cmd"],
        },
    ),
    ToolSpec(
        "python_run",
        "Run Python",
        {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    ),
)
FOREVER = {"forever": SCRIPTS["forever"]}


def view(script: str) -> View:
    return View([Entry("system", f"You are tested. [[{script}]]"), Entry("user", "Go on.")])


class Talk:
    """One view with a model, and what was shown of its newest answer."""

    def __init__(self, client: ChatClient, script: str, *tools: ToolSpec) -> None:
        self.client = client
        self.view = view(script)
        self.tools = tools
        self.deltas: list[Delta] = []
        self.started = asyncio.Event()

    def show(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.started.set()

    async def ask(self, max_tokens: int = 500) -> Completion:
        self.deltas.clear()
        request = ChatRequest("scripted", self.view, self.tools, temperature=0, max_tokens=max_tokens)
        completion = await self.client.complete(request, self.show)
        self.view.append(Entry("assistant", completion.text, completion.calls))
        return completion

    def result(self, call_id: str, text: str) -> None:
        self.view.append(Entry("tool", text, call_id=call_id))

    def shown(self, kind: str) -> str:
        return "".join(delta.text for delta in self.deltas if delta.kind == kind)


def commands(completion: Completion) -> list[tuple[str, str]]:
    return [(c.origin.kind, c.arguments["cmd"]) for c in completion.calls]


async def test_text_as_it_comes_and_again_with_the_history(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        talk = Talk(client, "hello")
        first = await talk.ask()
        assert first.text == talk.shown("text") == SCRIPTS["hello"][0]
        assert (first.finish, first.calls, first.incomplete) == ("stop", (), False)
        assert first.usage is not None
        assert first.usage.prompt > first.usage.completion > 0
        talk.view.append(Entry("user", "And?"))
        second = await talk.ask()
        assert second.text == SCRIPTS["hello"][1]
        assert second.usage is not None and second.usage.prompt > first.usage.prompt


@pytest.mark.parametrize("script", ["utf8", "markdown"])
async def test_any_text_comes_through(engine: Engine, script: str) -> None:
    async with ChatClient(engine.base_url) as client:
        talk = Talk(client, script)
        assert (await talk.ask()).text == talk.shown("text") == SCRIPTS[script][0]


async def test_reasoning_is_kept_apart(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        talk = Talk(client, "think-tool", *TOOLS)
        first = await talk.ask()
        assert first.reasoning.strip() == talk.shown("reasoning").strip() == "I should ask the shell."
        assert (commands(first), first.text) == ([("declared", "date +%Y")], "")
        talk.result(first.calls[0].id, "2031")
        second = await talk.ask()
        assert second.text.strip() == "It is that year."
        assert second.reasoning.strip() == "I have the year."


async def test_calls_one_after_another_and_at_once(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        talk = Talk(client, "three-steps", *TOOLS)
        for step in (1, 2, 3):
            completion = await talk.ask()
            assert commands(completion) == [("declared", f"echo step {step}")]
            talk.result(completion.calls[0].id, f"step {step}\n")
        assert (await talk.ask()).text == "All three steps are done."
        talk = Talk(client, "two", *TOOLS)
        completion = await talk.ask()
        assert commands(completion) == [("declared", "echo one"), ("declared", "echo two")]
        talk.result(completion.calls[1].id, "two")  # one result is missing, the other came early
        assert (await talk.ask()).text == SCRIPTS["two"][1]


async def test_long_arguments_come_whole(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        (made,) = (await Talk(client, "long-arguments", *TOOLS).ask()).calls
        assert made.error == ""
        assert str(made.arguments["cmd"]).startswith("cat > squares.py <<'END'\nfor n in range(10):\n")
        assert made.arguments["timeout_s"] == 20


async def test_calls_that_the_server_leaves_in_the_text(scripted: Scripted) -> None:
    script = ["Look. " + call("sh", cmd="echo one") + call("sh", cmd="echo {two}"), "Done."]
    async with scripted({"leak": script}, raw=True) as engine, ChatClient(engine.base_url) as client:
        talk = Talk(client, "leak", *TOOLS)
        completion = await talk.ask()
        assert commands(completion) == [("embedded", "echo one"), ("embedded", "echo {two}")]
        assert completion.text.strip() == talk.shown("text").strip() == "Look."
        for made in completion.calls:
            talk.result(made.id, "ok")
        assert (await talk.ask()).text == "Done."


@pytest.mark.parametrize(
    ("script", "tokens"), [("hello", 4), ("think", 6), ("long-arguments", 30), ("forever", 8)]
)
async def test_an_answer_cut_by_length_says_so_and_runs_nothing(
    engine: Engine, script: str, tokens: int
) -> None:
    async with ChatClient(engine.base_url) as client:
        completion = await Talk(client, script, *TOOLS).ask(tokens)
        assert (completion.finish, completion.calls) == ("length", ())
        assert completion.usage is not None and completion.usage.completion == tokens
        assert completion.incomplete == (script == "long-arguments")


async def test_any_odd_history_is_taken(engine: Engine) -> None:
    """Lone halves of pairs, NaN, no results, no text, calls that failed."""
    async with ChatClient(engine.base_url) as client:
        broken = ToolCall("x", "sh", {"cmd": "\ud800", "n": float("nan")})
        talk = Talk(client, "hello", *TOOLS)
        for entry in (
            Entry("assistant", "", (broken, ToolCall("x", "", {}))),
            Entry("tool", "half: \udfff, zero: \x00", call_id="x"),
            Entry("tool", "an orphan", call_id="y"),
            Entry("user", ""),
        ):
            talk.view.append(entry)
        assert (await talk.ask()).text == SCRIPTS["hello"][1]


async def test_models(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        assert await client.models() == ["scripted"]
        assert (await client.get_json("//health"))["status"] == "ok"
        with pytest.raises(ServerRefused) as caught:
            await client.get_json("//api/tags")
        assert caught.value.status == 404


async def test_a_name_that_a_server_of_one_model_does_not_know(engine: Engine) -> None:
    async with ChatClient(engine.base_url) as client:
        request = ChatRequest("no-such-model", view("hello"))
        assert (await client.complete(request, lambda _: None)).text == SCRIPTS["hello"][0]


async def test_a_prompt_longer_than_the_context(scripted: Scripted) -> None:
    small = scripted({"hello": ["Hi"]}, ctx=256, parallel=1)
    async with small as engine, ChatClient(engine.base_url) as client:
        talk = Talk(client, "hello")
        talk.view.append(Entry("user", "word " * 600))
        with pytest.raises(ContextExceeded, match="does not fit into the context") as caught:
            await talk.ask()
        assert caught.value.status == 400


async def test_a_key_that_is_wrong_and_one_that_is_right(scripted: Scripted) -> None:
    async with scripted({"hello": ["Hi"]}, api_key="right") as engine:
        async with ChatClient(engine.base_url, api_key="wrong") as client:
            with pytest.raises(ServerRefused) as caught:
                await Talk(client, "hello").ask()
            assert caught.value.status == 401
            assert caught.value.hint == "set the key in ORG_API_KEY"
        async with ChatClient(engine.base_url, api_key="right") as client:
            assert (await Talk(client, "hello").ask()).text == "Hi"


async def test_a_server_that_freezes_is_a_stall(scripted: Scripted) -> None:
    async with scripted(FOREVER) as engine, ChatClient(engine.base_url, idle_timeout_s=0.3) as client:
        talk = Talk(client, "forever")
        task = asyncio.create_task(talk.ask(100_000))
        await talk.started.wait()
        engine.freeze()
        with pytest.raises(StreamStalled):
            await task
        assert talk.shown("text").startswith("The")
        engine.thaw()
        assert (await Talk(client, "forever").ask(8)).finish == "length"


async def test_a_server_that_dies_is_a_broken_stream_and_then_not_there(scripted: Scripted) -> None:
    async with scripted(FOREVER) as engine, ChatClient(engine.base_url) as client:
        talk = Talk(client, "forever")
        task = asyncio.create_task(talk.ask(100_000))
        await talk.started.wait()
        engine.kill()
        with pytest.raises(StreamBroken, match="ended the stream early"):
            await task
        with pytest.raises(ServerUnreachable, match="connection refused"):
            await Talk(client, "forever").ask()


async def test_cancelling_frees_the_server(scripted: Scripted) -> None:
    """With one slot, the next request is answered only when the first one's work has ended."""
    async with (
        scripted({**FOREVER, "hello": ["Hi"]}, parallel=1) as engine,
        ChatClient(engine.base_url) as client,
    ):
        talk = Talk(client, "forever")
        task = asyncio.create_task(talk.ask(1_000_000))
        await talk.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await Talk(client, "hello").ask()).text == "Hi"
