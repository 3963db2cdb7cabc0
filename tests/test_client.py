from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from org.errors import (
    ContextExceeded,
    ModelError,
    OrgError,
    ServerRefused,
    ServerUnreachable,
    StreamBroken,
    StreamStalled,
    UsageError,
)
from org.events import Delta
from org.llm import client as client_module
from org.llm.answer import Answer as Incoming
from org.llm.answer import new_call_id
from org.llm.client import ChatClient
from org.llm.http import Response
from org.messages import ChatRequest, Completion, Entry, View
from org.tooling import ToolCall, ToolSpec
from replay import (
    CUT,
    HANG,
    RESET,
    STREAM_HEAD,
    Answer,
    Replay,
    chunk,
    cut,
    delta,
    event,
    events,
    head,
    plain,
    replay,
    said,
    stream,
)

SH = ToolSpec("sh", "Run it", {"type": "object", "properties": {"cmd": {"type": "string"}}})
HI = stream(said("Hi", " there"))
BUSY = plain(
    '{"error":{"message":"server busy, please try again","type":"api_error"}}', "503 Service Unavailable"
)
DIED = plain(
    '{"error":{"message":"model runner has unexpectedly stopped, this may be due to resource limitations"}}',
    "500 Internal Server Error",
)


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of waits, each as short as can be."""
    monkeypatch.setattr(client_module, "BACKOFF_S", tuple(0.0 for _ in client_module.BACKOFF_S))


def request(*tools: ToolSpec) -> ChatRequest:
    return ChatRequest("m", View([Entry("user", "Hello?")]), tools)


class Asker:
    def __init__(self, client: ChatClient, server: Replay) -> None:
        self.client = client
        self.server = server
        self.deltas: list[Delta] = []

    async def ask(self, *tools: ToolSpec) -> Completion:
        self.deltas.clear()
        return await self.client.complete(request(*tools), self.deltas.append)

    @property
    def shown(self) -> str:
        return "".join(d.text for d in self.deltas if d.kind == "text")

    @property
    def thought(self) -> str:
        return "".join(d.text for d in self.deltas if d.kind == "reasoning")


@asynccontextmanager
async def asking(*answers: Answer, idle_timeout_s: float = 10, api_key: str = "") -> AsyncIterator[Asker]:
    async with (
        replay(*answers) as server,
        ChatClient(server.url, idle_timeout_s=idle_timeout_s, api_key=api_key) as client,
    ):
        yield Asker(client, server)


async def refusal(*answers: Answer) -> ModelError:
    async with asking(*answers) as asker:
        with pytest.raises(ModelError) as caught:
            await asker.ask()
    return caught.value


# -- requests


async def test_a_request_and_its_completion() -> None:
    async with asking([HI]) as asker:
        completion = await asker.ask(SH)
        assert completion == Completion("Hi there", finish="stop")
        assert asker.shown == "Hi there"
        (sent,) = asker.server.requests
        assert sent.line == "POST /v1/chat/completions HTTP/1.1"
        assert sent.json["messages"] == [{"role": "user", "content": "Hello?"}]
        assert sent.json["stream"] is True
        assert sent.json["tools"][0]["function"]["name"] == "sh"
        assert "authorization" not in sent.headers


async def test_a_growing_view_is_sent_with_a_growing_prefix() -> None:
    async with asking([HI]) as asker:
        growing = ChatRequest("m", View([Entry("user", "Hello?")]))
        for _ in range(3):
            await asker.client.complete(growing, lambda _: None)
            growing.view.append(Entry("assistant", "Hi there"))
            growing.view.append(Entry("user", "And now?"))
        bodies = [sent.body.removesuffix(b"]}") for sent in asker.server.requests]
        assert bodies[1].startswith(bodies[0]) and bodies[2].startswith(bodies[1])
        assert asker.server.connections == 1


async def test_a_view_that_is_gone_is_forgotten() -> None:
    async with asking([HI]) as asker:
        await asker.ask()
        assert len(asker.client._encoded) == 0


# -- answers


def answer_of(pieces: list[bytes], *tools: ToolSpec) -> tuple[object, str, str]:
    """The outcome of a stream in these pieces, and what was shown of its text and reasoning."""
    deltas: list[Delta] = []
    answer = Incoming(request(*tools), deltas.append)
    outcome: object
    try:
        for piece in pieces:
            if answer.feed(piece):
                break
        answer.end(Response(200, {}))
        made = answer.completion()
        calls = [(c.name, c.arguments, c.origin, c.error) for c in made.calls]
        outcome = (made.text, made.reasoning, made.finish, made.incomplete, made.usage, calls)
    except OrgError as error:
        outcome = (type(error), error.message)
    shown = {kind: "".join(d.text for d in deltas if d.kind == kind) for kind in ("text", "reasoning")}
    return outcome, shown["text"], shown["reasoning"]


TEXTS = st.sampled_from(
    [
        *(
            "Hi",
            " there",
            "\u2028",
            "\u0085",
            "é",
            "🎉",
            "\ud83c",
            "\udf89",
            "\n",
            "<think>",
            "</think>",
            "<",
            "",
        ),
        *('<tool_call>{"name": "sh", "arguments": {"cmd": "ls"}}</tool_call>', '{"a": '),
    ]
)
DELTAS = st.one_of(
    TEXTS.map(lambda text: delta(content=text)),
    TEXTS.map(lambda text: delta(reasoning=text)),
    st.just(delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "sh", "arguments": "{}"}}])),
    st.just({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    st.just(delta("stop")),
    st.just({"error": "no"}),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(DELTAS, max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 2_000), max_size=8),
)
def test_any_split_of_a_stream_gives_the_same(
    made: list[dict[str, object]], end: bytes, done: bool, escaped: bool, points: list[int]
) -> None:
    payloads = [json.dumps(one, ensure_ascii=escaped).encode(errors="surrogatepass") for one in made]
    data = b"".join(b"data: %b%b%b" % (payload, end, end) for payload in payloads)
    data += b"data: [DONE]" + end + end if done else b""
    at_once = answer_of([data], SH)
    assert answer_of(cut(data, points), SH) == at_once
    assert answer_of([bytes([byte]) for byte in data], SH) == at_once
    json.dumps(str(at_once), ensure_ascii=False).encode()


async def test_a_thought_in_the_text_is_reasoning() -> None:
    async with asking([stream(said("<thi", "nk>hm", "</think>\n\n", "Yes."))]) as asker:
        completion = await asker.ask()
        assert (completion.text, completion.reasoning) == ("Yes.", "hm")
        assert (asker.shown, asker.thought) == ("Yes.", "hm")


async def test_a_thought_whose_beginning_the_template_wrote_is_reasoning() -> None:
    async with asking([stream(said("hm", "</think>\n\nYes."))]) as asker:
        completion = await asker.ask()
        assert (completion.text, completion.reasoning) == ("Yes.", "hm")


async def test_the_word_for_the_end_of_a_thought_is_text_after_a_thought() -> None:
    async with asking(
        [stream(events(delta(reasoning="hm"), delta(content="Say </think>."), delta("stop")))]
    ) as a:
        completion = await a.ask()
        assert (completion.text, completion.reasoning) == ("Say </think>.", "hm")


async def test_a_thought_that_never_ends_is_no_answer() -> None:
    async with asking([stream(said("<think>hm, ", "well"))]) as asker:
        completion = await asker.ask()
        assert (completion.text, completion.reasoning, asker.shown) == ("", "hm, well", "")


CALL = delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "sh", "arguments": '{"cmd":"a"}'}}])


async def test_declared_and_written_calls_in_one_answer() -> None:
    written = 'Look. <tool_call>{"name": "sh", "arguments": {"cmd": "b"}}</tool_call>'
    async with asking([stream(events(delta(content=written), CALL, delta("stop")))]) as asker:
        completion = await asker.ask(SH)
        assert [(c.arguments["cmd"], c.origin.kind) for c in completion.calls] == [
            ("a", "declared"),
            ("b", "embedded"),
        ]
        assert all(len(c.id) == 9 and c.id.isalnum() for c in completion.calls)
        assert completion.text.strip() == asker.shown.strip() == "Look."


@pytest.mark.parametrize("text", ["", '<tool_call>{"name": "sh", "arguments": {"cmd": "b"}}</tool_call>'])
async def test_calls_of_an_answer_cut_by_length_are_none(text: str) -> None:
    async with asking([stream(events(delta(content=text), CALL, delta("length")))]) as asker:
        completion = await asker.ask(SH)
        assert (completion.calls, completion.incomplete, completion.finish) == ((), True, "length")


async def test_broken_arguments_are_a_call_with_an_error() -> None:
    broken = delta(tool_calls=[{"index": 0, "function": {"name": "sh", "arguments": '{"cmd": "rm -rf /'}}])
    async with asking([stream(events(broken, delta("tool_calls")))]) as asker:
        (call,) = (await asker.ask(SH)).calls
        assert (call.name, call.arguments) == ("sh", {})
        assert "the arguments are not JSON" in call.error


@pytest.mark.parametrize(
    "body",
    [
        events(delta("stop", content="Hi"), done=False),
        events(delta(content="Hi"), done=True),
        events(delta("stop", content="Hi"), done=False).rstrip(),
        events(delta("stop", content="Hi"), done=False) + b"data: {",
        b": ping\n\n" + events(delta(content="Hi"), delta("stop"), {"choices": []}),
        events(delta(content="Hi")) + event({"error": "after the end nobody listens"}),
    ],
)
async def test_a_finish_reason_or_done_ends_an_answer(body: bytes) -> None:
    async with asking([STREAM_HEAD, chunk(body), CUT]) as asker:
        assert (await asker.ask()).text == "Hi"


@pytest.mark.parametrize("body", [b"", b": ping\n\n", events(delta(content="Hi"), done=False)])
async def test_an_answer_that_just_stops_is_broken(body: bytes) -> None:
    async with asking([stream(body)]) as asker:
        with pytest.raises(StreamBroken, match="ended the stream early") as caught:
            await asker.ask()
        assert "the server's own log" in caught.value.hint
        assert len(asker.server.requests) == 1


async def test_an_error_within_a_stream_is_raised_after_what_came_before_it() -> None:
    async with asking([stream(events(delta(content="Hi"), {"error": {"message": "no memory"}}))]) as asker:
        with pytest.raises(ServerRefused, match="no memory"):
            await asker.ask()
        assert asker.shown == "Hi"
        assert len(asker.server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        plain(said("Hi"), "200 OK", "application/octet-stream"),
        plain(b"\xef\xbb\xbf\n: ping\n\n" + said("Hi"), "200 OK", "text/plain"),
        plain(json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})),
        head("200 OK", "Content-Length: 1000") + said("Hi"),
    ],
)
async def test_an_answer_under_another_name_is_read_all_the_same(answer: bytes) -> None:
    async with asking([answer + b" " * (1000 - len(said("Hi"))) if b": 1000" in answer else answer]) as asker:
        assert (await asker.ask()).text == "Hi"
        assert asker.shown == "Hi"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (plain("<html>Router</html>", "200 OK", "text/html"), "answered a chat with text/html"),
        (plain("[]"), "answered a chat with application/json"),
        (head("204 No Content"), "ended the stream early"),
        (plain("{"), "not JSON"),
        (plain("{}"), "ended the stream early"),
    ],
)
async def test_what_is_no_answer_of_a_model_is_an_error(answer: bytes, message: str) -> None:
    assert message in (await refusal([answer])).message


# -- refusals


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        (plain('{"error":{"message":"bad"}}', "400 Bad Request"), "400: bad", ""),
        (plain('{"error":"bad"}', "400 Bad Request"), "400: bad", ""),
        (plain("404 page not found\n", "404 N", "text/plain"), "404: 404 page not found", "ollama pull"),
        (plain("", "403 Forbidden"), "403: an error without a message", "OLLAMA_ORIGINS"),
        (plain('{"error":{"message":"Invalid Key"}}', "401 U"), "401: Invalid Key", "ORG_API_KEY"),
        (
            plain("<html><title>502 Bad\n Gateway</title></html>", "502 Bad Gateway", "text/html"),
            "502: 502 Bad Gateway",
            "",
        ),
        (plain("<p>Oops</p>", "500 Oh", "text/html"), "500: an error without a message", ""),
        (plain('{"error":"x does not support tools"}', "400 B"), "does not support tools", "`simple`"),
        (plain("[" * 100_000, "500 Oh"), "500: [[[", ""),
        (plain(b"\xff\xfe", "500 Oh"), "500: \ufffd\ufffd", ""),
        (
            head("307 Temporary Redirect", "Location: https://x/v1", "Content-Length: 0"),
            "redirects to https://x/v1",
            "base URL",
        ),
    ],
)  # fmt: skip
async def test_a_refusal_says_what_the_server_said(answer: bytes, message: str, hint: str) -> None:
    async with asking([answer]) as asker:
        with pytest.raises(ServerRefused) as caught:
            await asker.ask()
        assert message in caught.value.message
        assert hint in caught.value.hint
        assert caught.value.status >= 300
        assert len(caught.value.message) < 600
        assert len(asker.server.requests) == 1, "asked again"


async def test_a_prompt_that_is_too_long_is_told_apart() -> None:
    body = {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}}
    error = await refusal([plain(json.dumps(body), "400 Bad Request")])
    assert isinstance(error, ContextExceeded)
    assert error.status == 400


# -- asking again


async def test_a_busy_server_is_asked_again_until_it_answers() -> None:
    async with asking([BUSY], [BUSY], [BUSY], [HI]) as asker:
        assert (await asker.ask()).text == "Hi there"
        assert len(asker.server.requests) == 4


async def test_a_server_that_stays_busy_is_given_up() -> None:
    async with asking([BUSY]) as asker:
        with pytest.raises(ServerRefused, match="503: server busy"):
            await asker.ask()
        assert len(asker.server.requests) == len(client_module.BACKOFF_S) + 1


async def test_a_runner_that_died_is_asked_once_more() -> None:
    async with asking([DIED], [HI]) as asker:
        assert (await asker.ask()).text == "Hi there"
    async with asking([DIED]) as asker:
        with pytest.raises(ServerRefused, match="unexpectedly stopped"):
            await asker.ask()
        assert len(asker.server.requests) == 2


async def test_a_kept_connection_that_the_server_closed_is_replaced_once() -> None:
    async with asking([HI, CUT], [CUT], [HI]) as asker:
        await asker.ask()
        assert (await asker.ask()).text == "Hi there"


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_stale_connection_costs_no_wait(end: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes it on the very request that it is used again for."""
    monkeypatch.setattr(client_module, "BACKOFF_S", ())
    async with asking([HI], [end], [HI]) as asker:  # type: ignore[list-item]
        await asker.ask()
        assert (await asker.ask()).text == "Hi there"
        assert [sent.connection for sent in asker.server.requests] == [1, 1, 2]


async def test_a_server_that_never_answers_a_fresh_connection_is_given_up() -> None:
    async with asking([CUT]) as asker:
        with pytest.raises(StreamBroken, match="closed the connection before it answered"):
            await asker.ask()
        assert len(asker.server.requests) == client_module.UNREACHABLE_TRIES


async def test_nobody_there() -> None:
    async with replay([HI]) as server:
        url = server.url
    async with ChatClient(url) as client:
        with pytest.raises(ServerUnreachable) as caught:
            await client.complete(request(), lambda _: None)
    assert caught.value.message == f"no model server at {url}: connection refused"


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_nothing_is_sent_again_once_something_was_shown(end: object) -> None:
    started = STREAM_HEAD + chunk(event(delta(content="Hi")))
    async with asking([started, end], [HI]) as asker:  # type: ignore[list-item]
        with pytest.raises(StreamBroken):
            await asker.ask()
        assert asker.shown in ("Hi", "")
        assert len(asker.server.requests) == 1


# -- silence, cancelling


async def test_silence_ends_in_a_stall() -> None:
    async with asking([STREAM_HEAD + chunk(event(delta(content="Hi"))), HANG], idle_timeout_s=0.05) as asker:
        with pytest.raises(StreamStalled):
            await asker.ask()
        assert asker.shown == "Hi"
        await asker.server.emptied()
        assert len(asker.server.requests) == 1


async def test_cancelling_ends_the_work_on_the_server_and_leaves_nothing() -> None:
    async with asking([STREAM_HEAD + chunk(event(delta(content="Hi"))), HANG]) as asker:
        shown = asyncio.Event()
        before = asyncio.all_tasks()
        task = asyncio.create_task(asker.client.complete(request(), lambda _: shown.set()))
        await shown.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asker.server.requests[0].gone.wait()
        await asker.server.emptied()
        assert asyncio.all_tasks() <= before


async def test_a_hundred_at_the_same_time() -> None:
    async with asking([HI]) as asker:
        requests = [asker.client.complete(request(), lambda _: None) for _ in range(100)]
        completions = await asyncio.gather(*requests)
        assert {c.text for c in completions} == {"Hi there"}
        await asker.client.aclose()
        await asker.server.emptied()


# -- the key


async def test_a_key_is_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refused = plain('{"error":"no"}', "401 Unauthorized")
    async with asking([refused], api_key=" geheim123\n") as asker:
        with pytest.raises(ServerRefused) as caught:
            await asker.ask()
        assert asker.server.requests[0].headers["authorization"] == "Bearer geheim123"
        shown = [
            repr(asker.client),
            repr(caught.value),
            caught.value.hint,
            caplog.text,
            asker.client.base_url,
        ]
        assert "geheim" not in "".join(shown)


@pytest.mark.parametrize("key", ["geheim\r\nX: y", "geheim…", "geheim\x00"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatClient("http://127.0.0.1:1/v1", api_key=key)
    assert "geheim" not in repr(caught.value) + caught.value.hint
    assert "ORG_API_KEY" in caught.value.hint


# -- what a server offers


@pytest.mark.parametrize(
    ("listing", "models"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}], "object": "list"}, ["a", "b"]),
        ({"models": [{"name": "a"}, {"model": "b"}]}, ["a", "b"]),
        ({"data": None}, []),
        ({"data": 5}, []),
        ({"data": ["a", {"id": 5}, {}, {"id": "b"}]}, ["b"]),
    ],
)
async def test_models(listing: object, models: list[str]) -> None:
    async with asking([plain(json.dumps(listing))]) as asker:
        assert await asker.client.models() == models
        assert asker.server.requests[0].line == "GET /v1/models HTTP/1.1"


@pytest.mark.parametrize("body", ["[]", "Ollama is running", "", "[" * 100_000])
async def test_what_is_no_json_object_is_an_error(body: str) -> None:
    async with asking([plain(body)]) as asker:
        with pytest.raises(ServerRefused, match="`GET //api/version` was not answered with a JSON object"):
            await asker.client.get_json("//api/version")
        assert asker.server.requests[0].line == "GET /api/version HTTP/1.1"


async def test_a_question_to_a_silent_server_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LISTING_TIMEOUT_S", 0.05)
    async with asking([HANG]) as asker:
        with pytest.raises(StreamStalled):
            await asker.client.models()


def test_ids_of_calls_are_unlike() -> None:
    ids = {new_call_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(isinstance(ToolCall(one, "sh", {}).id, str) and len(one) == 9 for one in ids)
