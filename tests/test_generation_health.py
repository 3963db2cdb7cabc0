"""Whatever is answered to the question for its health, over a real socket: it is well, or it is not."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.ops import health

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
DEEP = st.builds(
    lambda open, many: (open * many).encode(), st.sampled_from(["[", '{"":', "[{"]), st.integers(0, 60_000)
)
BODIES = st.binary() | DEEP | JSON.map(lambda value: json.dumps(value).encode())
HEADS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", b"HTTP/1.1\r\n\r\n"),
        *(b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 2e2 OK\r\n\r\n", b"\xff \xff\r\n\r\n"),
        *(b"HTTP/1.1 200\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"x" * 70_000, b"", b"200 \r\n"),
    ]
)


def answered(answer: bytes) -> tuple[dict[str, str | int], bool]:
    """What is made of an answer, privately and by its port."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def ask() -> tuple[dict[str, str | int], bool]:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "s"))
            private = await asyncio.start_unix_server(say, path)
            open_one = await asyncio.start_server(say, "127.0.0.1", 0)
            async with private, open_one:
                port = open_one.sockets[0].getsockname()[1]
                return await health.ask_privately(path), await health.is_well(port, "/health")

    return asyncio.run(ask())


@given(HEADS, BODIES)
def test_any_answer_is_an_answer(head: bytes, body: bytes) -> None:
    whole = (head % len(body) if b"%d" in head else head) + body
    said, _ = answered(whole)
    assert all(isinstance(value, str | int) for value in said.values())
    json.dumps(said)


@given(st.dictionaries(st.text(), JSON))
def test_what_is_said_in_texts_and_numbers_is_heard(told: dict[str, object]) -> None:
    body = json.dumps(told).encode()
    said, well = answered(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert well
    assert said == {name: value for name, value in told.items() if isinstance(value, str | int)}


@pytest.fixture
def nobody() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder, "s"))


async def test_nobody_answers(nobody: str) -> None:
    assert await health.ask_privately(nobody) == {}
