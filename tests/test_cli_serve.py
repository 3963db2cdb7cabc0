"""`org serve` as a process, on the real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
from pathlib import Path

import pytest

from cli_kit import Desk
from command import DEADLINE_S, Home, served
from engine import SCRIPTS, Engine
from org.cli.serve import address
from org.errors import ExitCode
from org.llm.scripted import scripted_model
from org.serve.listener import bind
from serve_kit import Client, ask, read_until, request

GREETING = {"model": "org/main", "messages": [{"role": "user", "content": "hi"}]}
TLS = Path(__file__).parent / "data" / "tls"
CERT, KEY = str(TLS / "cert.pem"), str(TLS / "key.pem")


@pytest.mark.engine
async def test_a_room_is_served_from_the_first_word_to_the_end(tmp_path: Path, engine: Engine) -> None:
    home = Home(tmp_path, engine.base_url, engine.model)
    home.roster({"guide": ("simple", "hello")})
    with served(home, "--room", "main") as (process, port, token):
        kept = tmp_path / "state" / "org" / "serve-token"
        assert kept.read_text().strip() == token
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        async with await Client.connect(port) as reader:
            while (room := await ask(port, "GET", "/rooms/main", token=token)).status == 404:
                pass  # it is being made
            assert [p["name"] for p in room.json["participants"]] == ["guide"]
            reader.send(request("GET", "/rooms/main/events", token=token))
            await reader.head()
            assert (
                await ask(port, "POST", "/rooms/main/messages", {"text": "hi"}, token=token)
            ).status == 202
            events = await read_until(reader, "stopped")
            said = [e["message"]["content"] for _, e in events if e["type"] == "posted"]
            assert said[0] == "hi"
            assert len(said) == 2
            # Another `org` is told where the room is.
            busy = await asyncio.to_thread(home.run, "run", "-r", "main", "hello?")
            assert busy.returncode == ExitCode.BUSY
            assert f"http://127.0.0.1:{port}" in busy.stderr
            health = (await ask(port, "GET", "/health", token="")).json
            assert health["pid"] == process.pid
            process.send_signal(signal.SIGTERM)
            assert await reader.event() is None
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    shown = home.run("show", "main")
    assert said[1] in shown.stdout


@pytest.mark.engine
async def test_rooms_share_the_engine_of_a_model_file(tmp_path: Path, models: Path) -> None:
    model = str(scripted_model(SCRIPTS, models))
    home = Home(tmp_path, model=model)
    home.roster({"guide": ("simple", "hello")})
    with served(home) as (process, port, token):
        for name in ("one", "two"):
            assert (await ask(port, "POST", "/rooms", {"id": name}, token=token)).status == 201
        assert (await ask(port, "POST", "/v1/chat/completions", GREETING, token=token)).status == 200
        assert len(children(process.pid)) == 1
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    # A room that was made here is gone on with elsewhere, and the other way round.
    del home.env["ORG_MODEL"]
    done = await asyncio.to_thread(home.run, "run", "-r", "one", "hi")
    assert done.stdout == "Hello, world. This is plain text, in small pieces.\n", done.stderr
    with served(home, "-m", model) as (process, port, token):
        assert (await ask(port, "POST", "/rooms/one/members", {"person": "bob"}, token=token)).status == 201
        assert len(children(process.pid)) == 1


async def test_without_a_model_server_it_serves_what_was(tmp_path: Path) -> None:
    home = Home(tmp_path, "http://127.0.0.1:9/v1")
    with served(home) as (_, port, token):
        made = await ask(port, "POST", "/rooms", {}, token=token)
        assert (made.status, "127.0.0.1:9" in made.error) == (503, True)
        assert (await ask(port, "GET", "/rooms", token=token)).json == {"rooms": []}


async def test_tls(tmp_path: Path) -> None:
    home = Home(tmp_path, "http://127.0.0.1:9/v1")
    with served(home, "--tls-cert", CERT, "--tls-key", KEY) as (_, port, token):
        context = ssl.create_default_context(cafile=TLS / "cert.pem")
        streams = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        async with Client(*streams) as client:
            assert (await client.ask("GET", "/rooms", token=token)).status == 200


@pytest.mark.parametrize(
    ("host", "names", "shown"),
    [
        ("127.0.0.1", ["mine.example"], "127.0.0.1"),
        ("0.0.0.0", ["mine.example", "other.example"], "mine.example"),  # every address: none to go to
        ("0.0.0.0", [], socket.gethostname()),
    ],
)
def test_the_link_leads_somewhere(host: str, names: list[str], shown: str) -> None:
    with socket.socket() as unheard:
        unheard.bind((host, 0))
        port = unheard.getsockname()[1]
        assert address(unheard, names, tls=True) == f"https://{shown}:{port}"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_a_busy_port_names_its_holder(desk: Desk) -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        said = desk.org("serve", "--port", str(port))
    assert said.code == ExitCode.BUSY
    assert f"port {port} is taken: pid {os.getpid()}" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "0.0.0.0"], "refused without TLS"),
        (["--listen", "0.0.0.0", "--tls-cert", "x"], "needs both"),
        (["--tls-key", "x"], "needs both"),
        (["--tls-cert", "x", "--tls-key", "y"], "no such file: `x`"),
        (["--port", "x"], "--port"),
        (["--port", "99999"], "expected 0 to 65535, not 99999"),
        (["--port", "-1"], "expected 0 to 65535, not -1"),
        (["--tls-cert", CERT, "--tls-key", CERT], "not a certificate with its key"),
        (["--tls-cert", KEY, "--tls-key", KEY], "not a certificate with its key"),
    ],
)
def test_doors_that_would_be_left_open(desk: Desk, words: list[str], message: str) -> None:
    said = desk.org("serve", *words)
    assert (said.code, message in said.err) == (ExitCode.USAGE, True), said.err


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
