"""The rooms through OpenAI's own client, through `llm`, and as bytes; on the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from command import DEADLINE_S, Home, served
from engine import Engine
from serve_kit import Answer, ask

pytestmark = pytest.mark.engine

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
