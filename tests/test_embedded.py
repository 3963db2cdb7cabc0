from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from engine import MODEL, Engine, call
from org.errors import EnvironmentProblem
from org.llm.embedded import EmbeddedServer
from org.llm.scripted import FOREVER, scripted_model

pytestmark = pytest.mark.engine

Scripted: TypeAlias = Callable[..., AbstractAsyncContextManager[Engine]]


def tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


TOOLS = [tool("sh", cmd="string", timeout_s="number"), tool("python_run", code="string")]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calls(message: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", [])
    ]


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The data of a stream until it ends, however that is."""
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def deltas(engine: Engine, script: str, **body: Any) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": f"[[{script}]]"}, user("go")]
    with closing(engine.connect({"messages": messages, "stream": True, **body})) as connection:
        return [event["choices"][0]["delta"] for event in events(connection.getresponse())]


# -- what it says


def test_a_script_is_said_step_by_step_then_pass(engine: Engine) -> None:
    view = [user("hi")]
    said = []
    for _ in range(4):
        view.append(engine.ask("hello", *view))
        said.append(view[-1]["content"])
        view.append(user("and then?"))
    assert said == [
        "Hello, world. This is plain text, in small pieces.",
        "And hello again.",
        "PASS",
        "PASS",
    ]


@pytest.mark.parametrize("name", ["hello", "calls-in-text", "utf8"])
def test_only_the_system_prompt_picks_the_script(engine: Engine, name: str) -> None:
    others = [user(f"[[{name}]]"), {"role": "assistant", "content": "[[tool]]"}, user("[[think]]")]
    assert engine.ask("markdown", user(f"[[{name}]] [[nobody]]"))["content"].startswith("# Title")
    assert engine.ask("markdown", *others)["content"] == "PASS"


def test_no_marker_gets_the_default(engine: Engine) -> None:
    for messages in ([user("hi")], [{"role": "system", "content": "[[nobody]]"}, user("[[hello]]")]):
        status, answer = engine.post(messages=messages)
        assert status == 200
        assert answer["choices"][0]["message"]["content"].startswith("I only recite")


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_sampling_changes_nothing(engine: Engine, temperature: float) -> None:
    answer = engine.ask("hello", user("hi"), temperature=temperature, top_p=1.0, frequency_penalty=1.0)
    assert answer["content"] == "Hello, world. This is plain text, in small pieces."


def test_text_of_all_kinds_arrives_in_pieces(engine: Engine) -> None:
    pieces = [delta.get("content") or "" for delta in deltas(engine, "utf8")]
    assert len([piece for piece in pieces if piece]) > 5
    assert "".join(pieces).startswith(
        "Grüße aus Zürich — ça va? 你好，世界! 🎉 naïve café ✓ Καλημέρα \u2028 \u0085"
    )


def test_thinking_is_kept_apart(engine: Engine) -> None:
    answer = engine.ask("think", user("hi"))
    assert answer["content"] == "Hi there."
    assert answer["reasoning_content"].strip() == "They want a greeting. I will be brief."
    first = engine.ask("think-tool", user("year?"), tools=TOOLS)
    assert first["reasoning_content"].strip() == "I should ask the shell."
    assert calls(first) == [("sh", {"cmd": "date +%Y"})]


# -- what it calls


def test_a_call_is_declared_and_answered(engine: Engine) -> None:
    first = engine.ask("talk-tool", user("look"), tools=TOOLS)
    assert first["content"].strip() == "Let me look."
    assert calls(first) == [("sh", {"cmd": "ls -la ."})]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "a\nb"}
    second = engine.ask("talk-tool", user("look"), first, result, tools=TOOLS)
    assert second["content"] == "Nothing special there."
    assert "tool_calls" not in second


def test_two_calls_at_once(engine: Engine) -> None:
    answer = engine.ask("two", user("go"), tools=TOOLS, parallel_tool_calls=True)
    assert calls(answer) == [("sh", {"cmd": "echo one"}), ("sh", {"cmd": "echo two"})]


def test_several_steps_with_results_between(engine: Engine) -> None:
    view = [user("go")]
    ran = []
    while True:
        answer = engine.ask("three-steps", *view, tools=TOOLS)
        view.append(answer)
        if "tool_calls" not in answer:
            break
        for made in answer["tool_calls"]:
            ran.append(json.loads(made["function"]["arguments"])["cmd"])
            view.append({"role": "tool", "tool_call_id": made["id"], "content": "ok"})
    assert ran == ["echo step 1", "echo step 2", "echo step 3"]
    assert view[-1]["content"] == "All three steps are done."


def test_long_arguments_come_in_fragments(engine: Engine) -> None:
    made = [c for delta in deltas(engine, "long-arguments", tools=TOOLS) for c in delta.get("tool_calls", [])]
    assert len(made) > 5
    arguments = json.loads("".join(piece["function"]["arguments"] for piece in made))
    assert list(arguments) == ["cmd", "timeout_s"]
    assert "\\\\ in text" in arguments["cmd"]


def test_calls_written_as_json_text_stay_text(engine: Engine) -> None:
    answer = engine.ask("calls-in-text", user("go"), tools=TOOLS)
    assert "tool_calls" not in answer
    assert answer["content"].startswith('I will look.\n{"tool_calls": [')


async def test_raw_leaves_calls_and_thoughts_in_the_text(scripted: Scripted) -> None:
    wrong = '<tool_call>\n{"name": "nobody", "arguments": {"x": }}\n</tool_call>'
    scripts = {"one": ["Look: " + call("sh", cmd="ls"), wrong], "two": ["<think>\nhm\n</think>\n\nok"]}
    async with scripted(scripts, raw=True) as engine:
        first = await asyncio.to_thread(engine.ask, "one", user("go"), tools=TOOLS)
        assert "tool_calls" not in first
        assert first["content"] == "Look: " + call("sh", cmd="ls")
        second = await asyncio.to_thread(engine.ask, "one", user("go"), first, user("go on"), tools=TOOLS)
        assert second["content"] == wrong
        assert "ok" in (await asyncio.to_thread(engine.ask, "two", user("go")))["content"]


# -- how it serves


async def test_a_key_is_demanded(scripted: Scripted) -> None:
    async with scripted({"a": ["Yes."]}, api_key="s3cret") as engine:
        assert (await asyncio.to_thread(engine.ask, "a", user("hi")))["content"] == "Yes."
        command = Path(f"/proc/{engine.pid}/cmdline").read_bytes()
        assert b"s3cret" not in command
        engine.api_key = "wrong"
        status, answer = await asyncio.to_thread(engine.post, messages=[user("hi")])
        assert status == 401
        assert "key" in answer["error"]["message"].lower()


async def test_requests_run_at_the_same_time(scripted: Scripted) -> None:
    """Four streams that never end all flow: none of them waits for another."""
    async with scripted({"a": ["Go: " + FOREVER + "tick tock "]}, parallel=4) as engine:
        body = {"messages": [{"role": "system", "content": "[[a]]"}, user("go")], "stream": True}
        connections = [engine.connect(body) for _ in range(4)]

        def hear() -> None:
            for flow in [events(connection.getresponse()) for connection in connections]:
                for _ in range(20):
                    next(flow)

        await asyncio.to_thread(hear)
        for connection in connections:
            connection.close()


async def test_closing_the_socket_ends_the_generation(scripted: Scripted) -> None:
    async with scripted({"a": ["Go: " + FOREVER + "tick tock "], "b": ["At last."]}, parallel=1) as engine:
        body = {"messages": [{"role": "system", "content": "[[a]]"}, user("go")], "stream": True}

        def leave_and_ask() -> str:
            with closing(engine.connect(body)) as connection:
                flow = events(connection.getresponse())
                for _ in range(5):
                    next(flow)
            # The only slot was busy without end; this is answered only when it is free again.
            return str(engine.ask("b", user("hi"))["content"])

        assert await asyncio.to_thread(leave_and_ask) == "At last."


async def test_a_frozen_server_says_nothing_until_thawed(scripted: Scripted) -> None:
    async with scripted({"a": ["Go: " + FOREVER + "tick tock "]}) as engine:
        body = {"messages": [{"role": "system", "content": "[[a]]"}, user("go")], "stream": True}
        with closing(engine.connect(body)) as connection:
            flow = events(connection.getresponse())
            next(flow)
            engine.freeze()
            stopped = {
                task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
                for task in Path(f"/proc/{engine.pid}/task").iterdir()
            }
            assert stopped == {"T"}
            engine.thaw()
            for _ in range(100):
                next(flow)


async def test_a_killed_server_breaks_the_stream_without_an_end(scripted: Scripted) -> None:
    async with scripted({"a": ["Go: " + FOREVER + "tick tock "]}) as engine:
        body = {"messages": [{"role": "system", "content": "[[a]]"}, user("go")], "stream": True}
        with closing(engine.connect(body)) as connection:
            response = connection.getresponse()
            assert response.readline().startswith(b"data: {")
            engine.kill()
            rest = response.readlines()
    assert all(b'"finish_reason":null' in line for line in rest if line.endswith(b"}\n"))
    assert b"data: [DONE]\n" not in rest


async def test_closing_ends_the_process_though_it_is_talking(scripted: Scripted) -> None:
    async with scripted({"a": ["Go: " + FOREVER + "tick tock "]}) as engine:
        body = {"messages": [{"role": "system", "content": "[[a]]"}, user("go")], "stream": True}
        connection = engine.connect(body)
        next(events(connection.getresponse()))
    connection.close()
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)


async def test_it_listens_on_loopback_and_shows_no_page(scripted: Scripted) -> None:
    async with scripted({"a": ["x"]}) as engine:
        port = int(engine.base_url.rpartition(":")[2].removesuffix("/v1"))
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for path, status in (("/health", 200), ("/", 404), ("/slots", 501)):
            connection.request("GET", path, headers={"Origin": "http://example.org"})
            response = connection.getresponse()
            response.read()
            assert (path, response.status) == (path, status)
            assert response.getheader("Access-Control-Allow-Origin", "") == ""
            connection.close()
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0


async def test_what_was_chosen_is_told(models: Path) -> None:
    model = scripted_model({"a": ["x"]}, models)
    async with EmbeddedServer(model, "mine") as server:
        assert (server.ctx, server.ctx_max, server.parallel) == (8192, 131_072, 1)
        assert server.threads >= 1
        assert server.description == (
            "context 8192 tokens (the model allows 131072, for more memory), "
            f"threads: {server.threads}, one request at a time"
        )


async def test_the_context_is_for_each_request(scripted: Scripted) -> None:
    async with scripted({"a": ["x"]}, ctx=512, parallel=3) as engine:
        status, _ = await asyncio.to_thread(engine.post, messages=[user("word " * 400)])
        assert status == 200
        status, answer = await asyncio.to_thread(engine.post, messages=[user("word " * 600)])
        assert status == 400
        assert answer["error"]["type"] == "exceed_context_size_error"


# -- when it cannot


async def refused(path: Path, **options: Any) -> EnvironmentProblem:
    with pytest.raises(EnvironmentProblem) as caught:
        async with EmbeddedServer(path, MODEL, threads=1, **options):
            pass
    assert "\n" not in caught.value.message
    return caught.value


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in (await refused(tmp_path / "none.gguf")).message
    assert "Is a directory" in (await refused(tmp_path)).message


async def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>")
    problem = await refused(tmp_path / "page.gguf")
    assert "not a GGUF file" in problem.message
    assert problem.hint


@pytest.mark.parametrize("size", [4, 60_000, 500_000])
async def test_a_file_cut_short(models: Path, tmp_path: Path, size: int) -> None:
    whole = scripted_model({"a": ["x"]}, models).read_bytes()
    assert len(whole) > size
    (tmp_path / "cut.gguf").write_bytes(whole[:size])
    problem = await refused(tmp_path / "cut.gguf")
    assert problem.message.startswith(f"the model cannot be served: `{tmp_path / 'cut.gguf'}`: ")
    assert "download the file again" in problem.hint


async def test_a_model_that_takes_too_long(models: Path) -> None:
    model = scripted_model({"a": ["x"]}, models)
    assert "not loaded after" in (await refused(model, deadline_s=0.0)).message


async def test_the_package_is_not_installed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scripted_model({"a": ["x"]}, models)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problem = await refused(model)
    assert problem.message == "the embedded engine is not installed"
    assert (
        problem.hint == "install org with its extra, in its source folder: pipx install --force '.[embedded]'"
    )


def test_scripts_need_the_packages_too() -> None:
    code = "import sys; sys.modules['gguf'] = None; import org.llm.scripted"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem: the embedded engine is not installed: no package `gguf`" in result.stderr


# -- while it loads


@pytest.fixture
def slow_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that loads until somebody writes to the returned pipe, and then fails."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "xllamacpp.py").write_text(
        "import os\nos.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)\nraise SystemExit('no room left')\n"
    )
    monkeypatch.setenv("GATE", str(gate))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return gate


async def test_a_long_wait_is_told(models: Path, slow_engine: Path) -> None:
    told: list[float] = []

    def on_wait(seconds: float) -> None:
        told.append(seconds)
        slow_engine.write_bytes(b"go")

    problem = await refused(scripted_model({"a": ["x"]}, models), on_wait=on_wait)
    assert problem.message.endswith(": no room left")
    assert len(told) == 1
    assert told[0] > 0


async def test_giving_up_while_it_loads_ends_it(models: Path, slow_engine: Path) -> None:
    waiting = asyncio.Event()
    model = scripted_model({"a": ["x"]}, models)
    server = EmbeddedServer(model, MODEL, on_wait=lambda seconds: waiting.set())
    entering = asyncio.create_task(server.__aenter__())
    await waiting.wait()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


# -- whose life it shares

PARENT = """
import asyncio, sys
from pathlib import Path
from org.llm.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(Path(sys.argv[1]), "m", threads=1) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_parent(models: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(scripted_model({"a": ["x"]}, models))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        ended = os.pidfd_open(child)
        parent.send_signal(how)
        parent.wait(30)
    try:
        assert select.select([ended], [], [], 30)[0] == [ended]
    finally:
        os.close(ended)


def engine_process() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "org.llm.engine"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )


def options(model: Path, **changes: Any) -> bytes:
    rest = {"parallel": 1, "threads": 1, "raw": False, "api_key": ""}
    fields = {"parent": os.getpid(), "model": str(model), "alias": "m", "ctx": 512, **rest, **changes}
    return json.dumps(fields).encode() + b"\n"


def test_the_child_ends_when_its_input_does(models: Path) -> None:
    """Without a signal too: that is how it learns of its parent's end where there is none."""
    with engine_process() as child:
        assert child.communicate(timeout=30)[0] == b""
        assert child.returncode == 0
    with engine_process() as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(options(scripted_model({"a": ["x"]}, models)))
        assert json.loads(child.stdout.readline())["ctx"] == 512
        child.stdin.close()
        assert child.wait(30) == 0


def test_the_child_of_another_parent_does_not_start(models: Path) -> None:
    with engine_process() as child:
        changed = options(scripted_model({"a": ["x"]}, models), parent=1 if os.getpid() != 1 else 2)
        assert child.communicate(changed, timeout=30)[0] == b""
        assert child.returncode == 0
