from typing import Any

import pytest

from org.errors import UsageError
from org.tooling import ToolCall, ToolSpec
from org.tools.arguments import checked, signature

SPEC = ToolSpec(
    "sh",
    "",
    {
        "type": "object",
        "properties": {"cmd": {"type": "string"}, "timeout_s": {"type": "number"}},
        "required": ["cmd"],
    },
)


def call(arguments: dict[str, Any], error: str = "") -> ToolCall:
    return ToolCall("1", "sh", arguments, error=error)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"cmd": "ls"}, {"cmd": "ls"}),
        ({"cmd": ""}, {"cmd": ""}),
        ({"cmd": "ls", "timeout_s": 3}, {"cmd": "ls", "timeout_s": 3.0}),
        ({"cmd": "ls", "timeout_s": " 2.5 "}, {"cmd": "ls", "timeout_s": 2.5}),
        ({"cmd": "ls", "timeout_s": None}, {"cmd": "ls"}),
    ],
)
def test_what_fits(given: dict[str, Any], taken: dict[str, Any]) -> None:
    assert checked(call(given), SPEC) == taken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "`cmd` is missing"),
        ({"command": "ls"}, "`command` is no argument of sh"),
        ({"cmd": None}, "`cmd` must be a string, not null"),
        ({"cmd": 3}, "`cmd` must be a string, not a number"),
        ({"cmd": True}, "`cmd` must be a string, not a boolean"),
        ({"cmd": ["ls"]}, "`cmd` must be a string, not an array"),
        ({"cmd": {}}, "`cmd` must be a string, not an object"),
        ({"cmd": "ls", "timeout_s": "soon"}, "`timeout_s` must be a positive number, not 'soon'"),
        ({"cmd": "ls", "timeout_s": "x" * 999}, "`timeout_s` must be a positive number, not 'xxx"),
        ({"cmd": "ls", "timeout_s": 0}, "`timeout_s` must be a positive number, not 0"),
        ({"cmd": "ls", "timeout_s": -1}, "`timeout_s` must be a positive number, not -1"),
        ({"cmd": "ls", "timeout_s": float("nan")}, "`timeout_s` must be a positive number, not nan"),
        ({"cmd": "ls", "timeout_s": "inf"}, "`timeout_s` must be a positive number, not 'inf'"),
        ({"cmd": "ls", "timeout_s": 10**400}, "`timeout_s` must be a positive number, not 1000"),
        ({"cmd": "ls", "timeout_s": True}, "`timeout_s` must be a positive number"),
        ({"cmd": "ls", "timeout_s": []}, "`timeout_s` must be a positive number, not an array"),
    ],
)
def test_what_does_not(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(call(given), SPEC)
    assert caught.value.message.startswith(said)
    assert caught.value.message.endswith("; expected sh(cmd: string, timeout_s?: number)")
    assert len(caught.value.message) < 160


@pytest.mark.parametrize(
    ("cmd", "said"), [("a\0b", "`cmd` holds a zero character"), ("a\ud800", "half a character (U+D800)")]
)
def test_text_that_no_program_can_be_given(cmd: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(call({"cmd": cmd}), SPEC)
    assert said in caught.value.message


def test_a_call_that_was_broken_before() -> None:
    with pytest.raises(UsageError, match=r"not JSON; expected sh\(cmd"):
        checked(call({}, error="not JSON"), SPEC)


def test_signature() -> None:
    assert signature(SPEC) == "sh(cmd: string, timeout_s?: number)"
