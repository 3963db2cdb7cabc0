"""What reaches a terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.cli.style import Style, ago, clean, duration, one_line, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_clean_text_cannot_drive_a_terminal(text: str) -> None:
    cleaned = clean(text)
    for char in cleaned:
        assert char in "\n\t" or char.isprintable() or ord(char) > 0x9F
    assert not set(cleaned) & set("\u202e\u2066\u2069\u200f\x1b\x9b\r")
    assert clean(cleaned) == cleaned


def test_what_is_clean_can_be_written_to_any_terminal() -> None:
    assert clean("half \ud83d").encode() == b"half \xef\xbf\xbd"


def test_clean_keeps_what_people_write() -> None:
    text = "naïve 你好 👩‍💻\n\tindented"  # a joiner of emoji is no control
    assert clean(text) == text


def test_clean_defuses_an_escape_and_an_overwriting_return() -> None:
    assert clean("a\x1b[2Jb\x1b]0;title\x07c") == "a[2Jb]0;titlec"
    assert clean("rm -rf /\rls") == "rm -rf /\nls"
    assert clean("one\r\ntwo") == "one\ntwo"


@pytest.mark.parametrize(
    ("stream", "env", "colours"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),  # empty counts as not set
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(
    stream: io.StringIO, env: dict[str, str], colours: bool
) -> None:
    style = Style.for_stream(stream, env)
    assert style.red("x") == ("\x1b[31mx\x1b[0m" if colours else "x")


def test_nothing_is_painted_around_nothing() -> None:
    assert Style(True).bold("") == ""


def test_one_line_cuts_at_its_width() -> None:
    assert one_line("a\n b\t c", 10) == "a b c"
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (0, "just now"),
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_how_long_ago(gone: float, words: str) -> None:
    assert ago(1e9 - gone, 1e9) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_table_lines_up_and_has_no_blanks_at_its_ends() -> None:
    assert (
        table(("ID", "N"), [("room-1", "2"), ("x", "10")], Style(False)) == "ID      N\nroom-1  2\nx       10"
    )
