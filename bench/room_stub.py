"""A server of `/v1/chat/completions` that costs next to nothing and never says the same twice.

`python room_stub.py` prints its port and serves until its standard input ends. The model's name picks
the answer: `talk` a sentence, `tool` a call of the tool `note`, `slow` a sentence after 200 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": *"(\w+)"')
_NUMBERS = itertools.count(1)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(delta: object, finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _answer(model: bytes, prompt: int) -> bytes:
    number = next(_NUMBERS)
    if model == b"tool":
        arguments = json.dumps({"text": f"note number {number}"})
        function = {"name": "note", "arguments": arguments}
        made = {"index": 0, "id": f"{number:09}", "type": "function", "function": function}
        events = [
            _event({"role": "assistant", "content": None, "tool_calls": [made]}),
            _event({}, "tool_calls"),
        ]
    else:
        words = " ".join(f"word{number * 7919 % (97 + k)}" for k in range(12))
        events = [
            _event({"role": "assistant", "content": f"Message {number}: "}),
            _event({"content": words}),
            _event({}, "stop"),
        ]
    events.append(
        {"choices": [], "usage": {"prompt_tokens": prompt // 4, "completion_tokens": 20, "total_tokens": 0}}
    )
    data = (
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )
    return _HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            model = _MODEL.search(body)
            name = model[1] if model else b"talk"
            if name == b"slow":
                await asyncio.sleep(0.2)
            writer.write(_answer(name, len(body)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=2**26, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
