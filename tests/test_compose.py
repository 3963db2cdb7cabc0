from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from org.chat.participant import ModelParticipant
from org.compose.opening import Opening
from org.compose.rooms import open_session
from org.compose.servers import UNKNOWN_CONTEXT, Servers
from org.compose.session import Session
from org.config import Settings, load
from org.errors import EnvironmentProblem, UsageError
from org.llm.scripted import scripted_model
from replay import plain, said, stream

HELLO = {"hello": ["Hello.", "Hello again."]}

LoadSettings = Callable[..., Settings]


@pytest.fixture
def settings(tmp_path: Path) -> LoadSettings:
    """The settings of a home in `tmp_path`, with this `org.toml` in the folder `cwd` of it."""

    def made(
        toml: str = "", *, cwd: str = "project", env: Mapping[str, str] | None = None, **flags: object
    ) -> Settings:
        folder = tmp_path / cwd
        folder.mkdir(parents=True, exist_ok=True)
        if toml:
            (folder / "org.toml").write_text(toml)
        home = {"HOME": str(tmp_path), "USER": "ada"} | dict(env or {})
        return load(cwd=folder, flags={"sandbox.place": "bubblewrap", **flags}, env=home)

    return made


def guide(session: Session) -> ModelParticipant:
    participant = session.room.participants["guide"]
    assert isinstance(participant, ModelParticipant)
    return participant


ROSTER = '[[participant]]\nid = "guide"\nprofile = "simple"\nsystem = "[[hello]]"\n'


@pytest.mark.engine
@pytest.mark.sandbox
async def test_a_room_on_a_model_file_can_be_resumed(
    settings: LoadSettings, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scripted_model(HELLO, models)
    monkeypatch.chdir(path.parent)
    async with open_session(settings(ROSTER, model=path.name), Opening(room="filed")) as session:
        await session.room.say("ada", "hi")
        assert session.room.transcript[-1].content == "Hello."
    monkeypatch.chdir(tmp_path)
    async with open_session(settings(), Opening(room="filed", resume=True)) as session:
        assert guide(session).introduction.model == str(path.resolve())
        await session.room.say("ada", "hi again")
        assert session.room.transcript[-1].content == "Hello again."


@pytest.mark.parametrize("member", [False, True])
async def test_a_model_file_is_beside_the_settings_that_name_it(
    settings: LoadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, member: bool
) -> None:
    line = 'model = "./x.gguf"\n'
    loaded = settings(f"{ROSTER}{line}" if member else f"{line}{ROSTER}")
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        servers = Servers(loaded, stack, lambda text: None)
        with pytest.raises(UsageError, match=str(tmp_path / "project" / "x.gguf")):
            await servers.of(loaded.participants[0])


async def test_a_model_file_on_the_command_line_is_in_the_working_folder(
    settings: LoadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = settings(ROSTER, model="x.gguf")
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        servers = Servers(loaded, stack, lambda text: None)
        with pytest.raises(UsageError, match=f"`{tmp_path / 'x.gguf'}`"):
            await servers.of(loaded.participants[0])


@pytest.mark.parametrize("opening", [Opening(), Opening(room="named")])
async def test_a_state_folder_that_cannot_be_made(settings: LoadSettings, opening: Opening) -> None:
    loaded = settings(model="m", env={"XDG_STATE_HOME": "/proc/none"})
    with pytest.raises(EnvironmentProblem, match="no room can be kept at `/proc/none"):
        async with open_session(loaded, opening):
            pass


async def test_a_workspace_that_cannot_be_made(settings: LoadSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="in the way of a folder"):
        async with open_session(settings(model="m"), Opening(folder=tmp_path / "file")):
            pass


@pytest.mark.sandbox
async def test_a_tool_that_is_off_is_not_offered(settings: LoadSettings) -> None:
    roster = '[tools]\nsh = "off"\n[[participant]]\nid = "guide"\nprofile = "agent"\n'
    loaded = settings(roster, model="m", base="http://127.0.0.1:9/v1", context_tokens=4096)
    async with open_session(loaded, Opening()) as session:
        names = [tool.spec.name for tool in guide(session).tools]
    assert "sh" not in names
    assert "chat_mode" in names


@dataclass
class Ollama:
    """A server that answers like Ollama: `/api/ps` says `loaded`; `stalled`, it says nothing."""

    loaded: object = field(default_factory=lambda: {"models": []})
    stalled: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def load(self, *names: str, context: object) -> None:
        entries = [{"name": name, "model": name, "context_length": context} for name in names]
        self.loaded = {"models": entries}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = [
                    line.split(":")[1] for line in head.lower().splitlines() if "content-length:" in line
                ]
                body = await reader.readexactly(int(length[0]) if length else 0)
                path = head.split()[1]
                self.asked.append(path)
                if self.stalled:
                    await reader.read()
                    return
                if path == "/api/ps":
                    writer.write(plain(json.dumps(self.loaded)))
                elif path.endswith("/chat/completions"):
                    if self.loaded == {"models": []}:
                        self.load(json.loads(body)["model"], context=32_768)
                    writer.write(stream(said("Hello.")))
                else:
                    writer.write(plain("{}", "404 Not Found"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def ollama() -> AsyncIterator[Ollama]:
    made = Ollama()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield made


TWO = ROSTER + ROSTER.replace("guide", "other")


async def context_is(session: Session, *names: str, tokens: int) -> None:
    """Once nobody is being asked, these participants know that their context is of this size."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("context of")))
    for name in names:
        participant = session.room.participants[name]
        assert isinstance(participant, ModelParticipant)
        assert participant.sampling.context_tokens == tokens


@pytest.mark.sandbox
async def test_a_cold_ollama_is_asked_again_once_the_model_is_loaded(settings: LoadSettings) -> None:
    async with ollama() as server:
        loaded = settings(TWO, model="m", base=server.url, **{"limits.turns": 1})
        async with open_session(loaded, Opening()) as session:
            assert guide(session).sampling.context_tokens == 4096
            await session.room.say("ada", "hi")
            await context_is(session, "guide", "other", tokens=32_768)
            assert guide(session).sampling.max_tokens == 2048
            asked = server.asked.count("/api/ps")
            await session.room.say("ada", "hi")
            assert server.asked.count("/api/ps") == asked


@pytest.mark.sandbox
async def test_another_model_has_its_own_context(settings: LoadSettings) -> None:
    async with ollama() as server:
        server.load("m", context=8000)
        async with open_session(settings(ROSTER, model="m", base=server.url), Opening(keep=True)) as session:
            assert guide(session).sampling.context_tokens == 8000
            server.load("n:latest", context=600)
            await session.set_model("guide", "n")
            assert (guide(session).sampling.context_tokens, guide(session).sampling.max_tokens) == (600, 300)
            assert session.room.state.members["guide"].joined.model == "n"


@pytest.mark.sandbox
async def test_a_server_that_stalls_does_not_keep_a_room_shut(
    settings: LoadSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("org.compose.servers.CONTEXT_PROBE_S", 0.05)
    async with ollama() as server:
        server.stalled = True
        loaded = settings(TWO.replace('other"', 'other"\nmodel = "n"'), model="m", base=server.url)
        async with open_session(loaded, Opening()) as session:
            assert guide(session).sampling.context_tokens == UNKNOWN_CONTEXT
            assert len(server.asked) == 1  # for both
            server.stalled = False
            server.load("m", "n", context=5000)
            await session.room.say("ada", "hi")
            await context_is(session, "guide", "other", tokens=5000)


@pytest.mark.parametrize(
    ("loaded", "context"),
    [
        ({"models": 5}, UNKNOWN_CONTEXT),
        ({}, UNKNOWN_CONTEXT),
        ({"models": None}, 4096),
        ({"models": [5, {"name": "m", "context_length": "lots"}]}, 4096),
        ({"models": [{"name": "m", "context_length": -1}]}, 4096),
        ({"models": [{"name": "m", "context_length": True}]}, 4096),
        ({"models": [{"name": "m"}]}, 4096),
    ],
)
async def test_a_listing_that_makes_no_sense(settings: LoadSettings, loaded: object, context: int) -> None:
    async with ollama() as server, AsyncExitStack() as stack:
        server.loaded = loaded
        servers = Servers(settings(), stack, lambda text: None)
        assert await servers.context_of(await servers.client(server.url), "m") == context
