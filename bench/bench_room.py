"""What a room costs beside its models, which a stub in another process stands for.

Figures are CPU milliseconds of this process unless they say otherwise. The floor of a turn is a raw
connection that dumps the whole history as JSON, sends it and parses each event of the answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from org.chat.participant import ModelParticipant, Sampling
from org.chat.profiles import PROFILES
from org.chat.room import Limits, Room, Schedule
from org.events import Event, Joined, Posted
from org.journal import RoomJournal
from org.llm.client import ChatClient
from org.ports import Journal, Participant
from org.tooling import Tool, ToolCall, ToolResult, ToolSpec

_STEPS = 205
_ROOMS = 200
_ENDLESS = Limits(0, 0, 0, 0, 0)


def run() -> dict[str, float]:
    """Tool loop: ms a step near step 200, its floor, and that step over step 50. Room of 8: ms a message
    over 25 rounds, over 100 beside that, and the floor. 100 turns in flight: wall over 200 ms. 200
    rooms of 4: KB of memory a room and ms a message, without and with a journal."""
    figures: dict[str, float] = {}
    with _stub() as port:
        figures |= asyncio.run(_tool_loop(port))
        figures |= asyncio.run(_room_of_8(port))
        figures |= asyncio.run(_in_flight(port))
    for option in ("rooms", "rooms_journal"):
        # In a process of its own: memory that was used before would hide what the rooms take.
        command = [sys.executable, "-m", "bench.bench_room", option]
        figures |= json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


@contextmanager
def _stub() -> Iterator[int]:
    """The stub's port."""
    command = [sys.executable, str(Path(__file__).with_name("room_stub.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[ChatClient]:
    async with ChatClient(f"http://127.0.0.1:{port}/v1") as client:
        yield client


def _participant(
    name: str, client: ChatClient, model: str, *tools: Tool, steps: int = 16
) -> ModelParticipant:
    sampling = Sampling(context_tokens=10_000_000, steps=steps)
    system = f"You are {name}. " + "Be brief and answer what is asked of you. " * 10
    return ModelParticipant(
        Joined(name, "model", "agent", model, system), PROFILES["agent"], client, tools, sampling
    )


# -- one turn of many steps


async def _tool_loop(port: int) -> dict[str, float]:
    rounds = [await _steps(port) for _ in range(3)]
    at_50 = min(median(ms[40:60]) for ms in rounds)
    at_200 = min(median(ms[180:200]) for ms in rounds)
    floor = min([median((await _floor(port, "tool", _STEPS))[180:200]) for _ in range(3)])
    return {
        "tool_loop_ms": at_200,
        "tool_loop_floor_ms": floor,
        "tool_loop_growth": at_200 / at_50,
    }


async def _steps(port: int) -> list[float]:
    """CPU ms of each step of one turn."""
    marks: list[float] = []

    async def note(call: ToolCall, on_output: Callable[[str], None]) -> ToolResult:
        marks.append(time.process_time())
        return ToolResult(call.id, f"noted {call.arguments['text']}: " + "x" * 160)

    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    tool = Tool(ToolSpec("note", "Keeps a note.", schema), note)
    async with (
        _client(port) as client,
        Room(participants=[_participant("ann", client, "tool", tool, steps=_STEPS)], limits=_ENDLESS) as room,
    ):
        await room.say("me", "begin")
    return [(b - a) * 1000 for a, b in pairwise(marks)]


async def _floor(port: int, model: str, turns: int) -> list[float]:
    """CPU ms of each turn of a raw client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    history: list[dict[str, object]] = [{"role": "user", "content": "begin"}]
    marks = [time.process_time()]
    for _ in range(turns):
        body = json.dumps({"model": model, "stream": True, "messages": history}).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = await reader.readuntil(b"0\r\n\r\n")
        deltas = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: {")]
        choices = [delta["choices"][0]["delta"] for delta in deltas if delta["choices"]]
        calls = [call for choice in choices for call in choice.get("tool_calls", ())]
        text = "".join(choice.get("content") or "" for choice in choices)
        history.append({"role": "assistant", "content": text, "tool_calls": calls})
        history.append({"role": "tool" if calls else "user", "content": "x" * 180})
        marks.append(time.process_time())
    writer.close()
    await writer.wait_closed()
    return [(b - a) * 1000 for a, b in pairwise(marks)]


# -- everyone hears everyone


async def _room_of_8(port: int) -> dict[str, float]:
    few = [await _talk(port, 25) for _ in range(3)]
    many = await _talk(port, 100)
    floor = min([sum(await _floor(port, "talk", 25)) / 25 for _ in range(3)])
    return {
        "room_of_8_ms": min(few),
        "room_of_8_floor_ms": floor,
        "room_of_8_100_rounds_ms": many,
        "room_of_8_growth": many / min(few),
    }


async def _talk(port: int, rounds: int) -> float:
    """CPU ms a message."""
    async with _client(port) as client:
        crowd = [_participant(f"p{n}", client, "talk") for n in range(8)]
        async with Room(participants=crowd, limits=Limits(8 * rounds, 0, 0, 0)) as room:
            began = time.process_time()
            await room.say("me", "begin")
            spent = time.process_time() - began
            assert len(room.transcript) == 8 * rounds + 1
    return spent * 1000 / (8 * rounds)


# -- many turns at once


async def _in_flight(port: int) -> dict[str, float]:
    async with _client(port) as client:
        crowd: list[Participant] = [_participant(f"p{n}", client, "slow") for n in range(100)]
        schedule = Schedule("parallel", parallel=100, per_model=100)
        async with Room(participants=crowd, limits=Limits(100, 0, 0, 0), schedule=schedule) as room:
            walls = []
            for _ in range(3):
                walls.append(0.0)
                began = time.perf_counter()
                await room.say("me", "begin")
                walls[-1] = time.perf_counter() - began
                await room.clear()
    return {"in_flight_ratio": min(walls) / 0.2}


# -- many rooms at once


async def _many_rooms(port: int, *, journal: bool) -> dict[str, float]:
    prefix = "rooms_journal" if journal else "rooms"
    limits = Limits(8, 0, 0, 0)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(port))
        async with Room(participants=[_participant("warm", client, "talk")], limits=limits) as room:
            await room.say("me", "begin")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gc.collect()
        before, began = _resident(), time.process_time()
        rooms = []
        for n in range(_ROOMS):
            kept: Journal | None = None
            if journal:
                kept = await stack.enter_async_context(RoomJournal.open(folder / f"room-{n}"))
            crowd = [_participant(f"p{k}", client, "talk") for k in range(4)]
            rooms.append(
                await stack.enter_async_context(Room(participants=crowd, limits=limits, journal=kept))
            )
        messages = 0

        def count(event: Event) -> None:
            nonlocal messages
            messages += isinstance(event, Posted)

        for room in rooms:
            room.observe(count)
        await asyncio.gather(*[room.say("me", "begin") for room in rooms])
        spent = time.process_time() - began
        return {
            f"{prefix}_kb": (_resident() - before) / _ROOMS,
            f"{prefix}_ms": spent * 1000 / messages,
        }


def _resident() -> float:
    """Memory of this process that is in use, KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


def _alone(option: str) -> dict[str, float]:
    with _stub() as port:
        return asyncio.run(_many_rooms(port, journal=option == "rooms_journal"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_alone(sys.argv[1]) if len(sys.argv) > 1 else run(), indent=2) + "\n")
