"""`[generation]` of a program's settings file."""

from __future__ import annotations

import pytest

from org.errors import ConfigError
from org.ops.settings import Settings, read


def test_the_least_that_can_be_said() -> None:
    assert read('[generation]\nstart = "python -m shop --quiet"') == Settings(
        ("python", "-m", "shop", "--quiet"), "/health", 60.0, 30.0, (7001, 7002)
    )


def test_everything_that_can_be_said() -> None:
    text = """
    unknown = 1
    [room]
    policy = "nonsense"
    [generation]
    start = ["./run", "a b"]
    health = "/up?deep=1"
    ready_timeout = 5
    drain_timeout = 2.5
    ports = [8001, 8002]
    colour = "of a later version"
    """
    assert read(text) == Settings(("./run", "a b"), "/up?deep=1", 5.0, 2.5, (8001, 8002))


@pytest.mark.parametrize("text", ["", "[generation]", "generation = 1", "[room]\nstart = 'x'"])
def test_a_program_must_say_how_it_starts(text: str) -> None:
    with pytest.raises(ConfigError, match="how a generation starts") as caught:
        read(text)
    assert "[generation]" in caught.value.hint


def test_what_is_no_toml() -> None:
    with pytest.raises(ConfigError, match="no TOML"):
        read("[generation")


@pytest.mark.parametrize(
    "line",
    [
        "start = ''",
        "start = []",
        "start = [1]",
        "start = 7",
        'start = "python \'open"',
        "health = 'health'",
        "health = '/a b'",
        "health = 7",
        "ready_timeout = 0",
        "ready_timeout = '5'",
        "ready_timeout = true",
        "ready_timeout = inf",
        "drain_timeout = -1",
        "drain_timeout = nan",
        "ports = 7001",
        "ports = [7001]",
        "ports = [7001, 7001]",
        "ports = [0, 7002]",
        "ports = [true, 7002]",
        "ports = [7001, 70000]",
    ],
)
def test_a_value_that_is_off_is_named(line: str) -> None:
    name = line.partition(" ")[0]
    start = "" if name == "start" else 'start = "run"\n'
    with pytest.raises(ConfigError, match=rf"\[generation\] {name} in org.toml: "):
        read(f"[generation]\n{start}{line}")
