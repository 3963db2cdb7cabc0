"""Frames, windows and greetings: any split, and nothing but the protocol's own error."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from org.sandbox.vm import frames
from org.sandbox.vm.frames import Decoder, Frame, Greeting, Incoming, Outgoing, ProtocolError

CHANNELS = st.integers(0, 2**32 - 1)
FRAMES = st.one_of(
    st.builds(
        Frame,
        st.sampled_from([frames.DATA, frames.ERR, frames.TAIL]),
        CHANNELS,
        st.binary(min_size=1, max_size=300),
    ),
    st.builds(
        Frame,
        st.sampled_from([frames.OPEN, frames.CLOSE, frames.NOTE]),
        CHANNELS,
        st.dictionaries(st.text(max_size=5), st.integers(), max_size=3).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
    st.builds(Frame, st.just(frames.EOF), CHANNELS, st.just(b"")),
    st.builds(Frame, st.just(frames.CREDIT), CHANNELS, st.binary(min_size=4, max_size=4)),
    st.builds(
        Frame, st.sampled_from([frames.PING, frames.PONG]), CHANNELS, st.binary(min_size=8, max_size=8)
    ),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_frames_come_out_as_they_went_in_however_they_are_split(sent: list[Frame], places: list[int]) -> None:
    data = b"".join(frames.frame(*one) for one in sent)
    decoder = Decoder(frames.MOST_TOLD)
    assert [one for piece in cut(data, places) for one in decoder.feed(piece)] == sent


@given(st.lists(st.binary(max_size=200), max_size=10))
@example([b"\xff" * 9])
@example([b"\x00\x00\x00\x00\x02\x00\x00\x00\x01"])
def test_any_bytes_are_frames_or_a_protocol_error(pieces: list[bytes]) -> None:
    decoder = Decoder(1000)
    with suppress(ProtocolError):
        for piece in pieces:
            for one in decoder.feed(piece):
                assert len(one.payload) <= frames.MOST_DATA


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (0, 0),
        (11, 0),
        (255, 4),
        (frames.DATA, 0),
        (frames.DATA, frames.MOST_DATA + 1),
        (frames.TAIL, 2**32 - 1),
        (frames.OPEN, 1001),
        (frames.EOF, 1),
        (frames.CREDIT, 3),
        (frames.PING, 9),
    ],
)
def test_a_header_that_is_not_allowed_is_refused_before_its_payload(kind: int, size: int) -> None:
    header = size.to_bytes(4, "big") + bytes([kind]) + b"\0\0\0\1"
    with pytest.raises(ProtocolError):
        Decoder(1000).feed(header)


def test_a_decoder_holds_less_than_a_frame() -> None:
    decoder = Decoder(1000)
    data = frames.frame(frames.DATA, 1, bytes(frames.MOST_DATA)) * 3
    for byte in range(0, len(data), 1000):
        decoder.feed(data[byte : byte + 1000])
        assert len(decoder._held) < frames.MOST_DATA + 9


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=30))
def test_content_is_an_object_or_a_protocol_error(value: object) -> None:
    assert frames.content(json.dumps({"x": "[[[{{{"}).encode()) == {"x": "[[[{{{"}
    with pytest.raises(ProtocolError):
        frames.content(json.dumps(value).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[" * 60_000,
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"1" * 5000,
        b'{"a":' + b"1" * 5000 + b"}",
        b'"' * 1001,
        b'{"\\ud800": 1',
    ],
)
def test_hostile_json_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.content(payload)


@given(st.binary(max_size=2000))
def test_any_payload_is_content_or_a_protocol_error(payload: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(frames.content(payload), dict)


# -- windows


@given(st.lists(st.integers(1, frames.MOST_DATA), max_size=60))
def test_windows_of_both_sides_agree_and_never_stop_for_good(sizes: list[int]) -> None:
    outgoing, incoming = Outgoing(), Incoming()
    for size in sizes:
        count = min(size, outgoing.room)
        assert count > 0  # everything was used, so something may be sent
        outgoing.spend(count)
        incoming.receive(count)
        if granted := incoming.use(count):
            outgoing.grant(granted.to_bytes(4, "big"))
    assert 0 < outgoing.room <= frames.WINDOW


def test_more_than_the_window_is_refused() -> None:
    incoming = Incoming()
    incoming.receive(frames.WINDOW)
    with pytest.raises(ProtocolError):
        incoming.receive(1)


@pytest.mark.parametrize("count", [0, 11, 2**32 - 1])
def test_credit_for_what_was_not_sent_is_refused(count: int) -> None:
    outgoing = Outgoing()
    outgoing.spend(10)
    with pytest.raises(ProtocolError):
        outgoing.grant(count.to_bytes(4, "big"))


# -- greetings

SIZES = st.integers(1, 50)


@given(st.binary(max_size=500), st.binary(min_size=16, max_size=16), st.binary(max_size=50), SIZES)
@example(frames.greeting(bytes(16)), b"x" * 16, b"", 7)
@example(frames.greeting(bytes(16))[:-5], b"x" * 16, b"after", 40)
def test_a_greeting_is_found_behind_anything(before: bytes, nonce: bytes, after: bytes, size: int) -> None:
    data = before + frames.greeting(nonce) + after
    greeting = Greeting()
    found = []
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        while piece and (one := greeting.feed(piece)):
            found.append(one[0])
            piece = one[1]
        assert len(greeting._held) < frames.GREETING
    assert nonce in found


def test_a_greeting_in_place_of_a_frame_is_noticed() -> None:
    with pytest.raises(ProtocolError):
        Decoder(frames.MOST_ASKED).feed(frames.greeting(bytes(16)))
