"""The web page for those who read in the dark, on a phone, by keys or by ear."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from org.ports import Turn
from page_kit import FAINT, NAMELESS, Actor, run, saying, stage, tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

LONG = (
    "# A heading\n\nSee [a page](https://example.com/a) or https://example.org/b and `code`.\n\n"
    + "w" * 300
    + "\n\n```python\n"
    + "print('a long line') " * 20
    + "\n```\n\n| a | b |\n|---|---|\n"
    + "| " + "cell " * 40 + " | x |\n\n> quoted\n\n1. one\n2. two\n"
)  # fmt: skip


async def full(turn: Turn) -> str:
    """Something of everything."""
    if turn.causes[-1].role != "person":
        return "PASS"
    await run(turn, "ls " + "x" * 200, "out", 0, 1)
    await run(turn, "false", "", 1, 1)
    return LONG + "\n@calc in private\n#file:notes.md\na note"


async def test_light_and_dark_are_kept(tmp_path: Path, browser: Browser) -> None:
    async with (
        stage(tmp_path, Actor("coder", saying("hi"))) as running,
        tab(browser, running.port, color_scheme="dark") as made,
    ):
        shade = "getComputedStyle(document.body).backgroundColor"
        dark = await made.page.evaluate(shade)
        await made.page.get_by_role("button", name="Light or dark").click()
        light = await made.page.evaluate(shade)
        assert light != dark
        await made.page.reload()
        assert await made.page.evaluate(shade) == light


async def test_it_is_readable_on_a_phone(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, Actor("coder", full), Actor("calc", saying("PASS"))) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        await running.ask("POST", "/rooms", {"id": "another"})
        phone: dict[str, Any] = {
            "viewport": {"width": 360, "height": 740},
            "is_mobile": True,
            "has_touch": True,
        }
        async with tab(browser, running.port, "main", **phone) as made:
            page = made.page
            await made.say("go")
            await made.over()
            for call in await made.log.locator("details").all():
                await call.locator("summary").click()
            assert await page.evaluate("document.documentElement.scrollWidth") == 360
            scroll = page.get_by_role("region", name="Conversation")
            assert await scroll.evaluate("box => box.scrollWidth <= box.clientWidth")
            rooms = page.get_by_role("link", name="another")
            await expect(rooms).to_be_hidden()
            await page.get_by_role("button", name="Rooms").click()
            await rooms.click()
            await expect(page.get_by_role("heading", name="another", level=1)).to_be_visible()
            await expect(rooms).to_be_hidden()


async def test_everything_is_done_by_keys(tmp_path: Path, browser: Browser) -> None:
    async def act(turn: Turn) -> str:
        if turn.causes[-1].content == "wait":
            await asyncio.Event().wait()
        return "heard" if turn.causes[-1].role == "person" else "PASS"

    async with stage(tmp_path, Actor("coder", act), Actor("calc", saying("PASS"))) as running:
        for room in ("one", "two", "three"):
            await running.ask("POST", "/rooms", {"id": room})
        async with tab(browser, running.port) as made:
            keys = made.page.keyboard
            await keys.press("Control+k")
            await keys.type("two")
            await keys.press("ArrowDown")
            await keys.press("Enter")
            await expect(made.page.get_by_role("heading", name="two", level=1)).to_be_visible()
            await expect(made.field).to_be_focused()
            audience = made.page.locator("#audience")
            await expect(audience).to_have_text("to everyone")
            await keys.type("@co")
            await expect(made.page.get_by_role("option", name="@coder")).to_have_attribute(
                "aria-selected", "true"
            )
            await keys.press("Tab")
            await expect(made.field).to_have_value("@coder ")
            await expect(audience).to_have_text("to @coder alone")
            await keys.type("one")
            await keys.press("Shift+Enter")
            await keys.type("#file:a.md two")
            await expect(audience).to_have_text("to @coder alone, then into #file:a.md")
            await keys.press("Control+a")
            await keys.type("@codr hi")
            await expect(audience).to_contain_text("did you mean @coder?")
            await keys.press("Control+a")
            await keys.type("@coder wait")
            await keys.press("Control+Enter")
            await expect(made.page.get_by_role("article", name="coder is speaking")).to_be_visible()
            await keys.press("Escape")
            await made.over()
            await keys.type("hello")
            await keys.press("Enter")
            await made.over(2)
            await expect(made.log).to_contain_text("heard")
            focused = (
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
            seen = set()
            for _ in range(60):
                await keys.press("Tab")
                seen.add(await made.page.evaluate(focused))
                ring = await made.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                inside = await made.page.evaluate("document.activeElement.matches('body, textarea')")
                assert ring != "none" or inside, seen
            names = ("New room", "Light or dark", "Filter rooms", "Search this room (Ctrl+F)", "Message")
            assert set(names) <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_read_it(tmp_path: Path, browser: Browser, scheme: str) -> None:
    names = ("coder", "calc", "d", "e", "f", "g", "h")
    actors = [Actor(name, full if name == "coder" else saying(f"I am {name}")) for name in names]
    async with stage(tmp_path, *actors) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main", color_scheme=scheme) as made:
            page = made.page
            await made.say("go")
            await made.over()
            for fold in await made.log.locator("details").all():
                await fold.locator("summary").click()
            await page.get_by_role("button", name="About the room").click()
            await made.field.fill("@calc hi")
            await page.get_by_role("button", name="Search this room").click()
            await page.evaluate(
                "app.scene._asked({id: '1', participant: 'coder', tool: 'sh', arguments: {cmd: 'ls'}})"
            )
            await page.evaluate("toast('Something went wrong')")
            read = await page.evaluate(FAINT)
            assert read["looked"] > 80
            assert read["faint"] == []
            assert await page.evaluate(NAMELESS) == []
            snapshot = await page.locator("body").aria_snapshot()
            for part in (
                "main",
                "navigation",
                "complementary",
                "log",
                "region",
                "search",
                "status",
            ):
                assert re.search(rf"^\s*- {part}\b", snapshot, re.MULTILINE), (part, snapshot)
            assert "textbox" in snapshot
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Keys").click()
            await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
            assert (await page.evaluate(FAINT))["faint"] == []
