"""`org extract`: the tool calls in a text, and what only looks like one."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from org.cli.options import Parser
from org.errors import UsageError
from org.llm.extract import Extraction, extract_tool_calls

JSON_VERSION = 1
HINT = 'a JSON list of OpenAI tool schemas: [{"type": "function", "function": {"name": ...}}]'


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org extract",
        description="Find the tool calls in a text (standard input, or FILE).",
        epilog="Without --tools and --tool, the names are those of the tools of a room.",
    )
    made.add_argument("file", metavar="FILE", nargs="?", type=Path, help="read FILE instead of a pipe")
    made.add_argument("--tools", metavar="FILE", type=Path, help="the tools that may be called: " + HINT)
    made.add_argument("--tool", metavar="NAME", action="append", default=[], help="a tool by its name alone")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: list[str]) -> int:
    """Print calls, look-alikes with the reason, and the visible text. Raises `UsageError`."""
    args = parser().parse_args(argv)
    tools = [*(_declared(args.tools) if args.tools else ()), *map(_named, args.tool)]
    text = _read(args.file) if args.file else sys.stdin.read()
    found = extract_tool_calls(text, tools or list(map(_named, ("sh", "python_run", "chat_mode"))))
    print(as_json(found) if args.json else as_text(found, text))
    return 0


def as_json(found: Extraction) -> str:
    document = {
        "version": JSON_VERSION,
        "calls": [
            {
                "name": call.name,
                "arguments": call.arguments,
                "grammar": call.origin.grammar,
                "span": call.origin.span,
            }
            for call in found.calls
        ],
        "incomplete": [
            {"name": cut.name, "grammar": cut.grammar, "span": cut.span} for cut in found.incomplete
        ],
        "refused": [
            {"reason": look.reason, "grammar": look.grammar, "span": look.span} for look in found.refused
        ],
        "content": found.content,
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def as_text(found: Extraction, text: str) -> str:
    lines = []
    for call in found.calls:
        start, end = call.origin.span or (0, 0)
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        lines.append(f"call        {start}-{end}  {call.origin.grammar}: {call.name} {arguments}")
    for cut in found.incomplete:
        lines.append(f"incomplete  {cut.span[0]}-{cut.span[1]}  {cut.grammar}: {cut.name or 'no name yet'}")
    for look in found.refused:
        start, end = look.span
        lines.append(
            f"refused     {start}-{end}  {look.grammar}: {look.reason}: {_start_of(text[start:end])}"
        )
    if not lines:
        lines.append("no calls")
    return "\n".join([*lines, "", "visible text:", found.content])


def _start_of(text: str, width: int = 40) -> str:
    line = " ".join(text[: 2 * width].split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {error.strerror}") from error


def _declared(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        tools = json.loads(_read(path))
    except ValueError as error:
        raise UsageError(f"`{path}` is not JSON: {error}", HINT) from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UsageError(f"`{path}` holds no list of tools", HINT)
    return tools


def _named(name: str) -> Mapping[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}
