from __future__ import annotations

import pytest

from org.chat.guards import RepeatedCalls, Stagnation
from org.tooling import ToolCall, ToolError, ToolResult


def note(repeats: RepeatedCalls, cmd: str, output: str, error: ToolError | None = None) -> bool:
    return repeats.note(ToolCall("x", "sh", {"cmd": cmd}), ToolResult("x", output, error))


def exhausted(repeats: RepeatedCalls, cmd: str) -> bool:
    return repeats.exhausted(ToolCall("another", "sh", {"cmd": cmd}))


def test_the_second_same_call_with_the_same_result_is_a_repetition_the_third_too_many() -> None:
    repeats = RepeatedCalls()
    assert not note(repeats, "ls", "a")
    assert not exhausted(repeats, "ls")
    assert note(repeats, "ls", "a")
    assert exhausted(repeats, "ls")
    assert not exhausted(repeats, "ls -a")


def test_a_result_that_changes_is_no_repetition() -> None:
    repeats = RepeatedCalls()
    for output in ("1 failed", "2 failed", "1 failed", "all passed"):
        assert not note(repeats, "make test", output)
        assert not exhausted(repeats, "make test")


def test_other_arguments_in_between_do_not_hide_it() -> None:
    repeats = RepeatedCalls()
    assert not note(repeats, "ls", "a")
    assert not note(repeats, "pwd", "/")
    assert note(repeats, "ls", "a")


def test_the_order_of_arguments_does_not_matter_and_an_error_is_a_result() -> None:
    repeats = RepeatedCalls()
    wrong = ToolError("failed", "no such file")
    one, two = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert not repeats.note(ToolCall("x", "sh", one), ToolResult("x", "", wrong))
    assert repeats.note(ToolCall("y", "sh", two), ToolResult("y", "", wrong))
    assert not repeats.note(ToolCall("y", "sh", two), ToolResult("y", "", ToolError("failed", "not allowed")))


def rounds(repeats: int, said: list[tuple[str, str]]) -> int:
    """After how many messages it stops; 0 if it does not."""
    stagnation = Stagnation(repeats)
    return next((n for n, (who, text) in enumerate(said, 1) if stagnation.note(who, text)), 0)


def test_thanks_for_thanks_stop() -> None:
    thanks = [
        ("ann", "Thank you so much, that is a great idea!"),
        ("bob", "thank you so much, that is a great idea"),
    ]
    assert rounds(3, thanks * 5) == 4


def test_one_report_over_and_over_stops() -> None:
    assert rounds(3, [("ann", "The build is green."), ("bob", "Good to know, whatever it is.")] * 5) == 5
    assert rounds(2, [("ann", "Done.")] * 5) == 2


def test_a_long_report_with_one_word_changed_is_the_same_report() -> None:
    words = [f"word{n}" for n in range(60)]
    variants = [" ".join([*words[:n], "changed", *words[n + 1 :]]) for n in (10, 30, 50)]
    assert rounds(3, [("ann", text) for text in variants]) == 3


def test_many_who_answer_alike_once_do_not_stop() -> None:
    assert rounds(3, [(f"p{n}", "It is 4.") for n in range(20)]) == 0


@pytest.mark.parametrize(
    "texts",
    [
        [f"step {n} is done" for n in range(30)],
        ["你好", "世界", "再见"] * 1,
        [f"{'x' * n}" for n in range(1, 30)],
        [" ".join(f"{n}-{k}" for k in range(50)) for n in range(30)],
    ],
)
def test_progress_does_not_stop(texts: list[str]) -> None:
    assert rounds(2, [("ann", text) for text in texts]) == 0


def test_no_limit() -> None:
    assert rounds(0, [("ann", "again")] * 50) == 0
