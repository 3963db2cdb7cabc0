"""The web page, in Chromium."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from command import Home, served
from engine import Engine
from org.chat.loop import Approval
from org.compose.opening import Opening
from org.encoding import to_json
from org.events import Asked, Delta, Event, Invited, Joined, Notice, Posted
from org.messages import EVERYONE, Audience, Message
from org.ports import Participant, Turn
from page_kit import Actor, Tab, past, run, saying, speak, stage, tab
from room_kit import call, calling, participant, tool
from serve_kit import Process, ask, listening, rooms_for, site

ROOT = Path(__file__).parent.parent
browsing = pytest.mark.browser
pytestmark = pytest.mark.asyncio(loop_scope="session")


# -- the file


async def test_only_its_own_script_and_style_may_run(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        answers = [await running.ask("GET", "/", token="") for _ in range(2)]
    nonces = []
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
        assert answer.body.count(f'nonce="{nonce}"'.encode()) == 2  # a script and a style
        assert answer.body.count(b"<script") == answer.body.count(b"<style") == 1
        assert {
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            f"style-src 'nonce-{nonce}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "require-trusted-types-for 'script'",
        } <= set(policy.split("; "))
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


async def test_it_is_compressed_for_who_can_read_that(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        whole = await running.ask("GET", "/", token="")
        short = await running.ask("GET", "/", token="", accept_encoding="gzip, br")
    assert (whole.headers.get("content-encoding"), short.headers["content-encoding"]) == (None, "gzip")
    assert len(gzip.decompress(short.body)) == len(whole.body) > 3 * len(short.body)


async def test_it_parses_no_html_and_asks_nobody_else() -> None:
    page = (ROOT / "src/org/serve/page.html").read_text("utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
        assert word not in page, word
    # The name spaces of SVG are no requests.
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}


async def test_it_is_in_the_wheel(tmp_path: Path) -> None:
    build = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    made = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        assert wheel.read("org/serve/page.html") == (ROOT / "src/org/serve/page.html").read_bytes()


# -- signing in


@browsing
async def test_the_token_does_not_stay_in_the_address(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        async with tab(browser, running.port) as made:
            assert made.page.url == made.url
            await expect(made.page.get_by_role("heading", name="No rooms yet")).to_be_visible()
            kept = await made.page.evaluate("JSON.stringify(localStorage)")
            assert ("org-key" in kept, "t" * 43 in kept) == (True, False)
            # Whoever listens at another port of this host is shown nothing.
            assert await made.page.context.cookies() == []
            await made.page.go_back()
            assert "token" not in made.page.url
        async with tab(browser, running.port, sign_in=False, check=False) as made:
            await made.page.goto(made.url)
            field = made.page.get_by_label("Link or token")
            await field.fill("wrong")
            await field.press("Enter")
            await expect(made.page.get_by_role("alert")).to_contain_text(
                "Paste the whole link that org serve"
            )
            await field.fill(f"{made.url}#token={'t' * 43}")
            await field.press("Enter")
            await expect(made.page.get_by_role("heading", name="No rooms yet")).to_be_visible()


@browsing
async def test_a_room_is_made_and_spoken_in(tmp_path: Path, browser: Browser) -> None:
    async with (
        stage(tmp_path, Actor("coder", saying("**hello** there"))) as running,
        tab(browser, running.port) as made,
    ):
        page = made.page
        await page.get_by_role("button", name="New room").first.click()
        await page.get_by_label("Name", exact=True).fill("No Such Name")
        await page.get_by_role("button", name="Make it").click()
        await page.get_by_label("Name", exact=True).fill("main")  # the browser refused the first
        await page.get_by_role("button", name="Make it").click()
        await expect(page.get_by_text("coder will answer")).to_be_visible()
        await made.say("hi")
        await made.over()
        await expect(made.messages).to_have_count(2)
        await expect(made.messages.nth(1).locator("strong")).to_have_text("hello")
        await expect(page.get_by_role("link", name="main")).to_have_attribute("aria-current", "page")


# -- what is seen of a room


@browsing
async def test_two_who_speak_at_once_are_seen_at_once(tmp_path: Path, browser: Browser) -> None:
    go, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def act(turn: Turn) -> str:
        if turn.causes[-1].role != "person":
            return "PASS"
        speak(turn, "Let me think of it.", "reasoning")
        speak(turn, "# Plan\n\nFirst **this** of ")
        speak(turn, turn.participant + "\n\n" + "and a line\n" * 300 + "the end")
        waiting.release()
        await go.wait()
        return f"{turn.participant} is done"

    async with stage(tmp_path, Actor("coder", act), Actor("calc", act)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.say("go")
            for _ in range(2):
                await waiting.acquire()
            for name in ("coder", "calc"):
                live = made.page.get_by_role("article", name=f"{name} is speaking")
                await expect(live.get_by_role("heading", name="Plan")).to_be_attached()
                await expect(live.get_by_text(f"First this of {name}")).to_be_attached()
                await expect(live).to_be_in_viewport(ratio=0.99)  # there is room for both
                await expect(live.locator(".caret")).to_be_in_viewport()  # behind the end
            for name in ("coder", "calc"):
                live = made.page.get_by_role("article", name=f"{name} is speaking")
                await live.get_by_text("thinking", exact=True).click()
                await expect(live.get_by_text("Let me think of it.")).to_be_visible()
            await expect(made.log).not_to_contain_text("and a line")  # it is not said yet
            await expect(made.log).to_have_attribute("aria-live", "polite")
            go.set()
            await made.over()
            await expect(made.messages).to_have_count(3)
            await expect(made.page.locator(".live")).to_have_count(0)
            await expect(made.log.get_by_text("thought · 5 words")).to_have_count(2)


@browsing
async def test_calls_are_folded_and_what_is_private_is_marked(tmp_path: Path, browser: Browser) -> None:
    async def act(turn: Turn) -> str:
        if turn.causes[-1].role != "person":
            return "PASS"
        await run(turn, "ls -la", "one\n\x1b[31mtwo\x1b[0m\n", 0, 0.31)
        await run(turn, "make\nmake install", "no rule", 2, 75.0)
        return "for all\n@calc just for you\n#file:notes.md\na note"

    async with stage(tmp_path, Actor("coder", act), Actor("calc", saying("PASS"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.say("go")
            await made.over()
            for _ in range(2):  # as it came, and as it is read again
                calls = made.log.locator("details.call")
                await expect(calls.locator(".ended")).to_have_text(
                    ["✓ exit 0 · 0.3 s", "✗ exit 2 · 1 min 15 s"]
                )
                await expect(calls.nth(0).get_by_text("two", exact=True)).to_have_count(0)  # folded
                await calls.nth(0).locator("summary").click()
                await expect(calls.nth(0).locator("pre").last).to_have_text("one\ntwo\n")
                await calls.nth(1).locator("summary").click()
                await expect(calls.nth(1).locator("pre").first).to_have_text("make\nmake install")
                secret = made.page.get_by_role("article", name="coder to @calc")
                await expect(secret).to_contain_text("only to @calc")
                await expect(secret.locator(".md")).to_have_text("just for you")
                await expect(
                    made.page.get_by_role("article", name="coder to #file:notes.md")
                ).to_contain_text("into notes.md")
                await made.page.reload()
    assert (tmp_path / "work" / "notes.md").read_text() == "a note\n"


@browsing
async def test_tokens_and_budgets_are_shown(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await made.page.get_by_role("button", name="About the room").click()
            details = made.page.get_by_role("complementary", name="About the room")
            await made.say("hi")
            await expect(details.get_by_text("1 of 30")).to_be_visible()
            await expect(details).to_contain_text("agent · qwen3:8b")
            await details.get_by_role("button", name="Invite").click()
            await made.page.get_by_label("Who", exact=True).select_option("person")
            await made.page.get_by_label("Name", exact=True).fill("bob")
            await made.page.get_by_role("button", name="Invite").last.click()
            await expect(details).to_contain_text("bob")
            await expect(made.page.get_by_label("Speak as")).to_be_visible()
            await details.get_by_role("button", name="Send coder out").click()
            await made.page.get_by_role("button", name="Send out").click()
            await expect(made.log).to_contain_text("coder left the room")


@browsing
async def test_what_runs_is_interrupted(tmp_path: Path, browser: Browser) -> None:
    async def act(turn: Turn) -> str:
        speak(turn, "I begin and do not end")
        await asyncio.Event().wait()
        return ""

    async with stage(tmp_path, Actor("coder", act)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            stop = made.page.get_by_role("button", name="Interrupt")
            await expect(stop).to_be_hidden()
            await made.say("go")
            await expect(made.page.get_by_text("I begin and do not end")).to_be_visible()
            await stop.click()
            await expect(made.log).to_contain_text("coder was interrupted")
            await expect(stop).to_be_hidden()
            await expect(made.log).to_contain_text("stopped: interrupted")


@browsing
async def test_what_is_taken_back_is_seen_no_more(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            for number in (1, 2):
                await made.say(f"word {number}")
                await made.over(number)
            room = (await running.hub.open("main")).room
            await room.undo()
            await expect(made.messages).to_have_count(2)
            await room.clear()
            await expect(made.log).to_contain_text("everybody starts afresh")
            await made.page.reload()
            await expect(made.messages).to_have_count(2)


@browsing
async def test_the_list_of_rooms_says_where_something_is_new(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        for room in ("main", "other"):
            await running.ask("POST", "/rooms", {"id": room})
        async with tab(browser, running.port, "main") as made:
            await running.ask("POST", "/rooms/other/messages", {"text": "psst"})
            other = made.page.get_by_role("link", name="other")
            await expect(other.locator(".badge")).to_have_text("2")
            await other.click()
            await expect(made.messages).to_have_count(2)
            await expect(other.locator(".badge")).to_have_count(0)
            await made.page.get_by_label("Filter rooms").fill("mai")
            await expect(other).to_have_count(0)
            await made.page.go_back()
            await expect(made.page.get_by_role("heading", name="main", level=1)).to_be_visible()


@browsing
async def test_whoever_comes_later_sees_who_speaks(tmp_path: Path, browser: Browser) -> None:
    go, waiting = asyncio.Event(), asyncio.Event()

    async def act(turn: Turn) -> str:
        speak(turn, "PAS")  # it may be saying nothing, and nothing is shown of that
        waiting.set()
        await go.wait()
        speak(turn, "TE is French")
        await asyncio.Event().wait()
        return ""

    async with stage(tmp_path, Actor("coder", act)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as first:
            await first.say("go")
            await waiting.wait()
            async with tab(browser, running.port, "main") as second:
                speaking = second.page.get_by_role("article", name="coder is speaking")
                await expect(speaking).to_be_visible()
                await expect(first.page.get_by_role("article", name="coder is speaking")).to_be_visible()
                assert "PAS" not in await first.page.locator("org-log").inner_text()
                go.set()
                await expect(speaking).to_contain_text("TE is French")
                await expect(first.page.locator("org-log")).to_contain_text("PASTE is French")
                await second.page.get_by_role("button", name="Interrupt").click()
                for made in (first, second):
                    await expect(made.log).to_contain_text("coder was interrupted")


FOLD = """
([events, info]) => {
  const nothing = () => {};
  const heard = ["added", "removed", "live", "members", "arrived", "asking"];
  const scene = new Scene(Object.fromEntries(heard.map(name => [name, nothing])));
  for (const event of events) scene.apply(event);
  const doing = [...scene.live.values()].map(live => {
    const view = new LiveView(live, scene);
    view.tick();
    return view.doing.textContent;
  });
  if (info) {
    scene.reconcile(info);
    const end = { participant: "coder", turn: 7, status: "interrupted", detail: "it ended", text: "" };
    scene.apply({ type: "turn_ended", ...end });
  }
  return { doing, blocks: scene.blocks.map(block => element(block, scene).innerText) };
}
"""


async def folded(made: Tab, *events: Event, info: object = None) -> Any:
    """What the page shows of these events, and of the room as it is then."""
    return await made.page.evaluate(FOLD, [[to_json(event) for event in events], info])


@browsing
async def test_what_was_said_when_the_server_was_killed_stays(tmp_path: Path, browser: Browser) -> None:
    gone = {"open": False, "busy": "", "running": []}
    events: list[Event] = [
        Joined("coder", "model", "simple", "m"),
        Invited("coder", 7, ()),
        Delta("The answer is ", participant="coder"),
        Delta("forty", participant="coder"),
    ]
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        words, end = (await folded(made, *events, info=gone))["blocks"]
        assert "The answer is forty" in words
        assert "cut off: the server ended" in words
        assert end == "the server ended while coder spoke; say something to go on"


@browsing
async def test_who_waits_for_a_word_does_not_think(tmp_path: Path, browser: Browser) -> None:
    events: list[Event] = [Joined("coder", "model", "agent", "m"), Invited("coder", 7, ())]
    asked = Asked("1", "coder", "sh", {})
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        assert (await folded(made, *events))["doing"] == ["thinking… "]
        assert (await folded(made, *events, asked))["doing"] == ["waits for your word"]


@browsing
async def test_why_an_address_is_refused_is_said_once(tmp_path: Path, browser: Browser) -> None:
    notice = Notice("coder: nobody is called `@bop`", participant="coder")
    told = Posted(Message(1, "room", "system", Audience.only("coder"), "nobody is called `@bop`", 0.0))
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        assert (await folded(made, notice, told))["blocks"] == ["coder: nobody is called `@bop`"]
        assert len((await folded(made, told))["blocks"]) == 1


@browsing
async def test_ten_tabs_of_one_browser_are_alive(tmp_path: Path, browser: Browser) -> None:
    """Though it opens six connections to a server, and a stream takes one."""
    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        rooms = [f"room-{number}" for number in range(10)]
        for room in rooms:
            await running.ask("POST", "/rooms", {"id": room})
        async with tab(browser, running.port) as made:
            pages = [await made.page.context.new_page() for _ in rooms]
            for page, room in zip(pages, rooms, strict=True):
                await page.goto(f"{made.url}#/{room}")
                await expect(page.get_by_role("heading", name=room, level=1)).to_be_visible()
            for times in (1, 2):
                for room in rooms:
                    await running.ask("POST", f"/rooms/{room}/messages", {"text": f"{room} {times}"})
                for page, room in zip(pages, rooms, strict=True):
                    log = page.get_by_role("log", name="Messages")
                    await expect(log.get_by_text(f"{room} {times}", exact=True)).to_be_visible()
                    await expect(log.locator(".over:not(.day)")).to_have_count(times)


@browsing
async def test_a_room_is_shown_before_the_list_of_all(tmp_path: Path, browser: Browser) -> None:
    waiting = asyncio.Event()

    async def late(route: Route) -> None:
        await waiting.wait()
        await route.continue_()

    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        for room in ("main", "other"):  # an only one is gone to at once
            await running.ask("POST", "/rooms", {"id": room})
        async with tab(browser, running.port) as made:
            await expect(made.page.get_by_role("heading", name="Choose a room")).to_be_visible()
            await made.page.route("**/rooms", late)
            await made.page.goto(f"{made.url}#/main")
            await expect(made.page.locator("[data-state=live]")).to_be_attached()
            waiting.set()
            await made.page.unroute_all(behavior="wait")


@browsing
async def test_a_question_of_approval_is_answered_once(tmp_path: Path, browser: Browser) -> None:
    asked = {"id": "7", "participant": "coder", "tool": "sh", "arguments": {"cmd": "rm -rf build"}}
    answers: list[object] = []

    async def answer(route: Route) -> None:
        answers.append(route.request.post_data_json)
        await route.fulfill(json={})

    async def room(route: Route) -> None:
        got = await route.fetch()
        await route.fulfill(response=got, json=await got.json() | {"asking": [] if answers else [asked]})

    async with stage(tmp_path, Actor("coder", saying("hi"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port) as made:
            await made.page.route("**/rooms/main", room)
            await made.page.route("**/rooms/main/approvals/7", answer)
            await made.page.goto(f"{made.url}#/main")
            question = made.page.get_by_role("region", name="Approval")
            await expect(question).to_contain_text("coder asks to run sh")
            await expect(question.locator("pre")).to_have_text("rm -rf build")
            await question.get_by_role("button", name="Deny").click()
            await expect(question).to_be_hidden()
    assert answers == [{"allow": False}]


@browsing
async def test_a_real_call_waits_for_whoever_answers_first(tmp_path: Path, browser: Browser) -> None:
    def coders(opening: Opening) -> list[Participant]:
        calls = calling(call("sh", cmd="rm -rf build"))
        approval = Approval(opening.ask)
        return [participant("coder", calls, "It is gone.", tools=[tool(policy="ask")], approval=approval)]

    async with site(tmp_path, open_room=rooms_for(coders)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as first, tab(browser, running.port) as second:
            await first.say("clean up")
            await expect(first.page.get_by_role("region", name="Approval")).to_be_visible()
            await second.page.goto(f"{second.url}#/main")  # comes when it was asked already
            questions = [made.page.get_by_role("region", name="Approval") for made in (first, second)]
            for question in questions:
                await expect(question.locator("pre")).to_have_text("rm -rf build")
            await questions[1].get_by_role("button", name="Allow once").click()
            for question in questions:
                await expect(question).to_be_hidden()
            await expect(first.log).to_contain_text("It is gone.")


# -- long rooms


def talk(count: int) -> list[Joined | Posted]:
    said = [
        Posted(
            Message(n, "me" if n % 2 else "coder", "person" if n % 2 else "model", EVERYONE, f"word {n}", n)
        )
        for n in range(1, count + 1)
    ]
    return [Joined("me", "person"), Joined("coder", "model", "agent", "m"), *said]


@browsing
async def test_of_a_long_room_a_part_is_rendered(tmp_path: Path, browser: Browser) -> None:
    await past(tmp_path, "main", *talk(5000))
    async with (
        stage(tmp_path, Actor("coder", saying("hi"))) as running,
        tab(browser, running.port, "main") as made,
    ):
        page = made.page
        await expect(made.log.get_by_text("word 5000", exact=True)).to_be_in_viewport()
        count = await made.messages.count()
        assert count < 100
        scroll = page.get_by_role("region", name="Conversation")
        seen = 5000 - count
        while seen > 4000:  # whoever goes up is shown more, and what was on the screen stays
            await scroll.evaluate("box => { box.scrollTop = 0 }")
            await expect(made.log.get_by_text(f"word {seen}", exact=True)).to_be_attached()
            seen -= 80
            assert await made.messages.count() < 500
        await made.say("and now?")  # who says something is taken to the end
        await expect(made.log.get_by_text("and now?")).to_be_in_viewport()
        await made.over()
        await scroll.evaluate("box => { box.scrollTop = 0 }")
        newest = page.get_by_role("button", name="Newest")
        await expect(newest).to_be_visible()
        await newest.click()
        await expect(made.log.get_by_text("hi", exact=True)).to_be_in_viewport()
        await expect(newest).to_be_hidden()


@browsing
async def test_who_has_scrolled_up_stays_there(tmp_path: Path, browser: Browser) -> None:
    await past(tmp_path, "main", *talk(200))
    async with (
        stage(tmp_path, Actor("coder", saying("a line\n\n" * 50))) as running,
        tab(browser, running.port, "main") as made,
    ):
        scroll = made.page.get_by_role("region", name="Conversation")
        await scroll.evaluate("box => { box.scrollTop -= 900 }")
        await expect(made.page.get_by_role("button", name="Newest")).to_be_visible()
        shown = made.log.get_by_text("word 180", exact=True)
        await shown.scroll_into_view_if_needed()
        place = await shown.bounding_box()
        await running.ask("POST", "/rooms/main/messages", {"text": "hi"})
        await made.over()
        await expect(made.page.get_by_role("button", name="2 new messages")).to_be_visible()
        assert await shown.bounding_box() == place


SWAP = """
box => { // a tall thing goes, and before the next frame a taller one comes
  const column = box.firstChild;
  const tall = height => Object.assign(document.createElement("div"), { style: `height: ${height}px` });
  const first = tall(1000);
  column.append(first);
  const frames = then => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(then)));
  return new Promise(done => frames(() => {
    const before = box.scrollTop;
    first.remove();
    const moved = box.scrollTop < before; // at once, as whoever asks for the place sees
    column.append(tall(3000));
    frames(() => done([moved, box.scrollHeight - box.scrollTop - box.clientHeight]));
  }));
}
"""


@browsing
async def test_the_end_is_followed_however_the_heights_change(tmp_path: Path, browser: Browser) -> None:
    await past(tmp_path, "main", *talk(40))
    async with (
        stage(tmp_path, Actor("coder", saying("hi"))) as running,
        tab(browser, running.port, "main") as made,
    ):
        scroll = made.page.get_by_role("region", name="Conversation")
        await expect(made.log.get_by_text("word 40", exact=True)).to_be_in_viewport()
        assert await scroll.evaluate(SWAP) == [True, 0]
        await expect(made.page.get_by_role("button", name="Newest")).to_be_hidden()
        await scroll.evaluate("box => { box.scrollTop -= 20 }")  # a person goes up, if only a little
        await scroll.evaluate("box => new Promise(done => requestAnimationFrame(done))")
        await scroll.evaluate("box => { box.firstChild.lastChild.style.height = '6000px' }")
        await expect(made.page.get_by_role("button", name="Newest")).to_be_visible()


@browsing
async def test_the_transcript_is_searched(tmp_path: Path, browser: Browser) -> None:
    await past(tmp_path, "main", *talk(1000))
    async with (
        stage(tmp_path, Actor("coder", saying("hi"))) as running,
        tab(browser, running.port, "main") as made,
    ):
        page = made.page
        await page.keyboard.press("Control+f")
        field = page.get_by_role("searchbox", name="Search this room")
        await expect(field).to_be_focused()
        await field.fill("WORD 12")
        await expect(page.get_by_text("11 of 11")).to_be_visible()  # 12 and 120 to 129
        await expect(made.log.get_by_text("word 129", exact=True)).to_be_in_viewport()
        await field.press("Enter")
        await expect(page.get_by_text("1 of 11", exact=True)).to_be_visible()
        await expect(made.log.get_by_text("word 12", exact=True)).to_be_in_viewport()
        marked = "[...CSS.highlights.get('now')].map(range => range.toString())"
        assert await page.evaluate(marked) == ["word 12"]
        await page.get_by_role("checkbox", name="matches only").check()
        await expect(made.messages).to_have_count(11)
        await field.fill("nothing like it")
        await expect(page.get_by_text("no match")).to_be_visible()
        await field.press("Escape")
        await expect(field).to_be_hidden()
        await expect(made.log.get_by_text("word 1000", exact=True)).to_be_in_viewport()


# -- a server that goes and comes back


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    yield from listening()


@browsing
async def test_a_killed_server_loses_and_doubles_nothing(
    tmp_path: Path, browser: Browser, listener: socket.socket
) -> None:
    port = int(listener.getsockname()[1])
    server = await Process(tmp_path, listener).start()
    try:
        await ask(port, "POST", "/rooms", {"id": "main"})
        # What the browser says about a server that is gone is no error of the page.
        async with tab(browser, port, "main", check=False) as made:
            state = made.page.locator(".link-state")
            await made.say("word 0")
            await made.over()
            for number, how in ((1, signal.SIGKILL), (2, signal.SIGTERM), (3, signal.SIGKILL)):
                server.popen.send_signal(how)
                await server.exit_code()
                await expect(state).to_have_text("reconnecting…")
                await made.say(f"word {number}")
                server.close()
                server = await Process(tmp_path, listener).start()
                await expect(state).to_have_text("live")
                await made.over(number + 1)
            assert await made.messages.locator(".md").all_inner_texts() == [
                text for n in range(4) for text in (f"word {n}", f"heard: word {n}")
            ]
            assert await made.page.evaluate("broken") == []
            assert [error for error in made.errors if "ERR_" not in error and "503" not in error] == []
    finally:
        server.close()


@browsing
async def test_who_spoke_when_the_server_was_killed_speaks_no_more(
    tmp_path: Path, browser: Browser, listener: socket.socket
) -> None:
    port = int(listener.getsockname()[1])
    server = await Process(tmp_path, listener).start()
    try:
        await ask(port, "POST", "/rooms", {"id": "main"})
        async with tab(browser, port, "main", check=False) as made:
            gate = tmp_path / "gate"
            os.mkfifo(gate)
            await made.say("wait")
            await expect(made.page.get_by_role("article", name="parrot is speaking")).to_be_visible()
            server.close()
            gate.unlink()
            server = await Process(tmp_path, listener).start()
            await expect(made.log).to_contain_text("the server ended while parrot spoke")
            await expect(made.page.get_by_role("button", name="Interrupt")).to_be_hidden()
            await made.say("and now?")
            await expect(made.log).to_contain_text("heard: and now?")
    finally:
        server.close()


@browsing
@pytest.mark.engine
async def test_a_room_on_the_engine(tmp_path: Path, engine: Engine, browser: Browser) -> None:
    home = Home(tmp_path, engine.base_url, engine.model)
    home.roster({"coder": ("agent", "think-tool"), "guide": ("simple", "markdown")})
    with served(home, "--room", "main", "--unsafe-local") as (_, port, token):
        async with tab(browser, port, sign_in=False) as made:
            await made.page.goto(f"{made.url}#token={token}")
            await made.page.get_by_role("link", name="main").click()
            await made.say("go")
            await made.over()
            await expect(made.log.locator("details.call .ended")).to_contain_text("exit 0")
            await expect(made.log).to_contain_text("It is that year.")
            await expect(made.log.get_by_role("heading", name="Title")).to_be_visible()
            await expect(made.log.locator("pre code")).to_have_text("print('hi')")
