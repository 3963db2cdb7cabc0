"""The extractor of tool calls: prose, and texts made to hurt, beside a bare regular expression and
json_repair on the same texts.

`prose_mb_per_s` counts characters of plain prose fed whole, `prose_tokens_mb_per_s` in pieces of four;
`worst_s` and `worst_chunked_s` are the slowest hostile text of 1 MiB, whole and in pieces of 16.
json_repair is quadratic or worse on most of them, so it gets 1/256 of each, and its time is what that
would be for the whole at the same speed per character: a lower bound.
"""

from __future__ import annotations

import re
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import json_repair

from org.llm.extract import ToolCallStream

MIB = 1 << 20
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "sh",
            "parameters": {
                "type": "object",
                "properties": {"cmd": {"type": "string"}},
                "required": ["cmd"],
            },
        },
    }
]
CALL = '<tool_call>\n{"name": "sh", "arguments": {"cmd": "ls"}}\n</tool_call>\n'
PROSE = (
    'It was said that "nothing" would come of it (and nothing did); yet the letters, numbered [1] to [9],\n'
    "kept arriving at the house by the river. Nobody opened them. It's a pity, isn't it? So it goes.\n"
)
UNITS = (
    *("{", "[", "<tool_call>", "`", "```\n", "\\", '"', "<", '{"', '{"name":', '[{"name":', "[f(", "[sh("),
    '<tool_call>\n{"name": "sh", "arguments": {"cmd": "ls',
    '<tool_call>{"name": "sh", "arguments": {"cmd": "ls"}',
    CALL,
    "<function=sh><parameter=cmd>",
    "<function=sh>\n<parameter=cmd>\nls\n</parameter>\n",
    "<function=sh><parameter=cmd>x</parameter> y ",
    "<sh><cmd>",
    "Action:",
    "Action: sh\nAction Input: {",
    '"tool_calls": [',
    "[TOOL_CALLS]sh{",
    '<|tool_call>call:sh{cmd:<|"|>',
    "<think>\n",
    "```json\n{",
)
_BARE = re.compile(
    r"<tool_call>\s*(\{.*?\})\s*</tool_call>|\{[^{}]*\"name\"[^{}]*\{[^{}]*\}[^{}]*\}", re.DOTALL
)


def run() -> dict[str, float]:
    """Characters per second on prose (in millions), seconds on hostile texts, memory in texts."""
    prose = _repeated(PROSE, 4 * MIB)
    figures = {
        "prose_mb_per_s": len(prose) / 1e6 / _best(lambda: _feed([prose])),
        "prose_tokens_mb_per_s": 1.0 / _best(lambda: _feed(_pieces(prose[:1_000_000], 4))),
        "prose_regex_mb_per_s": len(prose) / 1e6 / _best(lambda: _BARE.findall(prose)),
    }
    whole, chunked, bare, repair = [], [], [], []
    for unit in UNITS:
        text = _repeated(unit, MIB)
        part = text[: MIB // 256]
        whole.append(_seconds(partial(_feed, [text])))
        chunked.append(_seconds(partial(_feed, _pieces(text, 16))))
        bare.append(256 * _seconds(partial(_BARE.findall, part)))
        repair.append(256 * _seconds(partial(_repair, part)))
        if sys.argv[0].endswith("bench_extract.py"):
            times = f"{whole[-1]:8.3f}{chunked[-1]:8.3f}{bare[-1]:10.3f}{repair[-1]:10.3f}"
            print(f"  {unit[:44]!r:50}{times}")
    return figures | {
        "worst_s": max(whole),
        "worst_chunked_s": max(chunked),
        "worst_regex_s": max(bare),
        "worst_json_repair_s": max(repair),
        "memory_ratio": _memory(_repeated('{"name": "sh", "arguments": {"cmd": "', MIB)) / MIB,
    }


def _feed(pieces: list[str] | Iterator[str]) -> None:
    stream = ToolCallStream(TOOLS)
    for piece in pieces:
        stream.feed(piece)
    stream.finish()


def _repair(text: str) -> None:
    try:
        json_repair.loads(text)
    except (RecursionError, ValueError):
        return  # it gave up, in the time it took


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


def _repeated(unit: str, length: int) -> str:
    return (unit * (length // len(unit) + 1))[:length]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _best(work: Callable[[], object]) -> float:
    return min(_seconds(work) for _ in range(5))


def _memory(text: str) -> int:
    """The most bytes that were held while the text was fed in pieces of 16."""
    tracemalloc.start()
    _feed(_pieces(text, 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    print(f"  {'text (1 MiB of it)':50}{'whole':>8}{'by 16':>8}{'regex':>10}{'repair':>10}   seconds")
    for name, value in run().items():
        print(f"  {name:32}{value:12,.3f}")
