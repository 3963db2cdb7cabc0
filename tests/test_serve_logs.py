"""What is logged, and counted."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from org.chat.room import Room
from org.compose.opening import Opening
from org.events import CallFinished, Event, Stepped, Stopped, TurnEnded
from org.messages import Usage
from org.serve.forks import Forks
from org.serve.hub import Hub
from org.serve.logs import write_logs
from org.serve.metrics import Metrics
from org.tooling import ToolCall, ToolError, ToolResult
from serve_kit import TOKEN, Client, parrots, read_until, request, rooms_with, settings_in, site


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("org", "uvicorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    handler = write_logs(out)
    yield out
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_every_request_is_a_line_without_anybodys_business(tmp_path: Path, log: io.StringIO) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        await server.ask("POST", "/rooms/main/messages", {"text": "a secret"}, idempotency_key="key-1")
        await server.ask("GET", f"/rooms?token={TOKEN}")
        await server.ask("GET", "/nowhere", token="")
    logged = [(entry["method"], entry["path"], entry["status"]) for entry in lines(log)]
    assert logged == [
        ("POST", "/rooms", 201),
        ("POST", "/rooms/main/messages", 202),
        ("GET", "/rooms", 200),
        ("GET", "/nowhere", 401),
    ]
    assert all(entry["seconds"] >= 0 for entry in lines(log))  # type: ignore[operator]
    for secret in (TOKEN, "a secret", "key-1"):
        assert secret not in log.getvalue()


async def test_a_bug_is_a_500_and_a_traceback_in_the_log(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Hub) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Hub, "listing", broken)
    async with site(tmp_path) as server:
        answer = await server.ask("GET", "/rooms")
        assert (answer.status, answer.error) == (500, "a bug in org")
        assert (await server.ask("GET", "/health")).status == 200
    assert "ZeroDivisionError: a bug" in str([entry.get("traceback") for entry in lines(log)])


async def test_a_bug_in_an_exchange_is_reported_and_the_server_lives_on(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Room) -> Stopped:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Room, "answer", broken)
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        assert (await server.ask("POST", "/rooms/main/messages", {"text": "hi"})).status == 202
        assert (await server.ask("GET", "/rooms/main")).status == 200
    assert "ZeroDivisionError: a bug" in log.getvalue()


async def test_figures(tmp_path: Path) -> None:
    async with site(tmp_path) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        async with await Client.connect(server.port) as reader:
            reader.send(request("GET", "/rooms/main/events"))
            await reader.head()
            await server.ask("POST", "/rooms/main/messages", {"text": "hi"})
            await read_until(reader, "stopped")
            await server.ask("GET", "/nowhere")
            answer = await server.ask("GET", "/metrics")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'org_turns_total{status="answered"} 1',
        'org_exchanges_total{reason="quiet"} 1',
        'org_http_requests_total{method="POST",route="/rooms/{id}/messages",status="202"} 1',
        'org_http_requests_total{method="GET",route="",status="404"} 1',
        "org_rooms_open 1",
        "org_readers 1",
        "org_messages_queued 0",
        "org_turn_seconds_count 1",
    ):
        assert f"\n{line}\n" in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{[^{}]*(\{\w+\}[^{}]*)*\})? [0-9.e+-]+", line), line


async def test_what_models_make_up_does_not_grow_the_figures(tmp_path: Path) -> None:
    metrics = Metrics()
    failed = ToolError("unknown_tool", "no")
    events: list[Event] = [
        CallFinished("x", 1, ToolCall(f"c{n}", f"made-up-{n}", {}), ToolResult("c", "", failed))
        for n in range(9)
    ]
    events += [
        CallFinished("x", 1, ToolCall("c", "sh", {}), ToolResult("c", "", seconds=0.3)),
        Stepped("x", 1, "", usage=Usage(10, 5, 2)),
        TurnEnded("x", 1, "failed", 3.0),
    ]
    for event in events:
        metrics.event(event)
    metrics.request("BREW", "", 405, 0.1)
    settings = settings_in(tmp_path)
    async with Hub(settings, rooms_with(parrots)) as hub, Forks(settings, Opening()) as forks:
        text = metrics.text(hub, forks)
    assert 'org_tool_calls_total{tool="other",outcome="unknown_tool"} 9\n' in text
    assert 'org_tool_calls_total{tool="sh",outcome="ok"} 1\n' in text
    assert 'org_tokens_total{kind="prompt"} 10\n' in text
    assert 'org_tool_call_seconds_bucket{le="0.5"} 10\n' in text
    assert 'org_turn_seconds_bucket{le="2.0"} 0\n' in text
    assert 'org_turn_seconds_bucket{le="10.0"} 1\n' in text
    assert 'method="other"' in text
    assert "made-up" not in text
