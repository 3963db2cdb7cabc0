"""Texts, audiences, calls and times in few words, with nothing in them that could drive a terminal. Pure."""

from __future__ import annotations

import re

from org.messages import Audience
from org.tooling import ToolCall

# C0 but newline and tab, DEL, C1; marks that turn the writing direction; line and paragraph separators.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def clean(text: str) -> str:
    """The text without characters that move the cursor, colour, or turn the writing direction.

    Newlines and tabs stay; a carriage return becomes a newline. What is left of an escape sequence
    is its visible rest. Half a surrogate pair, which no terminal can be sent, becomes U+FFFD.
    """
    return _HALF.sub("\ufffd", _UNSAFE.sub("", _LINE_END.sub("\n", text)))


def one_line(text: str, width: int) -> str:
    """The text on one line of at most `width` characters, with `…` where it was cut."""
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def address(audience: Audience) -> str:
    """An audience in few words."""
    if audience.kind == "group":
        return "everyone"
    if audience.kind == "file":
        return f"#file:{audience.path}"
    return " ".join(f"@{name}" for name in audience.names)


def describe(call: ToolCall) -> str:
    """A call on one line: the command, the first line of the code, or the arguments."""
    values = call.arguments
    text = next((str(values[key]) for key in ("cmd", "code", "mode") if key in values), "")
    if not text:
        text = ", ".join(f"{key}={value!r}" for key, value in values.items())
    first, _, rest = clean(text).strip().partition("\n")
    short = first if len(first) <= 72 else first[:71] + "…"
    return f"{call.name} `{short}`" + (f" (+{rest.count(chr(10)) + 1} lines)" if rest else "")


def ago(then: float, now: float) -> str:
    """How long before `now` (both Unix seconds), in the largest unit that fits: `3 h ago`."""
    gone = now - then
    for unit, seconds in _UNITS:
        if gone >= seconds:
            return f"{int(gone // seconds)} {unit} ago"
    return "just now"


def duration(seconds: float) -> str:
    """`0.2 s`, `12 s`, `3 min 5 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
