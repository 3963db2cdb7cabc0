"""Markdown of models as rows of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from org.tui.markdown import Look, lines_of, rows_of
from org.wording import clean

LOOK = Look(code=Style(color="blue"), head=Style(bold=True), dim=Style(dim=True))


def rows(text: str, width: int = 40) -> list[str]:
    return [line.plain.rstrip() for line in lines_of(text, width, LOOK)]


def test_what_models_write() -> None:
    text = (
        "# Head\nSome *em*, **strong** and `code`.\n\n- one\n- two\n  - inner\n\n"
        "3. three\n4. four\n\n> quoted\n\n```py\nif x:\n\ty\n```"
    )
    assert rows(text) == [
        "Head",
        "Some em, strong and code.",
        "",
        "• one",
        "• two",
        "  ◦ inner",
        "",
        "3. three",
        "4. four",
        "",
        "│ quoted",
        "",
        "py",
        "  if x:",
        "      y",
    ]


def test_styles_stand_on_their_words() -> None:
    (line,) = lines_of("a **b** `c`", 40, LOOK)
    styles = {line.plain[span.start : span.end]: span.style for span in line.spans}
    assert styles["b"] == Style(bold=True)
    assert styles["c"] == LOOK.code


def test_a_table_and_one_that_is_too_wide() -> None:
    table = "| name | value |\n|---|---|\n| a | 1 |\n| b | 22 |"
    assert rows(table) == ["name │ value", "─────┼──────", "a    │ 1", "b    │ 22"]
    assert rows(table, 10) == ["name: a", "value: 1", "", "name: b", "value: 22"]


def test_line_ends_stay() -> None:
    assert rows("one\ntwo") == ["one", "two"]


@pytest.mark.parametrize(
    "text",
    [
        "<b>x</b> <script>alert(1)</script>",
        "<div>\nblock\n</div>",
        "[red]x[/red] [@click=app.quit]y[/]",
        "&lt;b&gt;",
        "[x]: http://hidden.example",
        "> " * 60 + "deep",
        ">",
        '[a](http://b.example "title")',
    ],
)
def test_nothing_that_was_written_is_hidden(text: str) -> None:
    shown = "".join(rows(text, 400))
    assert [c for c in text if c.isalpha()] == [c for c in shown if c.isalpha()]
    assert shown


def test_a_link_shows_where_it_leads_and_is_none() -> None:
    lines = lines_of("[here](javascript:alert(1)) and <http://a.example>", 60, LOOK)
    assert lines[0].plain == "here (javascript:alert(1)) and http://a.example"
    assert all(isinstance(span.style, Style) and not span.style.link for span in lines[0].spans)


@given(st.text(alphabet="ab*_`#>-|~[]()!<&\\ \n\t1.你", max_size=120), st.integers(8, 40))
def test_any_text_fits_and_is_shown(text: str, width: int) -> None:
    text = clean(text)
    lines = lines_of(text, width, LOOK)
    assert all(line.cell_len <= width for line in lines if "│" not in line.plain and "  " not in line.plain)
    shown = "".join(line.plain for line in lines)
    assert shown.count("a") >= text.count("a")
    assert shown.count("你") >= text.count("你")


@given(st.text(alphabet="ab 你", max_size=80), st.integers(2, 20))
def test_rows_of_a_line_fit_and_keep_every_word(line: str, width: int) -> None:
    found = rows_of(line, width)
    assert all(cell_len(row) <= width for row in found)
    assert "".join(found).replace(" ", "") == line.replace(" ", "")


def test_a_very_long_line_is_plain() -> None:
    assert rows("*" + "x" * 5000 + "*", 100)[0] == "*" + "x" * 99
