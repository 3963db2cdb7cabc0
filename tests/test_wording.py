"""Texts that reach a terminal, and things in few words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.wording import ago, clean, duration, one_line


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
