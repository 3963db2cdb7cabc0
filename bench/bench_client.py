"""What the client costs: a delta, a chat, and the memory that an answer leaves behind.

Two comparisons, each with its floor in the same run, against a stub of the wire in a child process:

- 20,000 deltas through the client, the assembly and the extractor, against an asyncio reader that
  parses each event with `json.loads` and does nothing else (CPU time of this process);
- a whole process, from its start over one chat to its exit, against one that speaks to a raw socket
  and parses the answer (CPU time of that process).

Each figure is the least of several; the two sides alternate, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from org.events import Delta
from org.llm.client import ChatClient
from org.messages import ChatRequest, Entry, View
from org.tooling import ToolSpec

DELTAS = 20_000
_ROUNDS = 7
_STARTS = 9
_TOOLS = (
    ToolSpec("sh", "Run a command", {"type": "object", "properties": {"cmd": {"type": "string"}}}),
    ToolSpec("python_run", "Run Python", {"type": "object", "properties": {"code": {"type": "string"}}}),
)


def run() -> dict[str, float]:
    """`delta_us` and `delta_floor_us` (CPU microseconds a delta) and their `delta_ratio`; `chat_ms` and
    `chat_floor_ms` (CPU milliseconds of a process) and their `chat_ratio`; `delta_kept_kb`, the memory
    that each delta leaves behind while its answer comes in."""
    with _stub() as port:
        pairs = [(asyncio.run(_floor_us(port)), asyncio.run(_ours_us(port))) for _ in range(_ROUNDS)]
        starts = [(_process_ms(_FLOOR_CHAT, port), _process_ms(_CHAT, port)) for _ in range(_STARTS)]
        kept = asyncio.run(_kept_kb(port))
    floor_us, ours_us = (min(side) for side in zip(*pairs, strict=True))
    floor_ms, ours_ms = (min(side) for side in zip(*starts, strict=True))
    return {
        "delta_floor_us": floor_us,
        "delta_us": ours_us,
        "delta_ratio": ours_us / floor_us,
        "delta_kept_kb": kept,
        "chat_floor_ms": floor_ms,
        "chat_ms": ours_ms,
        "chat_ratio": ours_ms / floor_ms,
    }


# -- deltas


async def _ours_us(port: int) -> float:
    async with ChatClient(f"http://127.0.0.1:{port}/v1") as client:
        shown = _Count()
        before = time.process_time()
        completion = await client.complete(_request(DELTAS), shown.add)
        spent = time.process_time() - before
    assert len(completion.text) == shown.characters
    return spent * 1e6 / DELTAS


async def _floor_us(port: int) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    before = time.process_time()
    writer.write(_raw_request(DELTAS))
    text = 0
    while (line := await reader.readline()) != b"data: [DONE]\n":
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += len(choice["delta"].get("content") or "")
    spent = time.process_time() - before
    writer.close()
    await writer.wait_closed()
    assert text
    return spent * 1e6 / DELTAS


async def _kept_kb(port: int) -> float:
    """Beyond the text itself, at the moment when the last delta was shown."""
    held: list[int] = []
    shown = _Count()

    def show(delta: Delta) -> None:
        shown.add(delta)
        if not held or shown.characters > 0.99 * DELTAS * len(_WORD):
            held.append(tracemalloc.get_traced_memory()[0])

    async with ChatClient(f"http://127.0.0.1:{port}/v1") as client:
        tracemalloc.start()
        await client.complete(_request(DELTAS), show)
        tracemalloc.stop()
    return (held[-1] - held[0] - shown.characters) / 1024 / DELTAS


class _Count:
    def __init__(self) -> None:
        self.characters = 0

    def add(self, delta: Delta) -> None:
        self.characters += len(delta.text)


def _request(deltas: int) -> ChatRequest:
    return ChatRequest("stub", View([Entry("user", "Say something.")]), _TOOLS, max_tokens=deltas)


def _raw_request(deltas: int) -> bytes:
    body = json.dumps({"model": "stub", "stream": True, "messages": [], "max_tokens": deltas}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    )
    return head.encode() + b"%d\r\n\r\n" % len(body) + body


# -- processes


_CHAT = """
import asyncio, sys
from org.llm.client import ChatClient
from org.messages import ChatRequest, Entry, View

async def main():
    async with ChatClient(f"http://127.0.0.1:{sys.argv[1]}/v1") as client:
        request = ChatRequest("stub", View([Entry("user", "Say something.")]), max_tokens=20)
        await client.complete(request, lambda delta: None)

asyncio.run(main())
"""

_FLOOR_CHAT = """
import json, socket, sys
body = json.dumps({"model": "stub", "stream": True, "messages": [], "max_tokens": 20}).encode()
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(head + body)
    text = ""
    for line in connection.makefile("rb"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
        elif line == b"data: [DONE]\\n":
            break
"""


def _process_ms(script: str, port: int) -> float:
    """CPU time of a Python process with its byte code on disk."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = _children_s()
    subprocess.run([sys.executable, "-c", script, str(port)], check=True, env=environment)
    return (_children_s() - before) * 1000


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# -- the stub, in a process of its own so that its CPU time does not count


_WORD = " word"
_STUB = f"""
import json, socket, sys, threading

def event(**choice):
    body = {{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub",
            "system_fingerprint": "fp", "choices": [{{"index": 0, **choice}}]}}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\\n\\n"

def chunk(data):
    return b"%x\\r\\n%b\\r\\n" % (len(data), data)

HEAD = (b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
DELTA = chunk(event(delta={{"content": {_WORD!r}}}, finish_reason=None))
END = chunk(event(delta={{}}, finish_reason="stop")) + chunk(b"data: [DONE]\\n\\n") + b"0\\r\\n\\r\\n"

def serve(connection):
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
            if line == b"\\r\\n":
                connection.sendall(HEAD + DELTA * json.loads(lines.read(size))["max_tokens"] + END)

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


@contextmanager
def _stub() -> Iterator[int]:
    """The port of a server that says as many words as `max_tokens` asks for."""
    with subprocess.Popen([sys.executable, "-c", _STUB], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


if __name__ == "__main__":
    for name, value in run().items():
        sys.stdout.write(f"{name:32}{value:12,.3f}\n")
