from typing import Any

import pytest

from org.errors import UsageError
from org.tooling import ToolCall
from org.tools.chat_mode import chat_mode


class Room:
    def __init__(self) -> None:
        self.modes: list[str] = []

    async def set_mode(self, mode: str) -> None:
        if mode.startswith("direct:no"):
            raise UsageError(f"`{mode}` names nobody here", "there are: ada")
        self.modes.append(mode)


def call(arguments: dict[str, Any]) -> ToolCall:
    return ToolCall("7", "chat_mode", arguments)


@pytest.mark.parametrize("mode", ["group", "direct:ada", "file:notes/a.md", " group\n"])
async def test_the_mode_is_set(mode: str) -> None:
    room = Room()
    result = await chat_mode(room.set_mode).run(call({"mode": mode}), lambda _: None)
    assert room.modes == [mode.strip()]
    assert (result.call_id, result.error) == ("7", None)
    assert f"`{mode.strip()}`" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mode": "direct:nobody"}, "`direct:nobody` names nobody here; there are: ada"),
        ({}, "`mode` is missing; expected chat_mode(mode: string)"),
        ({"mode": "group", "to": "ada"}, "`to` is no argument of chat_mode"),
    ],
)
async def test_what_is_refused(arguments: dict[str, Any], said: str) -> None:
    room = Room()
    result = await chat_mode(room.set_mode).run(call(arguments), lambda _: None)
    assert result.output.startswith(said)
    assert result.error is not None and result.error.kind == "bad_arguments"
    assert room.modes == []


def test_the_spec() -> None:
    spec = chat_mode(Room().set_mode).spec
    assert (spec.name, list(spec.parameters["properties"])) == ("chat_mode", ["mode"])
    for form in ("`group`", "`direct:<id>`", "`file:<path>`"):
        assert form in spec.parameters["properties"]["mode"]["description"]
