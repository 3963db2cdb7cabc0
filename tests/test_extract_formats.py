"""The table of formats: what is documented is there, and a row is all that a new format takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from org.llm.extract import extract_tool_calls, formats, lexicon, patterns

DOCS = (Path(__file__).parent.parent / "docs" / "formats.md").read_text("utf-8")
WEATHER = [{"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}]


def test_the_documented_table_is_the_table() -> None:
    table = DOCS.split("<!-- formats -->")[1].split("<!-- end -->")[0]
    rows = {}
    for line in table.strip().splitlines()[2:]:
        name, openings = re.fullmatch(r"\| (\S+) \| (.*) \|", line).groups()  # type: ignore[union-attr]
        rows[name] = {opening.strip("` ").replace("\\|", "|") for opening in openings.split(" · ")}
    expected: dict[str, set[str]] = {}
    for format in formats.FORMATS:
        openings = (opening.replace("{tool}", "NAME") for opening in format.open)
        expected.setdefault(format.name, set()).update(openings)
    assert rows == expected


def test_the_documented_row_is_enough_for_a_new_format(monkeypatch: pytest.MonkeyPatch) -> None:
    code = DOCS.split("```python\n")[2].split("```")[0]
    row = eval(code, vars(formats) | vars(patterns))
    text = DOCS.split("Say a model writes\n\n")[1].split("\n")[0].strip()
    assert extract_tool_calls(text, WEATHER).calls == ()
    monkeypatch.setattr(lexicon, "FORMATS", (*formats.FORMATS, row))
    lexicon.lexicon.cache_clear()
    try:
        found = extract_tool_calls(f"Ok. {text} Done.", WEATHER)
    finally:
        lexicon.lexicon.cache_clear()
    assert [(call.name, call.arguments, call.origin.grammar) for call in found.calls] == [
        ("weather", {"city": "Oslo"}, "double-angle")
    ]
    assert found.content == "Ok.  Done."


def test_every_row_can_match() -> None:
    for format in formats.FORMATS:
        assert format.open
        row = lexicon.Row(format, ("weather",), "weather")
        assert row.head.match("", 0, final=False) is patterns.MORE or not format.head
        assert row.header is None or row.header.match("", 0, final=False) is patterns.MORE
