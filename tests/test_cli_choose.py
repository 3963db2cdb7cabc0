"""The model that a room takes when nobody said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli_kit import models_server
from command import Home
from org.cli.choose import choose_model
from org.config import Settings, load
from org.errors import EnvironmentProblem, ExitCode, UsageError

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(base: str = NOBODY, **flags: object) -> Settings:
        return load(cwd=tmp_path, flags={"base": base, **flags}, env={"HOME": str(tmp_path)})

    return make


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Standard input is a terminal; the fixture types."""
    outer, inner = os.openpty()
    with open(inner) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield lambda text: assert_written(outer, text.encode())
    os.close(outer)


def assert_written(fd: int, data: bytes) -> None:
    assert os.write(fd, data) == len(data)


async def test_what_is_set_is_taken_unasked(settings: Callable[..., Settings]) -> None:
    assert await choose_model(settings(model="mine"), interactive=False) == "mine"


async def test_nobody_needs_one(settings: Callable[..., Settings]) -> None:
    chosen = settings(**{"with": ["a=agent:x", "b=simple:y"]})
    assert await choose_model(chosen, interactive=False) == ""


async def test_the_only_one(settings: Callable[..., Settings]) -> None:
    with models_server("only") as base:
        assert await choose_model(settings(base), interactive=False) == "only"


async def test_without_a_person_several_are_an_error_that_lists_them(
    settings: Callable[..., Settings],
) -> None:
    with models_server("one", "two") as base, pytest.raises(UsageError, match="one, two") as caught:
        await choose_model(settings(base), interactive=False)
    assert "`-m one`" in caught.value.hint


async def test_no_model_at_all(settings: Callable[..., Settings]) -> None:
    with models_server() as base, pytest.raises(EnvironmentProblem) as caught:
        await choose_model(settings(base), interactive=True)
    assert "`ollama pull " in caught.value.hint


async def test_no_server(settings: Callable[..., Settings]) -> None:
    with pytest.raises(EnvironmentProblem, match=NOBODY) as caught:
        await choose_model(settings(), interactive=True)
    assert len(caught.value.hint.splitlines()) == 4


@pytest.mark.parametrize(
    ("typed", "chosen"), [("\n", "one"), ("2\n", "two"), ("two\n", "two"), ("3\n0\nthree\n1\n", "one")]
)
async def test_a_person_picks(
    settings: Callable[..., Settings],
    keyboard: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    typed: str,
    chosen: str,
) -> None:
    keyboard(typed)
    with models_server("one", "two") as base:
        assert await choose_model(settings(base), interactive=True) == chosen
    said = capsys.readouterr()
    assert said.out == ""
    assert "  1  one\n  2  two\n" in said.err
    assert said.err.count("Number or name [1]: ") == typed.count("\n")


async def test_a_person_gives_up(settings: Callable[..., Settings], keyboard: Callable[[str], None]) -> None:
    keyboard("\x04")  # Ctrl-D
    with models_server("one", "two") as base, pytest.raises(UsageError, match="no model was chosen"):
        await choose_model(settings(base), interactive=True)


def test_ctrl_c_ends_the_question(tmp_path: Path) -> None:
    with models_server("one", "two") as base, Home(tmp_path, base).terminal("chat") as terminal:
        terminal.wait_for("Number or name [1]: ")
        terminal.type("\x03")
        assert terminal.exit_code() == ExitCode.INTERRUPTED
