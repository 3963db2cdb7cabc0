"""The protocol between host and guest: frames, windows, and the greeting that starts them. Pure.

Both sides run this very file; in the guest it lies beside the agent, so it needs the standard
library only. A frame is a header (u32 length of the payload, u8 kind, u32 channel, big endian) and
its payload. A channel begins with `OPEN` and ends with the `CLOSE` of the side that was asked; a
`CLOSE` of the side that asked only says that it lost interest. Numbers of channels are even for the
host's and odd for the guest's, and are not used twice. Each direction of a channel has a window: who
sends more `DATA`, `ERR` and `TAIL` than it was granted breaks the protocol.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

OPEN = 1  # JSON: what is asked for
DATA = 2  # bytes of the channel: a command's input or output, a file, a connection
ERR = 3  # a command's standard error, where it is wanted apart
TAIL = 4  # the end of an output whose middle is left out
EOF = 5  # empty: the sender has no more bytes
CREDIT = 6  # u32: so many more bytes may be sent
CLOSE = 7  # JSON: what came of it
NOTE = 8  # JSON: said in passing; on channel 0 about the whole side
PING = 9  # 8 bytes, to be sent back as PONG
PONG = 10

WINDOW = 262_144
MOST_DATA = 65_536  # bytes of payload of a data frame
MOST_TOLD = 65_536  # bytes of JSON that the guest may send at once
MOST_ASKED = 2_097_152  # bytes of JSON that the host may: a command's words are in it
VERSION = 1
JOBS = "/run/org/jobs.sock"
"""Where the protocol is spoken in the guest itself, see `jobs.py`."""

_HEADER = struct.Struct(">IBI")
_CREDIT = struct.Struct(">I")
_BULK = (DATA, ERR, TAIL)
_JSON = (OPEN, CLOSE, NOTE)
_EXACT = {EOF: 0, CREDIT: _CREDIT.size, PING: 8, PONG: 8}
_MOST_DEPTH = 8
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

# As the header of a frame it is always too long, so a side that is out of step notices it.
_MAGIC = b"\xff\xff\xff\xff\x00org-port-1\x00"
_NONCE = 16
_SUM = struct.Struct(">I")
GREETING = len(_MAGIC) + _NONCE + _SUM.size


class ProtocolError(Exception):
    """The other side sent what it may not; the text says what. Nothing after it can be trusted."""


class Frame(NamedTuple):
    kind: int
    channel: int
    payload: bytes

    @property
    def bulk(self) -> bool:
        """Whether its payload counts against the window."""
        return self.kind in _BULK


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(len(payload), kind, channel) + payload


def told(kind: int, channel: int, content: Mapping[str, Any]) -> bytes:
    """A frame whose payload is a JSON object."""
    return frame(kind, channel, json.dumps(content, separators=(",", ":")).encode())


def credit(channel: int, count: int) -> bytes:
    """A frame that grants `count` more bytes."""
    return frame(CREDIT, channel, _CREDIT.pack(count))


def content(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload. Raises `ProtocolError` for anything else, deep nesting too."""
    steps = (1 if char in b"[{" else -1 for char in _STRING.sub(b"", payload) if char in b"[]{}")
    if max(accumulate(steps), default=0) > _MOST_DEPTH:
        raise ProtocolError("JSON nested too deeply")
    try:
        value = json.loads(payload, parse_constant=_no_constant)
    except ValueError as error:
        raise ProtocolError("no JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("no JSON object")
    return value


def _no_constant(name: str) -> float:
    raise ProtocolError(f"`{name}` in JSON")


class Decoder:
    """Bytes in any split to frames. It holds less than one frame of the longest kind.

    `most_json` bounds the payload of the JSON kinds. After a `ProtocolError` it is of no more use.
    """

    def __init__(self, most_json: int) -> None:
        self._most_json = most_json
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`. Raises `ProtocolError`; frames before the fault
        are lost then."""
        self._held += data
        frames = []
        start = 0
        while len(self._held) - start >= _HEADER.size:
            length, kind, channel = _HEADER.unpack_from(self._held, start)
            self._check(length, kind)
            end = start + _HEADER.size + length
            if end > len(self._held):
                break
            frames.append(Frame(kind, channel, bytes(self._held[start + _HEADER.size : end])))
            start = end
        del self._held[:start]
        return frames

    def _check(self, length: int, kind: int) -> None:
        if kind in _BULK:
            fits = 0 < length <= MOST_DATA
        elif kind in _JSON:
            fits = length <= self._most_json
        elif kind in _EXACT:
            fits = length == _EXACT[kind]
        else:
            raise ProtocolError(f"a frame of the unknown kind {kind}")
        if not fits:
            raise ProtocolError(f"a frame of kind {kind} with {length} bytes")


class Outgoing:
    """What may still be sent on a channel."""

    def __init__(self) -> None:
        self.room = WINDOW

    def spend(self, count: int) -> None:
        self.room -= count

    def grant(self, payload: bytes) -> None:
        """Take a `CREDIT`. Nobody can grant more than was sent: raises `ProtocolError`."""
        (count,) = _CREDIT.unpack(payload)
        if not 0 < count <= WINDOW - self.room:
            raise ProtocolError(f"credit of {count} for a window with room for {self.room}")
        self.room += count


class Incoming:
    """What the other side may still send on a channel, and what it must be granted."""

    def __init__(self) -> None:
        self._left = WINDOW
        self._used = 0

    def receive(self, count: int) -> None:
        """Bytes came. Raises `ProtocolError` when they were not granted."""
        if count > self._left:
            raise ProtocolError(f"{count - self._left} bytes more than the window")
        self._left -= count

    def use(self, count: int) -> int:
        """Bytes were passed on and no longer take memory; how many to grant now, perhaps none yet."""
        self._used += count
        if self._used < WINDOW // 2:
            return 0
        granted, self._used = self._used, 0
        self._left += granted
        return granted


def greeting(nonce: bytes) -> bytes:
    """What the host sends first, and the guest sends back. `nonce` is 16 random bytes."""
    return _MAGIC + nonce + _SUM.pack(zlib.crc32(nonce))


class Greeting:
    """Finds a greeting in bytes of which the first may be left over from another connection."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.skipped = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """(nonce, bytes after it) once a greeting is complete."""
        self._held += data
        while True:
            start = self._held.find(_MAGIC)
            if start < 0:
                start = max(0, len(self._held) - len(_MAGIC) + 1)
            self._skip(start)
            if len(self._held) < GREETING or not self._held.startswith(_MAGIC):
                return None
            nonce = bytes(self._held[len(_MAGIC) : len(_MAGIC) + _NONCE])
            if greeting(nonce) == self._held[:GREETING]:
                break
            self._skip(1)  # one that was cut off by the beginning of another
        self._skip(GREETING)
        rest = bytes(self._held)
        self._held.clear()
        return nonce, rest

    def _skip(self, count: int) -> None:
        self.skipped += count
        del self._held[:count]
