"""A command in the sandbox as the result of a call: what the tools that run something share."""

from __future__ import annotations

import codecs
import signal
from collections.abc import Callable

from org.errors import UsageError
from org.ports import Command, ExecResult, Sandbox
from org.tooling import ToolCall, ToolError, ToolResult
from org.tools.clip import clean, clip


async def run(
    sandbox: Sandbox, call: ToolCall, command: Command, on_output: Callable[[str], None]
) -> ToolResult:
    """Run it; how it ended stands in the last line of the output, unless it ended well."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(data: bytes) -> None:
        # Cleaned again, so that no escape sequence reaches the terminal of whoever watches.
        if text := clean(decoder.decode(data).encode()):
            on_output(text)

    result = await sandbox.exec(command, show)
    output = clip(result.head, result.tail, result.left_out)
    error = _error(result, command.timeout_s)
    if error is not None:
        gap = "\n" if output and not output.endswith("\n") else ""
        output = f"{output}{gap}[{error.message}]"
    return ToolResult(call.id, output, error, result.exit_code, result.seconds)


def timeout_schema(default_s: float, max_s: float) -> dict[str, str]:
    """The schema of the argument `timeout_s`."""
    return {
        "type": "number",
        "description": f"Seconds until it is ended. Default {default_s:g}, at most {max_s:g}.",
    }


def refused(call: ToolCall, error: UsageError) -> ToolResult:
    """The result of a call whose arguments do not fit: what is wrong, and what would be right."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return ToolResult(call.id, message, ToolError("bad_arguments", message))


def _error(result: ExecResult, timeout_s: float) -> ToolError | None:
    if result.timed_out:
        return ToolError("timeout", f"timed out after {timeout_s:g} s; everything it started was ended")
    if result.exit_code < 0:
        return ToolError("failed", f"killed by {_signal(-result.exit_code)}")
    if result.exit_code > 0:
        return ToolError("failed", f"exit code {result.exit_code}")
    return None


def _signal(number: int) -> str:
    names = {int(known): known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
