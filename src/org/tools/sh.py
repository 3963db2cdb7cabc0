"""The tool `sh`: a shell command in the workspace."""

from __future__ import annotations

from collections.abc import Callable

from org.errors import UsageError
from org.ports import Command, Sandbox
from org.tooling import Tool, ToolCall, ToolResult, ToolSpec
from org.tools import command
from org.tools.arguments import checked

_DESCRIPTION = (
    "Run a shell command in the workspace folder and return its output, standard error included. "
    "Each call starts in the workspace; files stay, variables and processes do not. "
    "There is no terminal and nothing to read on standard input."
)


def sh(sandbox: Sandbox, *, default_timeout_s: float = 60, max_timeout_s: float = 600) -> Tool:
    """The tool. A longer timeout than `max_timeout_s` is cut to it."""
    spec = ToolSpec(
        "sh",
        _DESCRIPTION,
        {
            "type": "object",
            "properties": {
                "cmd": {"type": "string", "description": "The command, as typed into a shell."},
                "timeout_s": command.timeout_schema(default_timeout_s, max_timeout_s),
            },
            "required": ["cmd"],
            "additionalProperties": False,
        },
    )
    return Tool(spec, _Shell(sandbox, spec, default_timeout_s, max_timeout_s).run)


class _Shell:
    """Runs the calls, with bash where the place has it: models write its words for `sh` too."""

    def __init__(self, sandbox: Sandbox, spec: ToolSpec, default_s: float, max_s: float) -> None:
        self._sandbox = sandbox
        self._spec = spec
        self._default_s = default_s
        self._max_s = max_s
        self._program = ""

    async def run(self, call: ToolCall, on_output: Callable[[str], None]) -> ToolResult:
        try:
            arguments = checked(call, self._spec)
        except UsageError as error:
            return command.refused(call, error)
        timeout_s = min(arguments.get("timeout_s", self._default_s), self._max_s)
        program = await self._shell()
        return await command.run(
            self._sandbox, call, Command([program, "-c", arguments["cmd"]], timeout_s=timeout_s), on_output
        )

    async def _shell(self) -> str:
        if not self._program:
            found = await self._sandbox.exec(Command(["sh", "-c", "command -v bash"]))
            self._program = "bash" if found.exit_code == 0 else "sh"
        return self._program
