"""Markdown as the page renders it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser

from page_kit import stage, tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

CASES = {
    "a *b* _c_ **d** __e__ ~~f~~ ***g***": "<p>a <em>b</em> <em>c</em> <strong>d</strong> "
    "<strong>e</strong> <s>f</s> <strong><em>g</em></strong></p>",
    "a * b, snake_case_name, **open, *open": "<p>a * b, snake_case_name, **open, *open</p>",
    "**a *b** c*": "<p><strong>a *b</strong> c*</p>",
    r"\*a\* \[b](c) 1 < 2 & 3 \```": "<p>*a* [b](c) 1 &lt; 2 &amp; 3 ```</p>",
    "`a*b*` ``c ` d`` `e": "<p><code>a*b*</code> <code>c ` d</code> `e</p>",
    "# One\n## Two ##\n#no": "<h3>One</h3><h4>Two</h4><p>#no</p>",
    "a\nb\n\nc": "<p>a\nb</p><p>c</p>",
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "- a\n- b\n  - c\n\n  d\n- [x] e": "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul>"
    "<p>d</p></li><li><p>☑ e</p></li></ul>",
    "3. a\n4. b\n\n- c": "<ol><li><p>a</p></li><li><p>b</p></li></ol><ul><li><p>c</p></li></ul>",
    "---\na\n\n***": "<hr><p>a</p><hr>",
    "```py x\na <b>\n\n```\nc": "<div><div><span>py x</span><button>Copy</button></div>"
    "<pre><code>a &lt;b&gt;\n</code></pre></div><p>c</p>",
    "~~~\n```\n~~~": "<div><div><span>code</span><button>Copy</button></div>"
    "<pre><code>```</code></pre></div>",
    "| a | *b* |\n|:--|--:|\n| c | d |\n\ne | f": "<div><table><thead><tr><th>a</th><th><em>b</em></th>"
    "</tr></thead><tbody><tr><td>c</td><td>d</td></tr></tbody></table></div><p>e | f</p>",
    "[a](https://e.org/x_(y)) <https://e.org>.": "<p><span><a>a</a><span> (e.org)</span></span> "
    "<a>https://e.org</a>.</p>",
    "<https://e.org/a)> <https://e.org b> x<https://e.org>y": "<p><a>https://e.org/a)</a> "
    "&lt;<a>https://e.org</a> b&gt; x<a>https://e.org</a>y</p>",
    "[e.org](https://e.org) [g.com](https://e.org)": "<p><a>e.org</a> "
    "<span><a>g.com</a><span> (e.org)</span></span></p>",
    "https://good.com@e.org/": "<p><span><a>https://good.com@e.org/</a><span> (e.org)</span></span></p>",
    "[a](mailto:b@e.org) [c](ftp://e.org) [d](/x)": "<p><span><a>a</a><span> (b@e.org)</span></span> "
    "[c](ftp://e.org) [d](/x)</p>",
}


async def test_markdown_becomes_elements(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        for text, wanted in CASES.items():
            shown = await made.page.evaluate("text => markdown(text).innerHTML", text)
            assert re.sub(r"<(\w+) [^>]*>", r"<\1>", shown) == wanted, text


async def test_of_any_text_every_word_is_shown(tmp_path: Path, browser: Browser) -> None:
    chance = random.Random(7)
    marks = ["*", "**", "***", "_", "__", "~~", "`", "``", "[", "]", "](", "\n", "\n\n", " ", "  ", "\\", "|"]
    marks += ["\n- ", "\n1. ", "\n> ", "\n# ", "\n---\n", "\n|-|-|\n", "!", "<", ">", "&"]
    texts = []
    for _ in range(3000):
        pieces = [chance.choice(marks) if chance.random() < 0.6 else f"w{n}" for n in range(30)]
        texts.append("".join(pieces))
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        shown = await made.page.evaluate("texts => texts.map(text => markdown(text).textContent)", texts)
    for text, words in zip(texts, shown, strict=True):
        assert re.findall(r"w\d+", words) == re.findall(r"w\d+", text), text


SPEECH = (
    "Intro **bold**\nline two\n\n- a\n- b\n\n```py\ncode 1\n\n@me code 2\n```\nafter\n\n"
    "# head\ntext\n~~~\nx\n~~~\n\n@me private\n\nmore\n#file:a/b.md into it\n"
    "@group @nobody-like-that all\n```\n" + "a line\n" * 3000 + "```\nend"
)
# What is seen of a text that comes in pieces.
STREAM = """
([text, sizes]) => {
  const nothing = () => {};
  const scene = new Scene({ added: nothing, live: nothing, members: nothing });
  scene.apply({ type: "joined", name: "me", kind: "person" });
  scene.apply({ type: "joined", name: "coder", kind: "model" });
  const live = scene.speaker("coder");
  const view = new LiveView(live, scene);
  for (let at = 0, i = 0; at < text.length; i++) {
    const size = sizes[i % sizes.length];
    const piece = text.slice(at, at + size);
    scene.apply({ type: "delta", participant: "coder", kind: "text", text: piece });
    view.flush();
    at += size;
  }
  scene.apply({ type: "stepped", participant: "coder", turn: 1, text: "", usage: null });
  view.flush();
  return view.flow.textContent.replace(/\\s+/g, "");
}
"""


async def test_speech_looks_the_same_in_whatever_pieces_it_comes(tmp_path: Path, browser: Browser) -> None:
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        whole = await made.page.evaluate(STREAM, [SPEECH, [len(SPEECH)]])
        for word in ("onlyto@me", "intoa/b.md", "@mecode2", "@nobody-like-thatall", "aline" * 3000, "end"):
            assert word in whole
        for sizes in ([3], [1, 7, 2], [64], [5000]):
            assert await made.page.evaluate(STREAM, [SPEECH, sizes]) == whole, sizes


async def test_whoever_begins_in_the_middle_sees_what_was_said_so_far(
    tmp_path: Path, browser: Browser
) -> None:
    stream = STREAM.replace("([text,", "([begun, text,").replace(
        "const live =", "scene.apply(begun); const live ="
    )
    begun = {
        "type": "so_far",
        "participant": "coder",
        "turn": 1,
        "model": "m",
        "text": "# Title\n\n@me it is ",
        "reasoning": "",
        "call": None,
        "output": "",
    }
    async with stage(tmp_path) as running, tab(browser, running.port) as made:
        assert await made.page.evaluate(stream, [begun, "so", [1]]) == "Titleonlyto@meitisso"
