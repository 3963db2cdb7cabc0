import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.tools.clip import clean, clip


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        ("grüße ✓ 🙂\n".encode(), "grüße ✓ 🙂\n"),
        (b"\xff\xfeab\x80", "��ab�"),
        (b"\x1b[1;31mred\x1b[0m \x1b[38:2::1:2:3mtrue\x1b[m", "red true"),
        (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        (b"\x1bPq#0;2\x1b\\sixel\x1b_apc\x1b\\", "sixel"),
        (b"\x1b(B\x1b=\x1b7a\x1bM", "a"),
        ("\u009b31ma\u009d0;t\u009cb".encode(), "ab"),
        (b"a\x00b\x07c\x08d\x7fe\x0b\x0cf", "abcdef"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\r\r\ntwo", "one\ntwo"),
        (b" 10%\r 50%\r100%\ndone\n", "100%\ndone\n"),
        (b" 10%\r 50%\r", " 50%"),
        (b" 10%\r\x1b[K 50%\r\x1b[K100%\n", "100%\n"),
        (b"cut \x1b[3", "cut "),
        (b"cut \x1b]0;ti", "cut "),
        (b"cut \x1b", "cut "),
        (b"", ""),
    ],
)
def test_clean(data: bytes, text: str) -> None:
    assert clean(data) == text


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_nothing_that_moves_a_cursor_is_left(data: bytes) -> None:
    text = clean(data)
    assert all(char in "\t\n" or not (ord(char) < 32 or 127 <= ord(char) < 160) for char in text)
    assert len(text) <= len(data)
    assert clean(text.encode()) == text


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_printable_text_is_left_alone(text: str) -> None:
    assert clean(text.encode()) == text


def test_a_gap_is_named() -> None:
    assert clip(b"head", b"tail", 12) == "head\n[... 12 bytes left out ...]\ntail"
    assert clip(b"head", b"tail", 0) == "headtail"
    assert clip("é".encode()[:1], "é".encode()[1:], 0) == "é"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), st.data())
def test_a_character_cut_by_the_gap_counts_as_left_out(text: str, data: st.DataObject) -> None:
    everything = text.encode()
    start = data.draw(st.integers(0, len(everything)))
    end = data.draw(st.integers(start, len(everything)))
    if start == end:
        return
    shown = clip(everything[:start], everything[end:], end - start)
    before, rest = shown.split("\n[... ", 1)
    count, after = rest.split(" bytes left out ...]\n", 1)
    assert text.startswith(before)
    assert text.endswith(after)
    assert len(before.encode()) + int(count) + len(after.encode()) == len(everything)
    assert int(count) - (end - start) <= 6


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (b"\r", ""),
        (b"a\r", "a"),
        (b"\x1b", ""),
        (b"\x1b[", ""),
        (b"\x1b]", ""),
        (b"\x1bP0", ""),
        (b"\x1b[0;", ""),
        (b"\x1b(", ""),
    ],
)
def test_what_a_careless_pattern_would_never_finish(unit: bytes, text: str) -> None:
    assert clean(unit * 1_000_000) == text
