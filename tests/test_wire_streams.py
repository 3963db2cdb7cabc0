"""Every recorded stream, through the whole client: what it comes to, or the error it ends in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from org.errors import ContextExceeded, ModelError, ServerRefused, StreamBroken
from org.events import Delta
from org.llm.client import ChatClient
from org.messages import ChatRequest, Completion, Entry, Usage, View
from org.tooling import ToolSpec
from replay import CUT, Answer, head, plain, replay, stream

DATA = Path(__file__).parent / "data" / "wire"
OBJECT = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
TOOLS = (ToolSpec("sh", "Run a shell command", OBJECT), ToolSpec("ask", "Ask another agent", OBJECT))


@dataclass(frozen=True)
class Expected:
    text: str = ""
    calls: Sequence[tuple[str, str]] = ()  # (origin, command), all of `sh`
    reasoning: str = ""
    finish: str = "stop"
    usage: Usage | None = None


HELLO = "Hello, world. This is plain content, streamed in small pieces."
GREETING = "The user wants a greeting. I will be brief.\n"
DATE = "I should run the date command.\n"
SENTENCES = "".join(f"Sentence number {n} of a long answer. " for n in range(358))


def declared(*commands: str, **more: Any) -> Expected:
    return Expected(calls=[("declared", c) for c in commands], finish="tool_calls", **more)


def embedded(*commands: str, **more: Any) -> Expected:
    return Expected(calls=[("embedded", c) for c in commands], **more)


STREAMS = {
    "content-then-tool": declared("ls -la /tmp", text="Let me check that for you.\n"),
    "ctx-limit-generation": Expected(SENTENCES[:13475], finish="length"),
    "empty": Expected(),
    "err-unknown-model": Expected(HELLO),  # a server of one model answers to every name
    "leak-fence": embedded("echo fenced"),
    "leak-llama": embedded("echo leaked"),
    "leak-mistral": embedded("echo mistral"),
    "length-plain": Expected("Hello, world. T", finish="length"),
    "length-think-cut": Expected(reasoning="The user wa", finish="length"),
    "long-args": declared("<a long script>"),
    "plain": Expected(HELLO),
    "plain-with-tools": Expected(HELLO),
    "qwen3coder-talk": declared("echo hi", text="Let me look.\n\n", usage=Usage(1087, 27, 1079)),
    "qwen3coder-tool": declared("echo hi && ls < /dev/null", usage=Usage(1086, 32, 0)),
    "raw-leak-think-tool": embedded("date +%Y", reasoning="\n" + DATE, usage=Usage(261, 30, 252)),
    "raw-leak-tool": embedded("echo hi", usage=Usage(260, 19, 0)),
    "raw-leak-two": embedded("echo one", "echo two", usage=Usage(259, 40, 252)),
    "reasoning-effort": Expected("Hi there.", reasoning=GREETING),
    "stop": Expected("Hello, world. This is "),
    "think": Expected("Hi there.", reasoning=GREETING),
    "think-tool": declared("date +%Y", reasoning=DATE),
    "tool": declared("echo hi"),
    "tool-choice-none": embedded("echo hi"),
    "tool-choice-required": declared("echo hi"),
    "tool-result-final": Expected("The command printed hi. Done."),
    "tool-usage": declared("echo hi", usage=Usage(402, 19, 393)),
    "two-parallel": declared("echo one", "echo two"),
    "two-parallel-false": declared("echo one", "echo two"),
    "usage": Expected(HELLO, usage=Usage(402, 20, 393)),
    "ollama/new-empty": Expected(),
    "ollama/new-length": Expected("trunc", finish="length"),
    "ollama/new-plain": Expected("Hello there", usage=Usage(120, 30, 0)),
    "ollama/new-reasoning-then-tool": declared("date", reasoning="I need a shell."),
    "ollama/new-tool": declared("ls < x && echo hi"),
    "ollama/old-plain": Expected("Hello there"),
    "ollama/old-tool": declared("ls"),
}

ERRORS: dict[str, tuple[type[ModelError], str]] = {
    "err-api-key": (ServerRefused, "the model server answered 401: Invalid API Key"),
    "err-bad-history-args": (ServerRefused, "answered 500: Failed to parse tool call arguments as JSON"),
    "err-bad-json": (ServerRefused, "answered 500: [json.exception.parse_error.101]"),
    "err-context-too-long": (
        ContextExceeded,
        "the prompt does not fit into the context: request (63021 tokens) exceeds the available context size "
        "(16384 tokens)",
    ),
    "err-no-messages": (ServerRefused, "answered 400: 'messages' is required"),
    "err-role": (ServerRefused, "answered 400: All non-assistant messages must contain 'content'"),
    "err-tools-bad-schema": (ServerRefused, "answered 400: Unable to generate parser for this template."),
    "err-tools-missing-function": (
        ServerRefused,
        "answered 500: Failed to parse tools: Missing tool function",
    ),
    "err-tools-not-array": (ServerRefused, "answered 500: Failed to parse tools: Expected 'tools' to be an"),
    "router-unknown-model": (ServerRefused, "answered 400: model 'no-such-model' not found"),
    "ollama/err-400-tools": (ServerRefused, "answered 400: deepseek-r1:7b does not support tools"),
    "ollama/err-404": (ServerRefused, "answered 404: model 'nope' not found"),
    "ollama/err-500": (ServerRefused, "answered 500: error parsing tool call: raw='ls -R"),
}
ELSEWHERE = {"non-stream-tool", "raw-leak-badjson", "ollama/midstream-error-swallowed"}
STATUS = {
    "err-api-key": "401 Unauthorized",
    "ollama/err-400-tools": "400 Bad Request",
    "ollama/err-404": "404 Not Found",
    "ollama/err-500": "500 Internal Server Error",
}


def body_of(name: str) -> bytes:
    path = DATA / f"{name}.sse"
    return (path if path.exists() else DATA / f"{name}.json").read_bytes()


def recorded(name: str) -> bytes:
    """The answer as it was on the wire: its recorded head where there is one, and its body."""
    body = body_of(name)
    if name == "err-api-key":
        body = body.partition(b"\n")[0]  # the recorder wrote the status below
    if name in STATUS:
        return plain(body, STATUS[name])
    path = DATA / f"{name}.hdr"
    if not path.exists():
        return stream(body)
    lines = path.read_text().splitlines()
    answer = head(lines[0].removeprefix("HTTP/1.1 "), *(line for line in lines[1:] if line))
    return answer + (stream(body, (137, 4096, 1)).partition(b"\r\n\r\n")[2] if b"chunked" in answer else body)


def history() -> View:
    return View([Entry("system", "You are a helpful agent."), Entry("user", "please")])


async def ask(*answers: Answer) -> tuple[Completion, list[Delta]]:
    """The completion, and the deltas that were shown on the way."""
    deltas: list[Delta] = []
    async with replay(*answers) as server, ChatClient(server.url) as client:
        completion = await client.complete(ChatRequest("scripted", history(), TOOLS), deltas.append)
    return completion, deltas


def shown(deltas: list[Delta], kind: str) -> str:
    return "".join(d.text for d in deltas if d.kind == kind)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_recorded_stream_becomes_its_completion(name: str) -> None:
    expected = STREAMS[name]
    completion, deltas = await ask([recorded(name)])
    assert completion.text == expected.text
    assert completion.reasoning == expected.reasoning
    assert completion.finish == expected.finish
    assert completion.usage == expected.usage
    assert not completion.incomplete
    assert shown(deltas, "text") == expected.text
    assert shown(deltas, "reasoning") == expected.reasoning
    assert [call.name for call in completion.calls] == ["sh"] * len(expected.calls)
    assert not any(call.error for call in completion.calls)
    commands = [(call.origin.kind, call.arguments["cmd"]) for call in completion.calls]
    if name == "long-args":
        assert len(commands[0][1]) == len(long_script())
        assert commands == [("declared", long_script())]
    else:
        assert commands == list(expected.calls)


def long_script() -> str:
    """The pieces of `long-args` put together by hand."""
    raw = ""
    for line in body_of("long-args").decode().splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                for piece in choice["delta"].get("tool_calls", []):
                    raw += piece["function"].get("arguments", "")
    command = json.loads(raw)["cmd"]
    assert isinstance(command, str)
    return command


@pytest.mark.parametrize("name", ERRORS)
async def test_a_recorded_refusal_is_an_error_that_says_it(name: str) -> None:
    kind, message = ERRORS[name]
    with pytest.raises(kind) as caught:
        await ask([recorded(name)])
    assert message in caught.value.message
    assert type(caught.value) is kind


async def test_an_answer_that_was_not_streamed_counts_as_one() -> None:
    completion, deltas = await ask([recorded("non-stream-tool")])
    assert [(c.name, c.arguments, c.origin.kind) for c in completion.calls] == [
        ("sh", {"cmd": "echo hi"}, "declared")
    ]
    assert completion.finish == "tool_calls"
    assert completion.usage == Usage(402, 19, 394)
    assert deltas == []


async def test_a_call_without_its_last_brackets_is_not_shown_as_text() -> None:
    completion, deltas = await ask([recorded("raw-leak-badjson")])
    assert completion.text == ""
    assert shown(deltas, "text") == ""
    assert completion.calls or completion.incomplete


async def test_an_error_that_the_stream_hides_is_asked_for() -> None:
    with pytest.raises(ServerRefused) as caught:
        await ask([recorded("ollama/midstream-error-swallowed")], [recorded("ollama/err-500")])
    assert "error parsing tool call" in caught.value.message
    assert caught.value.status == 500


async def test_a_hidden_error_that_stays_hidden_is_a_broken_stream() -> None:
    with pytest.raises(StreamBroken) as caught:
        await ask([recorded("ollama/midstream-error-swallowed")])
    assert "ended the stream early" in caught.value.message
    assert "ollama serve" in caught.value.hint


async def test_a_hidden_error_that_does_not_come_again_is_forgotten() -> None:
    answer = {"choices": [{"index": 0, "message": {"content": "All done."}, "finish_reason": "stop"}]}
    completion, deltas = await ask(
        [recorded("ollama/midstream-error-swallowed")], [plain(json.dumps(answer))]
    )
    assert completion.text == "All done."
    assert shown(deltas, "text") == "Let me write the file.\nAll done."


def cuts(data: bytes) -> list[int]:
    """Where to cut a stream: around every line end and inside of lines."""
    return sorted(set(range(0, len(data), 13)) | {data.rfind(b"\n\n") + n for n in (0, 1)})


@pytest.mark.parametrize("name", ["think-tool", "two-parallel", "usage", "ollama/old-tool"])
async def test_a_stream_cut_anywhere_is_whole_or_an_error(name: str) -> None:
    """Before its end was said, a cut is an error; from then on the completion is the whole one."""
    answer = recorded(name)
    start = answer.index(b"\r\n\r\n") + 4
    whole, _ = await ask([answer])
    outcomes = []
    points = [start + at for at in cuts(answer[start:])]
    answers: list[Answer] = [[answer[:at], CUT] for at in points]
    request = ChatRequest("scripted", history(), TOOLS)
    async with replay(*answers) as server, ChatClient(server.url) as client:
        for _ in points:
            try:
                completion = await client.complete(request, lambda _: None)
            except StreamBroken as error:
                outcomes.append(error.message)
                continue
            outcomes.append("")
            assert (completion.text, completion.reasoning) == (whole.text, whole.reasoning)
            assert [c.arguments for c in completion.calls] == [c.arguments for c in whole.calls]
    message = "the server ended the stream early, without a finish reason"
    assert set(outcomes) == {message, ""}
    assert outcomes == sorted(outcomes, reverse=True), "a longer part of the same stream failed"


def test_no_recorded_stream_is_left_out() -> None:
    files = {*DATA.rglob("*.sse"), *DATA.glob("ollama/*.json")}
    names = {str(path.relative_to(DATA).with_suffix("")) for path in files}
    assert names == {*STREAMS, *ERRORS, *ELSEWHERE}
