import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from org.errors import SandboxGone
from org.ports import Command, ExecResult
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.local import Local
from org.tooling import ToolCall, ToolError, ToolResult
from org.tools.sh import sh
from sandbox_kit import alive, token


def silent(text: str) -> None:
    pass


async def call(
    tmp_path: Path, arguments: dict[str, Any], on_output: Callable[[str], None] = silent
) -> ToolResult:
    return await sh(Local(tmp_path, unsafe=True)).run(ToolCall("7", "sh", arguments), on_output)


class Scripted:
    """A sandbox that notes commands and answers them with what it was given."""

    def __init__(self, *results: ExecResult | Exception) -> None:
        self.results = list(results)
        self.commands: list[Command] = []

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        self.commands.append(command)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        if on_output is not None:
            for size in range(len(result.head)):
                on_output(result.head[size : size + 1])
        return result

    async def read_file(self, path: str, limit: int = 0) -> bytes:
        raise NotImplementedError

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        raise NotImplementedError


def test_the_spec() -> None:
    tool = sh(Scripted(), default_timeout_s=5, max_timeout_s=20)
    assert tool.spec.name == "sh"
    assert list(tool.spec.parameters["properties"]) == ["cmd", "timeout_s"]
    assert tool.spec.parameters["required"] == ["cmd"]
    assert "Default 5, at most 20." in tool.spec.parameters["properties"]["timeout_s"]["description"]


async def test_success_is_the_output_alone(tmp_path: Path) -> None:
    result = await call(tmp_path, {"cmd": "echo hello; pwd"})
    assert (result.call_id, result.output) == ("7", f"hello\n{tmp_path}\n")
    assert (result.error, result.exit_code) == (None, 0)
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("cmd", "output", "message", "code"),
    [
        ("exit 3", "[exit code 3]", "exit code 3", 3),
        ("echo a; exit 1", "a\n[exit code 1]", "exit code 1", 1),
        ("printf a; exit 1", "a\n[exit code 1]", "exit code 1", 1),
        ("kill -SEGV $$", "[killed by SIGSEGV]", "killed by SIGSEGV", -11),
        ("kill -40 $$", "[killed by signal 40]", "killed by signal 40", -40),
    ],
)
async def test_how_it_ended_stands_in_the_last_line(
    tmp_path: Path, cmd: str, output: str, message: str, code: int
) -> None:
    result = await call(tmp_path, {"cmd": cmd})
    assert (result.output, result.exit_code) == (output, code)
    assert result.error == ToolError("failed", message)


async def test_a_timeout(tmp_path: Path) -> None:
    result = await call(tmp_path, {"cmd": "echo so far; sleep 60", "timeout_s": "1.5"})
    assert result.output == "so far\n[timed out after 1.5 s; everything it started was ended]"
    assert result.error is not None and result.error.kind == "timeout"


async def test_long_output_says_what_is_missing(tmp_path: Path) -> None:
    result = await call(tmp_path, {"cmd": "seq 1000000"})
    size = sum(len(str(number)) + 1 for number in range(1, 1_000_001))
    assert f"\n[... {size - 16_384} bytes left out ...]\n" in result.output
    assert result.output.startswith("1\n2\n")
    assert result.output.endswith("\n1000000\n")


async def test_bad_arguments_run_nothing() -> None:
    place = Scripted()
    result = await sh(place).run(ToolCall("7", "sh", {"command": "ls"}), silent)
    assert result.error is not None and result.error.kind == "bad_arguments"
    assert result.output == result.error.message
    assert "expected sh(cmd: string, timeout_s?: number)" in result.output
    assert result.exit_code is None
    assert place.commands == []


@pytest.mark.parametrize(("asked", "used"), [({}, 5), ({"timeout_s": 7}, 7), ({"timeout_s": 1e9}, 20)])
async def test_the_timeout_is_bounded(asked: dict[str, float], used: float) -> None:
    place = Scripted(ExecResult(0, b"/bin/bash\n"), ExecResult(0, b""))
    tool = sh(place, default_timeout_s=5, max_timeout_s=20)
    await tool.run(ToolCall("7", "sh", {"cmd": "ls"} | asked), silent)
    assert place.commands[-1].timeout_s == used


@pytest.mark.parametrize(("found", "shell"), [(0, "bash"), (1, "sh"), (127, "sh")])
async def test_the_shell_is_looked_for_once(found: int, shell: str) -> None:
    place = Scripted(ExecResult(found, b""), ExecResult(0, b""), ExecResult(0, b""))
    tool = sh(place)
    for _ in range(2):
        await tool.run(ToolCall("7", "sh", {"cmd": "x"}), silent)
    assert [list(command.argv) for command in place.commands[1:]] == [[shell, "-c", "x"]] * 2


async def test_words_of_bash_are_understood(tmp_path: Path) -> None:
    result = await call(tmp_path, {"cmd": "[[ ab == a* ]] && cat <(echo {1..3})"})
    assert result.output == "1 2 3\n"


async def test_output_is_shown_as_it_comes_and_harmless() -> None:
    place = Scripted(ExecResult(0, b""), ExecResult(0, "\x1b[31mgrün ✓\x07".encode()))
    pieces: list[str] = []
    result = await sh(place).run(ToolCall("7", "sh", {"cmd": "x"}), pieces.append)
    assert result.output == "grün ✓"
    assert "grün ✓" in "".join(pieces)
    assert "\x1b" not in "".join(pieces)


async def test_a_sandbox_that_is_gone_is_no_result() -> None:
    with pytest.raises(SandboxGone):
        await sh(Scripted(ExecResult(0, b""), SandboxGone("gone"))).run(
            ToolCall("7", "sh", {"cmd": "x"}), silent
        )


async def test_cancelling_ends_the_command(tmp_path: Path) -> None:
    word, started = token(), asyncio.Event()
    task = asyncio.create_task(
        call(tmp_path, {"cmd": f"echo up; sleep 60; : {word}"}, lambda _: started.set())
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(word)


@pytest.mark.sandbox
async def test_within_bubblewrap(tmp_path: Path) -> None:
    result = await sh(Bubblewrap(tmp_path)).run(ToolCall("7", "sh", {"cmd": "echo $HOME; exit 2"}), silent)
    assert (result.output, result.exit_code) == ("/workspace\n[exit code 2]", 2)
