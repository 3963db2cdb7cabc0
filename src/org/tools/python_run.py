"""The tool `python_run`: Python code in a fresh interpreter and a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from org.errors import UsageError
from org.ports import Command, Sandbox
from org.tooling import Tool, ToolCall, ToolResult, ToolSpec
from org.tools import command
from org.tools.arguments import checked

_DESCRIPTION = (
    "Run Python code and return what it prints; the value of a last bare expression is shown too. "
    "Standard library only. Each call starts afresh in an empty folder that is removed afterwards."
)


def python_run(sandbox: Sandbox, *, default_timeout_s: float = 60, max_timeout_s: float = 600) -> Tool:
    """The tool. A longer timeout than `max_timeout_s` is cut to it."""
    spec = ToolSpec(
        "python_run",
        _DESCRIPTION,
        {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "Python source, several lines at will."},
                "timeout_s": command.timeout_schema(default_timeout_s, max_timeout_s),
            },
            "required": ["code"],
            "additionalProperties": False,
        },
    )
    # By standard input and not as an argument: the kernel takes no argument above 128 KiB.
    argv = ("python3", "-S", "-c", files("org.tools").joinpath("driver.py").read_text("utf-8"))

    async def run(call: ToolCall, on_output: Callable[[str], None]) -> ToolResult:
        try:
            arguments = checked(call, spec)
        except UsageError as error:
            return command.refused(call, error)
        timeout_s = min(arguments.get("timeout_s", default_timeout_s), max_timeout_s)
        code = arguments["code"].encode()
        return await command.run(
            sandbox, call, Command(argv, stdin=code, timeout_s=timeout_s, scratch=True), on_output
        )

    return Tool(spec, run)
