"""What models write cannot do more on the page than be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from org.ports import Turn
from page_kit import Actor, Tab, past, run, speak, stage, tab
from test_page import talk

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HTML = """
<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>
<iframe srcdoc="<script>alert(4)</script>">
<a href="javascript:alert(5)" onclick=alert(6)>x</a> </div></article><style>*{display:none}</style>
<base href="https://evil.example/"><form action="https://evil.example/"><input name=token></form>
"><script>alert(7)</script> &lt;b&gt; <!-- --> ]]> {{7*7}} ${alert(8)}
[one](javascript:alert(9)) [two](JaVaScRiPt:alert(10)) [three](data:text/html,<script>alert(11)</script>)
[four](vbscript:x) [five](java\tscript:alert(12)) [six](<javascript:alert(13)>) [seven](//evil.example)
![eight](https://evil.example/a.png) [nine](file:///etc/passwd) [ten](blob:https://evil.example/1)
![eleven](javascript:alert(14)) <https://evil.example/"onmouseover=alert(15)> javascript:alert(16)
`<script>alert(17)</script>` **<img src=x onerror=alert(18)>**

```html"><img src=x onerror=alert(19)>
<script>alert(20)</script>
```

| <script>alert(21)</script> | b |
|---|---|
| <img src=x onerror=alert(22)> | [x](javascript:alert(23)) |
"""
ESCAPES = (
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x1b[2J\x9b31m \x07\x08\x00 end"
)
BIDI = "user\u202eresu \u2066a\u2067b\u2069 \u200f\u061c\u200e ok"
# Texts on which a careless reader takes time that grows with the square of their length, or falls over.
SLOW = {
    "one line of a million characters": "x" * 900_000,
    "100,000 lines": "line\n" * 100_000,
    "quotes in quotes": ">" * 10_000,
    "quotes in quotes, line by line": "\n".join(">" * depth for depth in range(1, 190)),
    "lists in lists": "- " * 9_000,
    "indented lists": "".join(" " * depth + "- a\n" for depth in range(180)),
    "numbers in numbers": "1. " * 6_000,
    "opened and never closed": "**a _b ~~c `d [e](" * 1_000,
    "brackets": "[" * 19_000,
    "brackets and parentheses": "[a](" * 4_500,
    "nested links": "[" * 4_000 + "]()" * 4_000,
    "backticks of all lengths": " ".join("`" * n for n in range(190)),
    "backticks and tildes": "`~" * 9_000,
    "stars": "*" * 19_000,
    "stars and letters": "*a_" * 6_000,
    "underscores": "_a" * 9_000,
    "blanks at a fence": "```" + " " * 19_000 + "`",
    "blanks in a table": "|" + " " * 9_000 + "|\n|" + "-" * 900 + " " * 9_000 + "x|",
    "many columns": "|" * 9_000 + "\n" + "|-" * 4_500,
    "dashes": "- " * 90 + "x" + "\n---" * 4_000,
    "addresses": "https://" * 2_000,
    "headings": "# " * 9_000,
    "escapes": "\\" * 19_000,
    "sequences of a terminal": "\x1b[" * 9_000 + "\x1b]" * 9_000 + "\x1b[" + "0" * 9_000,
    "accents on accents": "a" + "\u0300" * 9_000,
    "emoji of emoji": "👩\u200d" * 4_000,
    "halves of pairs": "\ud800" * 50,
    "addresses of nobody": "@ada" * 4_000 + "\n@" * 4_000,
}


def actor(text: str) -> Actor:
    """Streams it in pieces, then says it; a command prints it, too."""

    async def act(turn: Turn) -> str:
        if turn.causes[-1].role != "person":
            return "PASS"
        speak(turn, text, "reasoning")
        for place in range(0, len(text), 50_000):
            speak(turn, text[place : place + 50_000])
        await run(turn, text[:100_000], text[:100_000], 0, 0.1)
        return "here: " + text

    return Actor("coder", act)


async def said(made: Tab, text: str = "go") -> None:
    await made.say(text)
    await made.over()
    for fold in await made.log.locator("details").all():
        await fold.evaluate("fold => { fold.open = true }")


async def test_html_scripts_and_links_stay_text(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, actor(HTML)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            for _ in range(2):
                for fold in await made.log.locator("details").all():
                    await fold.evaluate("fold => { fold.open = true }")
                if not await made.messages.count():
                    await said(made)
                page = made.page
                made_by_us = (
                    "script, img, iframe, form[action], base, object, embed, style:not([nonce]), [onclick]"
                )
                assert await page.locator(f"body :is({made_by_us}):not(body > script)").count() == 0
                links = await made.log.locator("a").evaluate_all(
                    "links => links.map(a => [a.href, a.rel, a.target])"
                )
                assert all(href.startswith("https://evil.example/") for href, _, _ in links), links
                assert {(rel, target) for _, rel, target in links} == {("noopener noreferrer", "_blank")}
                await expect(made.messages.last).to_contain_text("<script>alert(1)</script>")
                await expect(made.messages.last).to_contain_text("[one](javascript:alert(9))")
                await expect(made.messages.last).to_contain_text("eight (evil.example)")
                await page.reload()
                await expect(made.messages.last).to_be_visible()


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.append(Object.assign(document.createElement('script'), {text: 'alert(1)'}))",
        "document.body.setAttribute('onclick', 'alert(1)')",
        "document.body.innerHTML = '<b>x</b>'",
        "document.write('x')",
        "fetch('http://127.0.0.1:9/')",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))",
        "document.head.append(Object.assign(document.createElement('style'), {textContent: '*{}'}))",
        "document.body.append(document.createElement('iframe'))",
    ],
)
async def test_what_gets_past_the_page_meets_its_policy(
    tmp_path: Path, browser: Browser, attempt: str
) -> None:
    async with stage(tmp_path) as running, tab(browser, running.port, check=False) as made:
        await made.page.evaluate(f"() => {{ setTimeout(() => {{ {attempt} }}) }}")
        await expect(made.page.get_by_role("heading", name="No rooms yet")).to_be_visible()
        if "iframe" in attempt:
            await made.page.locator("iframe").evaluate("frame => { frame.src = 'http://127.0.0.1:9/' }")
        await made.page.evaluate("firstBroken")
        assert all(problem.startswith("policy: ") for problem in await made.page.evaluate("broken"))


async def test_what_drives_a_terminal_or_turns_the_writing_is_gone(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path, actor(ESCAPES + "\n" + BIDI)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            await said(made)
            shown = await made.log.inner_text()
            assert not set(shown) & set("\x1b\x9b\x07\x08\x00\u202e\u2066\u2067\u2069\u200f\u061c\u200e")
            assert "red link" in shown
            assert "userresu ab" in shown
            assert "[31m" not in shown.replace("\x9b31m", "")


async def test_nothing_freezes_the_page(tmp_path: Path, browser: Browser) -> None:
    texts = [*SLOW.values()]

    async def act(turn: Turn) -> str:
        cause = turn.causes[-1]
        if cause.role != "person":
            return "PASS"
        return f"done {cause.content}\n@group {await actor(texts[int(cause.content)]).act(turn)}"

    async with stage(tmp_path, Actor("coder", act)) as running:
        await running.ask("POST", "/rooms", {"id": "main"})
        async with tab(browser, running.port, "main") as made:
            for number in range(len(texts)):
                await made.say(str(number))
                await expect(made.log.get_by_text(f"done {number}", exact=True)).to_be_attached()
                # Whoever goes on typing is answered: the page is not busy with what was said.
                await made.field.fill("still here")
                await expect(made.page.get_by_role("button", name="Send")).to_be_enabled()


async def test_time_grows_with_the_length_and_no_faster(tmp_path: Path, browser: Browser) -> None:
    """Four times the text takes about four times as long; the square would be sixteen."""
    grow = """
    ([text, times]) => {
      const take = text => {
        let best = Infinity;
        for (let i = 0; i < times; i++) {
          const began = performance.now();
          markdown(clean(text));
          best = Math.min(best, performance.now() - began);
        }
        return best;
      };
      return [take(text), take(text + text + text + text)];
    }
    """
    async with stage(tmp_path, actor("")) as running, tab(browser, running.port) as made:
        slow = {}
        for name, text in SLOW.items():
            short, long = await made.page.evaluate(grow, [text[:5_000], 5])
            if long > 12 * max(short, 5.0):  # ms; much noise is let through
                slow[name] = (short, long)
        assert slow == {}


async def test_a_long_message_is_folded_and_all_of_it_can_be_had(tmp_path: Path, browser: Browser) -> None:
    await past(tmp_path, "main", *talk(1))
    text = "begin " + "x" * 500_000 + " end"
    async with stage(tmp_path, actor(text)) as running, tab(browser, running.port, "main") as made:
        await made.say("go")
        await made.over()
        message = made.messages.last
        assert len(await message.inner_text()) < 21_000
        await message.get_by_role("button", name="Show all").click()
        await expect(message.locator(".plain").last).to_contain_text(" end")
        assert len((await message.text_content() or "").replace("\n", "")) > len(text)
