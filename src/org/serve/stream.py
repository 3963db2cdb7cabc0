"""The event stream of a room, for any number of readers at once.

A frame (an event as Server-Sent Events carry it) is encoded once, for all readers. A reader is only a
place in the log: one that is slow loses what is passing, never what is committed, and holds up nobody.
Whoever begins, or has caught up again, is told first what is going on right now.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import get_args

from org.chat.present import Present
from org.encoding import to_json
from org.events import Committed, Delta, Event, Passing

PAUSE_S = 0.03
"""How long passing events are gathered before they are shown: pieces of one text become one frame."""
KEEP_ALIVE_S = 15.0
"""Silence after which readers are sent a comment, so that what lies between them and us stays awake."""
LIVE_BYTES = 256 * 1024
"""How much of the newest frames a reader may be behind before it loses what is passing."""
KEPT_BYTES = 4 * 1024 * 1024
"""How much of the frames that were read is kept for others who read them."""
CHUNK_BYTES = 64 * 1024
"""About how much of the log a reader that is behind is sent at once."""

_COMMITTED: tuple[type, ...] = get_args(Committed)
_COMMENT = b": \n\n"


def frame(event: Event, seq: int = 0) -> bytes:
    """The event as one message of an event stream; `seq` is its id, 0 for one without."""
    data = to_json(event)
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # halves of a surrogate pair, which models do write
        text = json.dumps(data, separators=(",", ":")).encode()
    return b"id: %d\ndata: %b\n\n" % (seq, text) if seq else b"data: %b\n\n" % text


class Stream:
    """What readers of one room are sent. `log` are its committed events, the first `seq` of which are
    out; the position in it, from 1, is an event's id."""

    def __init__(self, log: Sequence[Committed]) -> None:
        self.log = log
        self.seq = len(log)
        self.readers = 0
        self.ended = False
        self.lost = 0
        """How often a reader was too slow for what was passing."""
        self._frames: dict[int, bytes] = {}  # by event, those that somebody asked for last
        self._kept = 0  # the size of these
        self._live: deque[bytes] = deque()  # the newest frames, committed and passing
        self._begin = 0  # the place of the first of them, counted over the life of the stream
        self._size = 0
        self._joined: dict[int, bytes] = {}  # from that place to the end, made for the first who asks
        self._passing: list[Passing] = []
        self._present = Present()
        self._told: bytes | None = None  # the frames of what is going on, made for the first who asks
        self._news = asyncio.Event()
        self._moves = asyncio.Event()  # a reader comes or goes
        self._pause: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._silent = False

    def take(self, event: Event) -> None:
        """Show an event. A committed one stands in the log already."""
        self._present.take(event)
        self._told = None
        if isinstance(event, _COMMITTED):
            self.seq += 1
            if self.readers:
                self._flush()
                self._append(self._frame(self.seq))
                self._wake()
        elif self.readers:
            self._passing.append(event)  # type: ignore[arg-type]
            if self._pause is None:
                self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._flush_and_wake)

    def end(self) -> None:
        """Let the readers go once they have everything that is committed."""
        self.ended = True
        self._wake()
        self._move()

    @contextmanager
    def reader(self, after: int) -> Iterator[Reader]:
        """A reader that has everything up to the event `after`."""
        self.readers += 1
        self._move()
        if self._silence is None:
            self._silence = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._keep_awake)
        try:
            yield Reader(self, after)
        finally:
            self.readers -= 1
            self._move()
            if not self.readers:
                self._forget()

    async def deserted(self, seconds: float) -> None:
        """Wait until nobody has read for so long, or the stream has ended."""
        while not self.ended:
            try:
                async with asyncio.timeout(None if self.readers else seconds):
                    await self._moves.wait()
            except TimeoutError:
                return

    # -- for readers

    @property
    def end_of_live(self) -> int:
        return self._begin + len(self._live)

    def since(self, place: int) -> bytes | None:
        """All frames from a place among the newest on; None when it is not among them any more."""
        if place < self._begin:
            return None
        if place not in self._joined:
            self._joined[place] = b"".join(islice(self._live, place - self._begin, None))
        return self._joined[place]

    def present(self) -> bytes:
        """What is going on right now, as frames; what was shown of it stands before `end_of_live`."""
        if self._passing:
            self._flush_and_wake()
        if self._told is None:
            self._told = b"".join(frame(event) for event in self._present.events())
        return self._told

    def committed(self, after: int) -> list[bytes]:
        """About `CHUNK_BYTES` of the frames after an event, one of them at least when there is one."""
        found: list[bytes] = []
        size = 0
        while after + len(found) < self.seq and size < CHUNK_BYTES:
            found.append(self._frame(after + len(found) + 1))
            size += len(found[-1])
        return found

    async def news(self) -> None:
        """Wait until there is something new. Raises nothing; look before waiting."""
        await self._news.wait()

    # -- how it is kept

    def _frame(self, seq: int) -> bytes:
        made = self._frames.get(seq)
        if made is None:
            made = self._frames[seq] = frame(self.log[seq - 1], seq)
            self._kept += len(made)
            while self._kept > KEPT_BYTES:
                self._kept -= len(self._frames.pop(next(iter(self._frames))))
        return made

    def _append(self, data: bytes) -> None:
        self._live.append(data)
        self._size += len(data)
        self._joined.clear()
        self._silent = False
        while self._size > LIVE_BYTES and len(self._live) > 1:
            self._size -= len(self._live.popleft())
            self._begin += 1

    def _flush(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for event in _merged(self._passing):
            self._append(frame(event))
        self._passing.clear()

    def _flush_and_wake(self) -> None:
        self._flush()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()

    def _move(self) -> None:
        self._moves.set()
        self._moves.clear()

    def _keep_awake(self) -> None:
        if self._silent:
            self._append(_COMMENT)
            self._wake()
        self._silent = True
        self._silence = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._keep_awake)

    def _forget(self) -> None:
        """Nobody reads: keep nothing; what is committed stands in the log."""
        for timer in (self._pause, self._silence):
            if timer is not None:
                timer.cancel()
        self._pause = self._silence = None
        self._passing.clear()
        self._frames.clear()
        self._kept = 0
        self._begin = self.end_of_live
        self._live.clear()
        self._joined.clear()
        self._size = 0


class Reader:
    """One reader's place. `seq` is the newest committed event that it was given."""

    def __init__(self, stream: Stream, after: int) -> None:
        self.seq = after
        self._stream = stream
        self._place = -1  # behind
        self._present = b""
        if after == stream.seq:
            self._catch_up()

    def take(self) -> bytes:
        """What it has not seen yet, or a part of that; empty when there is nothing."""
        stream = self._stream
        if self._place >= 0:
            data = stream.since(self._place)
            if data is not None:
                present, self._present = self._present, b""
                self._place, self.seq = stream.end_of_live, stream.seq
                return present + data
            self._place = -1
            stream.lost += 1
        frames = stream.committed(self.seq)
        self.seq += len(frames)
        if self.seq == stream.seq:
            self._catch_up()
            if self._present:  # one frame alone is not copied
                frames.append(self._present)
                self._present = b""
        return b"".join(frames)

    def _catch_up(self) -> None:
        """From here on it gets what is new, beside what is going on already."""
        self._present = self._stream.present()
        self._place = self._stream.end_of_live


def _merged(events: Sequence[Passing]) -> Iterator[Passing]:
    """The events, with neighbouring pieces of one text made one."""
    texts: list[str] = []
    first: Delta | None = None
    for event in events:
        if isinstance(event, Delta):
            if first is not None and (event.participant, event.kind) == (first.participant, first.kind):
                texts.append(event.text)
                continue
            if first is not None:
                yield replace(first, text="".join(texts))
            first, texts = event, [event.text]
            continue
        if first is not None:
            yield replace(first, text="".join(texts))
            first = None
        yield event
    if first is not None:
        yield replace(first, text="".join(texts))
