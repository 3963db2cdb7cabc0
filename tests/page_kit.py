"""The web page in a real Chromium, on a server whose participants do what a test says."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Locator, Page, async_playwright, expect

from org.chat.room import Schedule
from org.compose.rooms import rooms_of
from org.events import CallFinished, CallStarted, Committed, Delta, Joined
from org.journal import RoomJournal, room_folder
from org.ports import Turn
from org.sandbox.local import Local
from org.tooling import ToolCall, ToolError, ToolResult
from serve_kit import TOKEN, Site, settings_in, site

# Without these it speaks to its maker's hosts when it starts; and whoever runs the tests may be root.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=60_000)

# What a page may not do; the page under test reports it here.
WATCH = """
window.broken = [];
window.firstBroken = new Promise(resolve => {
  addEventListener("securitypolicyviolation", event => {
    broken.push(`policy: ${event.violatedDirective}`);
    resolve();
  });
});
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => broken.push(name);
"""


# Elements whose own text stands out too little from what is behind it: [text, ratio].
FAINT = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colour, below) => {
    canvas.globalCompositeOperation = "copy";
    canvas.fillStyle = `rgb(${below})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.globalCompositeOperation = "source-over";
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = colour => {
    const line = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.map(v => line(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  let looked = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter(node => node.nodeType === 3);
    const text = own.map(node => node.data).join("").trim();
    const typed = element.matches("input, textarea") && (element.value || element.placeholder);
    if (!(text || typed) || element.matches("option, script, style")) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(getComputedStyle(e).backgroundColor);
    const behind = chain.reduce((below, colour) => over(colour, below), [255, 255, 255]);
    const colour = getComputedStyle(element, element.value === "" ? "::placeholder" : null).color;
    const [a, b] = [light(over(colour, behind)), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    looked++;
    if (ratio < 4.5) faint.push([(text || typed).slice(0, 40), Math.round(ratio * 100) / 100]);
  }
  return { looked, faint };
}
"""
# Controls without a name.
NAMELESS = """
() => [...document.querySelectorAll("button, a, input, textarea, select, summary, meter, dialog")]
  .filter(e => !e.ariaLabel && !e.hasAttribute("aria-labelledby"))
  .filter(e => !e.textContent.trim() && !e.labels?.length)
  .map(e => e.outerHTML.slice(0, 200))
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path, "not installed: chromium (`apt-get install chromium`)"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Actor:
    """A participant who answers as `act` says."""

    name: str
    act: Callable[[Turn], Awaitable[str]]
    profile: str = "agent"
    model: str = "qwen3:8b"

    @property
    def introduction(self) -> Joined:
        return Joined(self.name, "model", self.profile, self.model)

    async def respond(self, turn: Turn) -> str:
        return await self.act(turn)


def saying(text: str) -> Callable[[Turn], Awaitable[str]]:
    """Says that once to each person, and has nothing to add to what others say."""

    async def act(turn: Turn) -> str:
        return text if turn.causes[-1].role == "person" else "PASS"

    return act


def speak(turn: Turn, text: str, kind: Any = "text") -> None:
    turn.emit(Delta(text, kind, turn.participant))


async def run(turn: Turn, cmd: str, output: str, exit_code: int, seconds: float) -> None:
    """A command that was run."""
    call = ToolCall(f"call-{turn.id}-{exit_code}", "sh", {"cmd": cmd})
    turn.emit(CallStarted(turn.participant, call))
    error = ToolError("failed", f"exit code {exit_code}") if exit_code else None
    result = ToolResult(call.id, output, error, exit_code, seconds)
    await turn.commit(CallFinished(turn.participant, turn.id, call, result))


@asynccontextmanager
async def stage(folder: Path, *actors: Actor) -> AsyncIterator[Site]:
    """A server whose rooms have these actors, who speak at the same time, and a workspace."""
    work = folder / "work"
    work.mkdir()
    room = {"schedule": Schedule("parallel", len(actors), len(actors)), "files": Local(work, unsafe=True)}
    async with site(folder, lambda: actors, room=room) as running:
        yield running


async def past(folder: Path, room: str, *events: Committed) -> None:
    """Write a room that was there before."""
    async with RoomJournal.open(room_folder(rooms_of(settings_in(folder)), room)) as journal:
        await journal.append(events)


@dataclass
class Tab:
    """A page that is signed in, and what went wrong in it."""

    page: Page
    port: int
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log", name="Messages")

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def messages(self) -> Locator:
        return self.log.locator("article")

    async def say(self, text: str) -> None:
        await self.field.fill(text)
        await self.field.press("Enter")

    async def over(self, count: int = 1) -> None:
        """Wait until that many exchanges are over."""
        await expect(self.log.locator(".over:not(.day)")).to_have_count(count)

    async def check(self) -> None:
        """Nothing went wrong, and nobody else was spoken to."""
        assert self.errors == []
        assert await self.page.evaluate("broken") == []
        assert self.hosts <= {f"127.0.0.1:{self.port}"}


@asynccontextmanager
async def tab(
    browser: Browser, port: int, room: str = "", *, sign_in: bool = True, check: bool = True, **options: Any
) -> AsyncIterator[Tab]:
    """A tab of a browser of its own, signed in by the link, in a room; `options` are of the browser.
    At the end nothing may have gone wrong in it, unless `check` is off."""
    options = {"viewport": {"width": 1280, "height": 800}, **options}
    context = await browser.new_context(**options)
    try:
        await context.add_init_script(WATCH)
        made = Tab(await context.new_page(), port)
        watch(made)
        if sign_in:
            await made.page.goto(f"{made.url}#token={TOKEN}")
            await expect(made.page.locator("org-rooms")).to_be_attached()
        if room:
            await made.page.goto(f"{made.url}#/{room}")
            await expect(made.page.get_by_role("heading", name=room, level=1)).to_be_visible()
            await expect(made.page.locator("[data-state=live]")).to_be_attached()
        yield made
        if check:
            await made.check()
    finally:
        await context.close()


def watch(made: Tab) -> None:
    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            made.errors.append(message.text)

    def thrown(error: Error) -> None:
        made.errors.append(error.stack or error.message)

    made.page.on("console", said)
    made.page.on("pageerror", thrown)
    made.page.on("request", lambda request: made.hosts.add(urlsplit(request.url).netloc))
    made.page.on("dialog", lambda dialog: made.errors.append(f"dialog: {dialog.message}"))
