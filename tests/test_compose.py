from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from org.chat.participant import ModelParticipant
from org.compose import Opening, Servers, Session, open_session
from org.config import Settings, load
from org.errors import EnvironmentProblem, UsageError
from org.llm.scripted import scripted_model

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
