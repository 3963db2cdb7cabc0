"""What a word being typed may become, and whom what is typed is for."""

from __future__ import annotations

import pytest

from org.messages import EVERYONE, Audience
from org.tui.completion import Aim, aim, candidates

NAMES = ("ada", "coder", "calc")
COMMANDS = ("help", "kick", "limits", "mode", "who")


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("@c", 0, ["@coder", "@calc"]),
        ("hello @g", 6, ["@group"]),
        ("one\n@co", 4, ["@coder"]),
        ("/", 0, ["/help", "/kick", "/limits", "/mode", "/who"]),
        ("/li", 0, ["/limits"]),
        ("/limits t", 8, ["turns", "tokens", "tools"]),
        ("/kick co", 6, ["coder"]),
        ("/mode ", 6, ["group", "direct:", "file:", "ada", "calc", "coder"]),
        ("#f", 0, ["#file:"]),
        ("hello", 0, []),
        ("hello ", 6, []),
        ("", 0, []),
        ("a /wh", 2, []),
    ],
)
def test_candidates(text: str, start: int, words: list[str]) -> None:
    assert candidates(text, NAMES, COMMANDS) == (start, words)


@pytest.mark.parametrize(
    ("text", "aimed"),
    [
        ("", Aim("everyone")),
        ("hello", Aim("everyone")),
        ("@calc", Aim("@calc alone", "direct")),
        ("@calc @coder x", Aim("@calc @coder alone", "direct")),
        ("x\n@calc y\n@calc z", Aim("everyone, then @calc alone", "direct")),
        ("#file:a.md", Aim("#file:a.md", "file")),
        ("@clac x", Aim("perhaps you mean @calc", wrong=True)),
        ("@ada x", Aim("@ada is yourself", wrong=True)),
        ("!ls", Aim("a command, run nowhere", "shell")),
        ("/who", Aim("a command for the room", "command")),
    ],
)
def test_aim(text: str, aimed: Aim) -> None:
    assert aim(text, "ada", NAMES, EVERYONE, "nowhere") == aimed


def test_the_standing_audience_holds_without_an_address() -> None:
    assert aim("x", "ada", NAMES, Audience.only("calc"), "").words == "@calc alone"
