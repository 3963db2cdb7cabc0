"""The tool `chat_mode`: whom a participant speaks to from now on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from org.errors import UsageError
from org.tooling import Tool, ToolCall, ToolResult, ToolSpec
from org.tools import command
from org.tools.arguments import checked

_SPEC = ToolSpec(
    "chat_mode",
    "Choose who gets what you say from now on, until you choose again.",
    {
        "type": "object",
        "properties": {
            "mode": {
                "type": "string",
                "description": "`group` for everyone, `direct:<id>` for one participant, "
                "`file:<path>` to write it to a file of the workspace.",
            }
        },
        "required": ["mode"],
        "additionalProperties": False,
    },
)


def chat_mode(set_mode: Callable[[str], Awaitable[None]]) -> Tool:
    """The tool. `set_mode` takes the mode as written and raises `UsageError` when it is none."""

    async def run(call: ToolCall, on_output: Callable[[str], None]) -> ToolResult:
        try:
            mode = checked(call, _SPEC)["mode"].strip()
            await set_mode(mode)
        except UsageError as error:
            return command.refused(call, error)
        return ToolResult(call.id, f"You now speak to `{mode}`.")

    return Tool(_SPEC, run)
