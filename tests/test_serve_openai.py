"""The rooms through OpenAI's own client, through `llm`, and as bytes; on the real engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import DEADLINE_S, Home, served
from engine import Engine
from org.errors import ServerUnreachable
from org.events import Joined, Stepped
from org.messages import Usage
from org.ports import Turn
from org.serve.completions import COMMENT, Asked
from org.serve.dialogue import Piece
from org.serve.hearing import Outcome, Tell
from org.serve.openai import Reply
from serve_kit import TOKEN, Answer, Client, Parrot, ask, read_until, request, site

pytestmark = pytest.mark.engine

Scripted: TypeAlias = Callable[..., AbstractAsyncContextManager[Engine]]

HELLO = "Hello, world. This is plain text, in small pieces."
AGAIN = "And hello again."
ROSTER = {"coder": ("simple", "hello"), "guide": ("simple", "utf8"), "calc": ("simple", "pass")}


@dataclass(frozen=True)
class Desk:
    """A served room, and clients of it."""

    home: Home
    process: subprocess.Popen[str]
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, token: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=token or self.token, max_retries=0)

    def say(self, *texts: str, model: str = "org/main/coder", **options: Any) -> Any:
        """What the client makes of the answer to messages, of which every second is the assistant's;
        its chunks when it streams."""
        with self.client() as client:
            asked: Any = {"model": model, "messages": turns(*texts)} | options
            answer = client.chat.completions.create(**asked)
            return list(answer) if options.get("stream") else answer

    async def post(self, body: object, **headers: str) -> Answer:
        return await ask(self.port, "POST", "/v1/chat/completions", body, token=self.token, **headers)


def turns(*texts: str) -> Any:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def desk(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    home = Home(tmp_path_factory.mktemp("home"), engine.base_url, engine.model)
    home.roster(ROSTER)
    home.env["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))
    with served(home) as running:
        yield Desk(home, *running)


def test_the_models_are_the_room_and_who_is_in_it(desk: Desk) -> None:
    with desk.client() as client:
        assert [model.id for model in client.models.list()] == [
            "org/main",
            "org/main/coder",
            "org/main/guide",
            "org/main/calc",
        ]
        assert client.models.retrieve("org/main/guide").owned_by == "org"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/main/nobody")


def test_a_participant_answers(desk: Desk) -> None:
    answer = desk.say("hi")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", HELLO, "stop")
    assert answer.model == "org/main/coder"
    assert answer.usage.prompt_tokens > answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_conversation_goes_on_where_the_client_says(desk: Desk) -> None:
    assert desk.say("hi", HELLO, "and?").choices[0].message.content == AGAIN


def test_the_room_answers_with_names(desk: Desk) -> None:
    content = desk.say("hi", model="org/main").choices[0].message.content
    first, second, third = content.split("\n\n")
    assert (first, third) == (f"coder: {HELLO}", f"coder: {AGAIN}")
    assert second.startswith("guide: Grüße aus Zürich")
    # It comes back as what each of them said: who has said it goes on from there.
    again = desk.say("hi", f"{first}\n\n{second}", "and?", model="org/main").choices[0].message.content
    assert again == third


def test_a_stream_amounts_to_the_same(desk: Desk) -> None:
    for model in ("org/main", "org/main/coder"):
        chunks = desk.say("hi", model=model, stream=True, stream_options={"include_usage": True})
        whole = desk.say("hi", model=model)
        assert text_of(chunks) == whole.choices[0].message.content
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert len({chunk.id for chunk in chunks}) == 1


def text_of(chunks: Sequence[Any], field: str = "content") -> str:
    return "".join(getattr(c.choices[0].delta, field, None) or "" for c in chunks if c.choices)


async def test_the_client_that_waits_for_nothing(desk: Desk) -> None:
    async with openai.AsyncOpenAI(base_url=desk.url, api_key=desk.token, max_retries=0) as client:
        whole = await client.chat.completions.create(model="org/main/coder", messages=turns("hi"))
        assert whole.choices[0].message.content == HELLO
        stream = await client.chat.completions.create(
            model="org/main/coder", messages=turns("hi"), stream=True
        )
        assert text_of([chunk async for chunk in stream]) == HELLO


def test_thoughts_and_tools_stand_beside_the_text(desk: Desk) -> None:
    thinking: dict[str, Any] = {"messages": [{"role": "system", "content": "[[think]]"}, *turns("hi")]}
    message = desk.say(**thinking).choices[0].message
    chunks = desk.say(**thinking, stream=True)
    for content, thoughts in (
        (message.content, message.reasoning_content),
        (text_of(chunks), text_of(chunks, "reasoning_content")),
    ):
        assert (content, thoughts.strip()) == ("Hi there.", "They want a greeting. I will be brief.")


def test_silence_is_an_answer(desk: Desk) -> None:
    choice = desk.say("hi", model="org/main/calc").choices[0]
    assert (choice.message.content, choice.finish_reason) == ("", "stop")


def test_limits_of_the_client_hold(desk: Desk) -> None:
    cut = desk.say("hi", max_tokens=3)
    assert cut.choices[0].finish_reason == "length"
    assert HELLO.startswith(cut.choices[0].message.content)
    assert cut.usage.completion_tokens <= 3
    stopped = desk.say("hi", stop=["plain"], max_completion_tokens=500, temperature=0, top_p=1, seed=7)
    assert stopped.choices[0].message.content == "Hello, world. This is"


@pytest.mark.parametrize(
    ("error", "options", "param"),
    [
        (openai.NotFoundError, {"model": "org/main/nobody"}, "model"),
        (openai.NotFoundError, {"model": "gpt-4o"}, "model"),
        (openai.NotFoundError, {"metadata": {"room": "no-such-room"}}, None),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools"),
        (openai.BadRequestError, {"n": 2}, "n"),
        (openai.BadRequestError, {"temperature": 3}, "temperature"),
        (openai.BadRequestError, {"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals(
    desk: Desk, error: type[openai.APIStatusError], options: dict[str, Any], param: str | None, stream: bool
) -> None:
    with pytest.raises(error) as raised:
        desk.say("hi", stream=stream, **options)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_pictures_are_refused_by_name(desk: Desk) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "see"}, picture]}]
    with desk.client() as client, pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="org/main", messages=messages)
    assert raised.value.param == "messages[0].content[1]"
    assert "image_url" in raised.value.message


def test_an_address_that_names_nobody_is_refused(desk: Desk) -> None:
    with pytest.raises(openai.BadRequestError, match="perhaps you mean `@coder`"):
        desk.say("@codr hi", model="org/main")
    assert desk.say("@codr hi").choices[0].message.content == HELLO  # between two nobody is addressed
    assert desk.say("@guide hi", model="org/main").choices[0].message.content.startswith("guide: Grüße")


def test_who_has_no_token_is_told_in_openais_words(desk: Desk) -> None:
    with desk.client("wrong") as client, pytest.raises(openai.AuthenticationError) as raised:
        client.models.list()
    assert raised.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"", 400), (b"[]", 400), (b'{"model": "org/main"}', 400), (b" " * 2**21, 413)],
)
async def test_what_is_no_request(desk: Desk, body: bytes, status: int) -> None:
    answer = await desk.post(body)
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}


JUNK = st.text(st.sampled_from("@#:`\n codergui\x00\x1b\u2028é\ud800"), max_size=60)
PARTS = st.lists(st.builds(lambda text: {"type": "text", "text": text}, JUNK), max_size=3)
ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
HISTORY = st.lists(st.fixed_dictionaries({"role": ROLES, "content": JUNK | PARTS | st.none()}), max_size=4)
MESSAGES = HISTORY | HISTORY.map(lambda history: [*history, {"role": "user", "content": "hi"}])
OPTIONS = st.fixed_dictionaries(
    {"model": st.sampled_from(["org/main", "org/main/coder", "org/main/calc"]), "messages": MESSAGES},
    optional={
        "stream": st.booleans() | st.none() | JUNK,
        "max_tokens": st.integers(-1, 5),
        "seed": st.integers() | st.floats(),
        "stop": JUNK | st.lists(JUNK),
        "metadata": st.dictionaries(st.sampled_from(["room", "x"]), JUNK),
        "temperature": st.floats(),
    },
)


@given(OPTIONS)
@settings(max_examples=80)
def test_whatever_is_asked_is_answered_or_refused(desk: Desk, body: dict[str, Any]) -> None:
    answer = asyncio.run(desk.post(body))
    assert answer.status in (200, 400, 404), answer.body
    if answer.status != 200:
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    elif body.get("stream"):
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert b'"error"' not in answer.body
    else:
        assert isinstance(answer.json["choices"][0]["message"]["content"], str)


async def test_other_addresses_below_v1(desk: Desk) -> None:
    for method, path, status in (("POST", "/v1/embeddings", 404), ("DELETE", "/v1/models", 405)):
        answer = await ask(desk.port, method, path, {}, token=desk.token)
        assert (answer.status, answer.json["error"]["type"]) == (status, "invalid_request_error")


async def test_the_bytes_of_a_stream(desk: Desk) -> None:
    answer = await desk.post({"model": "org/main/coder", "messages": turns("hi"), "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, last, rest = answer.body.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all("usage" not in chunk for chunk in chunks)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


async def test_nothing_is_kept(desk: Desk) -> None:
    answer = await desk.post({"model": "org/main", "messages": turns("hi")})
    assert answer.status == 200
    assert (await ask(desk.port, "GET", "/rooms", token=desk.token)).json == {"rooms": []}
    assert not desk.home.rooms.exists()
    assert os.listdir(desk.home.env["TMPDIR"]) == []


def test_llm(desk: Desk, tmp_path: Path) -> None:
    names = "- model_id: org/main\n  model_name: org/main\n"
    models = f'{names}  api_base: "{desk.url}"\n  api_key_name: org\n'
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "keys.json").write_text(json.dumps({"org": desk.token}))
    command = [str(Path(sys.executable).with_name("llm")), "-m", "org/main", "@coder hi"]
    for words in ((), ("--no-stream",)):
        done = subprocess.run(
            [*command, *words],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.stdout.startswith(f"coder: {HELLO}\n\nguide: "), done.stderr


# -- when things go wrong, or end


async def test_a_client_that_hangs_up_ends_what_it_asked_for(desk: Desk) -> None:
    body = {"model": "org/main/coder", "messages": told("forever"), "stream": True}
    async with await Client.connect(desk.port) as client:
        client.send(request("POST", "/v1/chat/completions", body, token=desk.token))
        await client.head()
        await client.part()
    await metric(desk, 'org_exchanges_total{reason="interrupted"} 1')


async def metric(desk: Desk, line: str) -> None:
    """Wait until the server counts that."""
    async with asyncio.timeout(DEADLINE_S):
        while line not in (await ask(desk.port, "GET", "/metrics", token=desk.token)).body.decode():
            pass


def told(script: str) -> Any:
    return [{"role": "system", "content": f"[[{script}]]"}, *turns("hi")]


@asynccontextmanager
async def alone(folder: Path, base: str, model: str, extra: str = "") -> AsyncIterator[Desk]:
    """A server of one's own."""
    home = Home(folder / "home", base, model)
    home.roster({"coder": ("agent", "hello")}, extra)
    home.env["TMPDIR"] = str(folder)
    with served(home) as running:
        yield Desk(home, *running)


async def test_a_model_server_that_dies(tmp_path: Path, scripted: Scripted) -> None:
    script = {"hello": ["The clock: \x1etick tock "]}
    async with scripted(script) as engine, alone(tmp_path, engine.base_url, engine.model) as desk:
        body = {"model": "org/main/coder", "messages": turns("hi"), "stream": True}
        async with await Client.connect(desk.port) as client:
            client.send(request("POST", "/v1/chat/completions", body, token=desk.token))
            assert (await client.head())[0] == 200
            said = await client.part()
            engine.kill()
            while part := await client.part():
                said += part
        *_, error, done, rest = said.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        assert json.loads(error.removeprefix(b"data: "))["error"]["type"] == "server_error"
        for stream in (False, True):  # now it is gone before the first byte
            with pytest.raises(openai.InternalServerError) as raised:
                await asyncio.to_thread(desk.say, "hi", stream=stream)
            assert raised.value.status_code == 502
            assert engine.base_url.removesuffix("/v1") in raised.value.message


async def test_without_a_model_server_and_a_model(tmp_path: Path) -> None:
    async with alone(tmp_path, "http://127.0.0.1:9/v1", "") as desk:
        with pytest.raises(openai.InternalServerError, match=r"127\.0\.0\.1:9") as raised:
            await asyncio.to_thread(desk.say, "hi")
    assert raised.value.status_code == 503


async def test_what_is_asked_before_the_end_is_answered(tmp_path: Path, scripted: Scripted) -> None:
    async with scripted({"hello": [HELLO]}) as engine, alone(tmp_path, engine.base_url, engine.model) as desk:
        engine.freeze()
        async with await Client.connect(desk.port) as client:
            body = {"model": "org/main/coder", "messages": turns("hi")}
            client.send(request("POST", "/v1/chat/completions", body, token=desk.token))
            await metric(desk, "org_forks_open 1")
            desk.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE_S):
                while await accepts(desk.port):
                    pass
            engine.thaw()
            answer = await client.answer()
        assert answer.json["choices"][0]["message"]["content"] == HELLO
        assert answer.headers["connection"] == "close"
        assert await asyncio.to_thread(desk.process.wait, DEADLINE_S) == 0


async def accepts(port: int) -> bool:
    try:
        async with await Client.connect(port):
            return True
    except ConnectionRefusedError:
        return False


@pytest.mark.sandbox
async def test_tools_run_in_the_room(tmp_path: Path, engine: Engine) -> None:
    async with alone(tmp_path, engine.base_url, engine.model) as desk:
        body = {"model": "org/main/coder", "messages": told("talk-tool")}
        message = (await desk.post(body)).json["choices"][0]["message"]
        assert message["content"] == "Let me look.\n\nNothing special there."
        assert message["reasoning_content"] == "[sh `ls -la .`]"
        assert "tool_calls" not in message
        events = (await desk.post(body | {"stream": True})).body
        assert b"tool_calls" not in events
        assert [name for name in os.listdir(tmp_path) if name.startswith("org-")] == []


@pytest.mark.sandbox
async def test_nobody_is_there_to_approve(tmp_path: Path, engine: Engine) -> None:
    async with alone(tmp_path, engine.base_url, engine.model, '[tools]\nsh = "ask"\n') as desk:
        answer = await desk.post({"model": "org/main/coder", "messages": told("tool")})
        choice = answer.json["choices"][0]
        assert choice["message"] == {
            "role": "assistant",
            "content": "The command printed hi.",
            "refusal": None,
        }
        await metric(desk, 'org_tool_calls_total{tool="sh",outcome="unattended"} 1')


async def test_a_model_is_chosen_once_it_is_needed(tmp_path: Path, engine: Engine) -> None:
    async with alone(tmp_path, engine.base_url, "") as desk:
        assert (await desk.post({"model": "org/main", "messages": turns("hi")})).status == 200


class Recorder:
    """A model server that answers all with the same, and keeps what it was asked."""

    CHUNK = b'{"choices":[{"index":0,"delta":{"content":"yes"},"finish_reason":"stop"}]}'
    ANSWER = b"data: %b\n\ndata: [DONE]\n\n" % CHUNK

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The base URL."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head.lower())
        status, kind, body = b"404 Not Found", b"application/json", b"{}"
        if found is not None:
            self.asked.append(json.loads(await reader.readexactly(int(found[1]))))
            status, kind, body = b"200 OK", b"text/event-stream", self.ANSWER
        lines = (b"HTTP/1.1 " + status, b"Connection: close", b"Content-Type: " + kind)
        writer.write(b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", body)))
        writer.close()
        await writer.wait_closed()


async def test_what_the_model_is_asked(tmp_path: Path) -> None:
    recorder = Recorder()
    async with recorder.serving() as base, alone(tmp_path, base, "feathers") as desk:
        messages = [{"role": "system", "content": "Be brief."}, *turns("one", "two", "three")]
        body = {"model": "org/main/coder", "messages": messages, "seed": 7, "stop": "x", "temperature": 0}
        first = await desk.post(body | {"top_p": 0.5, "max_tokens": 9})
        await desk.post(body | {"top_p": 0.5, "max_tokens": 9})
        assert first.json["choices"][0]["message"]["content"] == "yes"
    sent, again = recorder.asked
    assert sent == again  # the same request is the same prompt, to the last byte
    wanted = {"model": "feathers", "seed": 7, "stop": ["x"], "temperature": 0, "top_p": 0.5, "max_tokens": 9}
    assert sent | wanted == sent
    system, *rest = sent["messages"]
    assert system["content"].endswith("[[hello]]\n\nBe brief.")
    assert rest == [
        {"role": "user", "content": "ada: one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "ada: three"},
    ]


# -- in a room that is there


@dataclass
class Mute:
    """A participant whose model is away."""

    introduction: Joined = field(default_factory=lambda: Joined("mute", "model", "simple", "none"))

    async def respond(self, turn: Turn) -> str:
        raise ServerUnreachable("no model server")


async def test_what_failed_in_a_live_room_is_not_said_again(tmp_path: Path) -> None:
    async with site(tmp_path, lambda: [Mute()]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=TOKEN)
        async with client:
            with pytest.raises(openai.InternalServerError, match="mute's turn failed: no model server"):
                await client.chat.completions.create(
                    model="org/main", messages=turns("hi"), metadata={"room": "main"}
                )
        transcript = (await server.ask("GET", "/rooms/main/transcript")).json["events"]
        assert [event["type"] for event in transcript].count("posted") == 1


async def test_a_live_room_is_joined(tmp_path: Path) -> None:
    async with site(tmp_path, lambda: [Parrot(), Parrot("echo")]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})
        body = {"model": "org/main", "messages": turns("old", "words", "new"), "metadata": {"room": "main"}}
        answer = await server.ask("POST", "/v1/chat/completions", body)
        content = answer.json["choices"][0]["message"]["content"]
        assert content.startswith("parrot: heard: new\n\necho: heard: heard: new")
        transcript = (await server.ask("GET", "/rooms/main/transcript")).json["events"]
        posted = [event["message"]["content"] for event in transcript if event["type"] == "posted"]
        assert posted[:2] == ["new", "heard: new"]
        to_one = await server.ask("POST", "/v1/chat/completions", body | {"model": "org/main/echo"})
        assert to_one.json["choices"][0]["message"]["content"].startswith("heard: new")
        gone = await server.ask("POST", "/v1/chat/completions", body | {"model": "org/main/nobody"})
        assert (gone.status, gone.json["error"]["code"]) == (404, "model_not_found")


async def test_in_a_live_room_everybody_gets_the_answer_to_their_own_words(tmp_path: Path) -> None:
    """The room goes on with what others said: whose question is answered waits for no more than that."""
    gates = {word: asyncio.Event() for word in ("first", "second", "third")}
    begun = {word: asyncio.Event() for word in gates}

    class Slow(Parrot):
        async def respond(self, turn: Turn) -> str:
            word = turn.causes[-1].content
            usage = Usage(len(turn.causes), 1)
            begun[word].set()
            await gates[word].wait()
            await turn.commit(Stepped(self.name, turn.id, f"{self.name} {word}", usage=usage))
            return f"@me {self.name} {word}"

    async with site(tmp_path, lambda: [Slow("ann"), Slow("bob")]) as server:
        await server.ask("POST", "/rooms", {"id": "main"})

        async def complete(name: str, word: str) -> tuple[str, int]:
            body = {"model": f"org/main/{name}", "messages": turns(word), "metadata": {"room": "main"}}
            answer = (await server.ask("POST", "/v1/chat/completions", body)).json
            return answer["choices"][0]["message"]["content"], answer["usage"]["total_tokens"]

        async with asyncio.timeout(DEADLINE_S):
            first = asyncio.create_task(complete("ann", "first"))
            await begun["first"].wait()
            second = asyncio.create_task(complete("ann", "second"))
            async with await Client.connect(server.port) as reader:
                reader.send(request("GET", "/rooms/main/events"))
                await reader.head()
                await read_until(reader, "posted", 2)
            gates["first"].set()
            await begun["second"].wait()  # the room is not at rest, and bob is asked too
            third = asyncio.create_task(complete("bob", "third"))
            assert await first == ("ann first", 2)
            gates["third"].set()
            gates["second"].set()
            assert await second == ("ann second", 2)
            assert await third == ("bob third", 2)


async def test_silence_is_filled_with_comments() -> None:
    heard = asyncio.Event()
    sent: list[bytes] = []

    async def talk(tell: Tell) -> Outcome:
        await heard.wait()
        tell(Piece("content", "at last"))
        return Outcome("stop", Usage())

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))
        if sent[-1] == COMMENT:  # a second one: the first goes with the head of the answer
            heard.set()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    asked = Asked("org/main", "", (), stream=True)
    await Reply(asked, talk, keep_alive_s=0.01)({"type": "http", "path": "/v1/"}, receive, send)
    text = b"".join(sent)
    assert text.count(COMMENT) >= 2
    assert b"id:" not in text
    assert text.index(COMMENT) < text.index(b"at last") < text.index(b"[DONE]")
