"""The event stream of a room, without a network."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.encoding import from_json
from org.events import CallOutput, Committed, Delta, Event, Notice, Stopped
from org.serve import stream as module
from org.serve.stream import Stream, frame
from serve_kit import DEADLINE_S, read_frame


def read(data: bytes) -> list[tuple[int, Event | None]]:
    """(id, event) of each frame; a comment is None."""
    assert data == b"" or data.endswith(b"\n\n")
    found = [read_frame(part) for part in data.split(b"\n\n") if part]
    return [(seq, from_json(event) if event else None) for seq, event in filter(None, found)]


def stopped(number: int) -> Stopped:
    return Stopped("quiet", str(number))


class Log:
    """A log and its stream."""

    def __init__(self, *events: Committed) -> None:
        self.events: list[Committed] = list(events)
        self.stream = Stream(self.events)

    def commit(self, event: Committed) -> None:
        self.events.append(event)
        self.stream.take(event)


async def test_a_reader_gets_what_was_and_what_comes() -> None:
    log = Log(stopped(1), stopped(2), stopped(3))
    with log.stream.reader(1) as reader:
        assert read(reader.take()) == [(2, stopped(2)), (3, stopped(3))]
        assert reader.take() == b""
        log.commit(stopped(4))
        assert read(reader.take()) == [(4, stopped(4))]


async def test_pieces_of_a_text_become_one_frame_in_their_place() -> None:
    log = Log()
    with log.stream.reader(0) as reader:
        for event in (
            Delta("a", participant="x"),
            Delta("b", participant="x"),
            Delta("c", participant="y"),
            Delta("d", "reasoning", "y"),
            CallOutput("x", "c1", "out"),
            Delta("e", participant="x"),
        ):
            log.stream.take(event)
        assert reader.take() == b""  # they are gathered for a moment, or until something is committed
        log.commit(stopped(1))
        assert read(reader.take()) == [
            (0, Delta("ab", participant="x")),
            (0, Delta("c", participant="y")),
            (0, Delta("d", "reasoning", "y")),
            (0, CallOutput("x", "c1", "out")),
            (0, Delta("e", participant="x")),
            (1, stopped(1)),
        ]


async def test_passing_events_are_shown_after_a_moment() -> None:
    log = Log()
    with log.stream.reader(0) as reader:
        log.stream.take(Notice("soon"))
        async with asyncio.timeout(DEADLINE_S):
            await log.stream.news()
        assert read(reader.take()) == [(0, Notice("soon"))]


async def test_whoever_reads_later_does_not_get_what_passed() -> None:
    log = Log(stopped(1))
    log.stream.take(Delta("nobody reads"))
    with log.stream.reader(0) as first:
        log.stream.take(Delta("a"))
        log.commit(stopped(2))
        with log.stream.reader(0) as second:
            assert [seq for seq, _ in read(first.take())] == [1, 2]  # it was behind when this passed
            assert [seq for seq, _ in read(second.take())] == [1, 2]
            log.stream.take(Delta("b"))
            log.commit(stopped(3))
            assert read(first.take()) == read(second.take()) == [(0, Delta("b")), (3, stopped(3))]


async def test_a_slow_reader_loses_deltas_only_and_others_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIVE_BYTES", 2000)
    log = Log()
    with log.stream.reader(0) as slow, log.stream.reader(0) as quick:
        got: list[tuple[int, Event | None]] = []
        for number in range(50):
            log.stream.take(Delta("x" * 100, participant=str(number)))
            log.commit(stopped(number))
            got += read(quick.take())
        assert len(got) == 100
        assert log.stream.lost == 0
        late = read(slow.take())
        assert [seq for seq, _ in late] == list(range(1, 51))
        assert log.stream.lost == 1
        log.stream.take(Delta("back"))
        log.commit(stopped(50))
        assert len(read(slow.take())) == 2


async def test_much_that_was_missed_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    log = Log(*(Stopped("quiet", "x" * 300) for _ in range(30)))
    with log.stream.reader(0) as reader:
        parts = []
        while part := reader.take():
            parts.append(part)
    assert len(parts) > 5
    assert [seq for seq, _ in read(b"".join(parts))] == list(range(1, 31))


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_S", 0.01)
    log = Log()
    with log.stream.reader(0) as reader:
        async with asyncio.timeout(DEADLINE_S):
            await log.stream.news()
        assert reader.take() == b": \n\n"


async def test_nothing_is_kept_for_nobody() -> None:
    log = Log()
    with log.stream.reader(0) as reader:
        log.commit(stopped(1))
        assert reader.take()
    assert log.stream.readers == 0
    assert log.stream.since(log.stream.end_of_live) == b""
    log.stream.take(Delta("x"))
    log.commit(stopped(2))
    assert log.stream.since(log.stream.end_of_live) == b""
    with log.stream.reader(0) as reader:
        assert [seq for seq, _ in read(reader.take())] == [1, 2]


async def test_what_was_read_is_not_kept_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a part, while others may come for it; each frame then is made once for them."""
    monkeypatch.setattr(module, "KEPT_BYTES", 2000)
    made: list[int] = []

    def counted(event: Event, seq: int = 0) -> bytes:
        made.append(seq)
        return frame(event, seq)

    monkeypatch.setattr(module, "frame", counted)
    log = Log(*(Stopped("quiet", "x" * 100) for _ in range(50)))
    with log.stream.reader(0) as reader, log.stream.reader(49) as other:
        assert len(read(reader.take())) == 50
        assert log.stream._kept == sum(map(len, log.stream._frames.values())) <= 2000
        assert read(other.take()) == [(50, Stopped("quiet", "x" * 100))]
        assert made == list(range(1, 51))
    assert (log.stream._frames, log.stream._kept) == ({}, 0)


def test_a_frame_is_one_line_of_data_whatever_is_said() -> None:
    event = Delta("a\nb\r\n\n\u2028 \ud83d \0 ü", participant="x")
    data = frame(event, 7)
    assert data.count(b"\n") == 3
    assert b"\r" not in data
    head, line, _, _ = data.split(b"\n")
    assert head == b"id: 7"
    assert from_json(json.loads(line.removeprefix(b"data: "))) == event
    assert frame(Delta("ü")).count("ü".encode()) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["commit", "pass", "read", "join"]), st.integers(0, 9)), max_size=60
)


@given(STEPS)
def test_every_reader_has_every_committed_event_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Whenever it comes and however seldom it reads."""

    async def check() -> None:
        log = Log()
        log.stream.take(Delta(""))
        contexts, readers, begun = [], [], []
        seen: list[list[int]] = []
        old = module.LIVE_BYTES
        module.LIVE_BYTES = 300
        try:
            for what, number in steps:
                if what == "commit":
                    log.commit(stopped(number))
                elif what == "pass":
                    log.stream.take(Delta("x" * number * 20))
                elif what == "join":
                    after = min(number, len(log.events))
                    context = log.stream.reader(after)
                    contexts.append(context)
                    readers.append(context.__enter__())
                    seen.append([])
                    begun.append(after)
                elif readers:
                    place = number % len(readers)
                    seen[place] += [seq for seq, _ in read(readers[place].take()) if seq]
            for place, reader in enumerate(readers):
                while data := reader.take():
                    seen[place] += [seq for seq, _ in read(data) if seq]
                assert seen[place] == list(range(begun[place] + 1, len(log.events) + 1))
                assert reader.seq == len(log.events)
        finally:
            module.LIVE_BYTES = old
            for context in contexts:
                context.__exit__(None, None, None)

    asyncio.run(check())
