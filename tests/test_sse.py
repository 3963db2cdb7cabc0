from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.errors import StreamBroken
from org.llm import sse
from org.llm.sse import Splitter
from replay import cut


def split(*pieces: bytes) -> list[bytes]:
    splitter = Splitter()
    return [payload for piece in pieces for payload in splitter.feed(piece)] + splitter.finish()


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": ping\n\n\n\n: ping\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\n: note\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a", [b"a"]),
        (b"data: a\n", [b"a"]),
        (b"data\n\ndatabase: a\n\nerror: b\n\n", []),
        (b"data:\n\n", [b""]),
        ("data: \u2028\u2029\x85\x0b\x0c\x1c\n\n".encode(), ["\u2028\u2029\x85\x0b\x0c\x1c".encode()]),
        (b"", []),
        (b"\n\n\n", []),
    ],
)
def test_payloads_of_a_stream_however_it_is_cut(stream: bytes, payloads: list[bytes]) -> None:
    assert split(stream) == payloads
    assert split(*(bytes([byte]) for byte in stream)) == payloads
    for at in range(len(stream) + 1):
        assert split(stream[:at], b"", stream[at:]) == payloads


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["text", "\u2028", "\u0085", "é", "🎉", '"', "\\", "\n", " "]).map("x".__add__)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(min_value=0), max_size=12),
)
def test_json_comes_through_any_line_end_and_any_cut(texts: list[str], end: bytes, points: list[int]) -> None:
    payloads = [json.dumps(text, ensure_ascii=False).encode() for text in texts]
    stream = b"".join(b"data: %b%b: ping%b%b" % (payload, end, end, end) for payload in payloads)
    assert split(*cut(stream, points)) == payloads


SCRAPS = st.sampled_from([b"data: ", b"a", b"\r", b"\n", b":", b"\xef\xbb\xbf", b" "])


@settings(deadline=None)
@given(st.lists(SCRAPS, max_size=30), st.lists(st.integers(min_value=0), max_size=10))
def test_any_bytes_give_the_same_however_they_are_cut(parts: list[bytes], points: list[int]) -> None:
    stream = b"".join(parts)
    assert split(*cut(stream, points)) == split(stream)


def test_a_line_of_megabytes_comes_through_in_small_pieces() -> None:
    piece = b"x" * 1024
    splitter = Splitter()
    splitter.feed(b"data: ")
    for _ in range(4 * 1024):
        assert splitter.feed(piece) == []
    assert splitter.feed(b"\n\n") == [piece * 4 * 1024]


@pytest.mark.parametrize("flood", [b"x" * 100, b"data: x" * 14 + b"\n", b": ping" * 16 + b"\ndata: y\n"])
def test_an_event_without_an_end_is_given_up(flood: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 5_000)
    with pytest.raises(StreamBroken, match="an event of more than 5000 bytes"):
        split(*[flood] * 100)


def test_many_events_together_may_be_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT", 5_000)
    splitter = Splitter()
    for size in (1, 10, 99):
        event = b"data: " + b"y" * size + b"\n\n"
        for _ in range(1_000):
            assert len(splitter.feed(event[:3]) + splitter.feed(event[3:] + event + b": ping\n")) == 2
