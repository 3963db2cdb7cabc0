"""The slash commands of the web page: the terminal's, done over HTTP."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, expect

from org.commands import COMMANDS
from org.compose.opening import Opening
from org.encoding import to_json
from org.events import Stepped, TurnEnded
from org.messages import Usage
from org.ports import Participant, Turn
from page_kit import Actor, Tab, run, saying, speak, stage, tab
from room_kit import participant
from serve_kit import rooms_for, site

browsing = pytest.mark.browser
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def answering(turn: Turn) -> str:
    if turn.causes[-1].role != "person":
        return "PASS"
    await run(turn, "ls -la", "one\n", 0, 0.3)
    return "hi"


def told(made: Tab) -> Locator:
    """What the newest command answered."""
    return made.log.locator(".told").last


async def test_the_page_has_the_words_of_the_terminal(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        body = (await running.ask("GET", "/", token="")).body.decode()
    (found,) = re.findall(r'data-commands="([^"]*)"', body)
    assert json.loads(html.unescape(found)) == {name: [c.usage, c.about] for name, c in COMMANDS.items()}
    assert "@COMMANDS@" not in body


@browsing
async def test_a_command_is_done_and_not_said(tmp_path: Path, browser: Browser) -> None:
    actors = Actor("coder", answering), Actor("calc", saying("PASS"))
    async with stage(tmp_path, *actors) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.say("go")
            await made.over()
            for line, answer in (
                ("/who", "coderagent, qwen3:8b → everyone"),
                ("/tools last", "coderls -la\none"),
                ("/tools", "calcnone"),
                ("/tokens", "coder0 read (0 from cache), 0 written"),
                ("/limits", "turns30"),
                ("/mode coder", "coder→ everyone"),
                ("/mode", "me→ everyone"),
            ):
                await made.say(line)
                await expect(told(made).locator("code")).to_have_text(line)
                await expect(told(made)).to_contain_text(answer)
            for line, outcome in (
                ("/limits turns 7", "limits of an exchange from now on: turns 7"),
                ("/mode coder direct:me", "coder now speaks to @me"),
                ("/mode direct:coder", "me now speaks to @coder"),
                ("/kick @calc", "calc left the room"),
                ("/clear", "everybody starts afresh"),
            ):
                await made.say(line)
                await expect(made.log).to_contain_text(outcome)
                await expect(made.field).to_have_value("")
            await made.say("/undo")
            await expect(made.page.get_by_role("status").get_by_text("taken back: go")).to_be_visible()
            await expect(made.messages).to_have_count(0)
            room = (await running.hub.open("main")).room
            assert not room.transcript
            assert room.limits.turns == 7


@browsing
async def test_those_who_have_a_model_are_told_too(tmp_path: Path, browser: Browser) -> None:
    def models(opening: Opening) -> Sequence[Participant]:
        return [participant(name, "hi", model_name="small", context_tokens=4000) for name in ("ann", "eve")]

    async with site(tmp_path, open_room=rooms_for(models)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.say("@ann hello")
            await made.over()
            for prompt, cached in ((1000, 0), (1500, 900)):  # as of a model that counts
                step = Stepped("ann", 9, "", usage=Usage(prompt, 20, cached))
                await made.page.evaluate("event => app.scene.apply(event)", to_json(step))
            await made.page.evaluate(
                "event => app.scene.apply(event)", to_json(TurnEnded("ann", 9, "passed"))
            )
            await made.say("/tokens")
            for words in (
                "ann2,500 read (900 from cache), 40 written; context 1,500 of 4,000",
                "eve0 read (0 from cache), 0 written; context 0 of 4,000",
            ):
                await expect(told(made)).to_contain_text(words)
            for line, outcome in (
                ("/compact ann", "older context is being summarised: ann"),
                ("/model @ann large", "ann now speaks through large"),
                ("/model bigger", "eve now speaks through bigger"),
                ("/model", "simple, bigger → everyone"),
                ("/compact", "older context is being summarised: ann, eve"),
            ):
                await made.say(line)
                await expect(made.log).to_contain_text(outcome)


@browsing
async def test_what_is_no_command_is_refused_and_can_be_said(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            below = made.page.locator("#audience")
            for line, words in (
                ("/unod", "there is no `/unod` (did you mean `/undo`? to say it, begin with `@group`)"),
                ("/usr/bin is full", "no `/usr/bin` (/help lists them; to say it, begin with `@group`)"),
                ("/quit", "`/quit` is for terminals"),
                ("!ls", "`!` runs commands only where the room runs"),
            ):
                await made.say(line)
                await expect(below).to_contain_text(words)
                await expect(made.page.get_by_role("button", name="Send")).to_be_disabled()
                await expect(made.field).to_have_value(line)  # to be corrected
            problem = made.log.locator(".problem").last
            for line, words in (
                ("/kick bob", "nobody here is called `bob`"),
                ("/kick", "whom? (/who lists who is here)"),
                ("/limits turns many", "not a limit: `turns many`"),
                ("/model ann large", "nobody here is called `ann`"),
                ("/undo", "there is nothing to undo"),
            ):  # fmt: skip
                await made.say(line)
                await expect(problem).to_contain_text(words)
                await expect(made.field).to_have_value(line)
            await made.say("@group /usr/bin is full")
            await made.over()
            await expect(made.messages.first.locator(".md")).to_have_text("/usr/bin is full")
            transcript = (await running.hub.open("main")).room.transcript
            assert [message.content for message in transcript] == ["/usr/bin is full", "hi"]


@browsing
async def test_what_the_server_refuses_is_told(tmp_path: Path, browser: Browser) -> None:
    async def act(turn: Turn) -> str:
        speak(turn, "I begin")
        await asyncio.Event().wait()
        return ""

    async with stage(tmp_path, Actor("coder", act)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        # The browser names such answers among its errors.
        async with tab(browser, running.port, "main", check=False) as made:
            await made.say("go")
            await expect(made.page.get_by_text("I begin")).to_be_visible()
            for line, words in (
                ("/undo", "the room is busy (interrupt it first)"),
                ("/limits steps 3", "steps"),
            ):
                await made.say(line)
                await expect(made.log.locator(".problem").last).to_contain_text(words)
                await expect(made.field).to_have_value(line)
            assert await made.page.evaluate("broken") == []


@browsing
async def test_commands_are_offered_and_listed(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            keys, below = made.page.keyboard, made.page.locator("#audience")
            offers = made.page.get_by_role("option")
            await made.page.get_by_role("region", name="Conversation").focus()
            await keys.type("/")  # wherever one is
            await expect(made.field).to_have_value("/")
            await expect(below).to_have_text("a command for the room")
            await expect(offers).to_have_count(len([c for c in COMMANDS.values() if c.about]) - 1)
            await keys.type("mod")
            await expect(offers).to_have_count(2)
            await keys.type("e")  # which is one already, though more begin so
            await expect(offers).to_have_count(0)
            await expect(below).to_have_text(f"/mode [ID] MODE · {COMMANDS['mode'].about}")
            await keys.type("x")
            await expect(below).to_contain_text("did you mean `/mode`?")
            await made.field.fill("/hel")
            await keys.press("Tab")
            await expect(made.field).to_have_value("/help ")
            await keys.press("Enter")
            listed = made.page.get_by_role("dialog", name="Keys and commands")
            for name, known in COMMANDS.items():
                count = 1 if known.about and name not in ("exit", "quit") else 0
                await expect(listed.get_by_text(f"/{name} {known.usage}".strip(), exact=True)).to_have_count(
                    count
                )
            await keys.press("Escape")
            await expect(listed).to_have_count(0)


@browsing
async def test_a_room_is_taken_home(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.say("go")
            await made.over()
            for line, name, start in (("/export", "main.md", "# "), ("/export all.json", "all.json", '{"v"')):
                async with made.page.expect_download() as coming:
                    await made.say(line)
                file = await coming.value
                assert file.suggested_filename == name
                assert Path(await file.path()).read_text().startswith(start)
