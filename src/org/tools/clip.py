"""Bytes that a command wrote -> text for a model. Pure."""

from __future__ import annotations

import re

# ECMA-48: control sequences, strings up to their terminator (BEL too, as terminals have it), and
# two-character escapes; each also when the output stopped within it.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(data: bytes) -> str:
    """UTF-8 with U+FFFD for what is none, as a terminal would have left it: no escape sequences, no
    control characters but tab and newline, of a line rewritten by carriage returns its last state."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    if "\r" in text:
        # By hand: patterns for this look at every carriage return from every other.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROLS.sub("", text)


def clip(head: bytes, tail: bytes = b"", left_out: int = 0) -> str:
    """The text of an output of which `left_out` bytes are missing between `head` and `tail`.

    A character cut in two by that gap counts as missing, so that the number said is exact.
    """
    if not left_out:
        return clean(head + tail)
    whole, rest = _whole_end(head), _whole_start(tail)
    missing = left_out + (len(head) - len(whole)) + (len(tail) - len(rest))
    return f"{clean(whole)}\n[... {missing} bytes left out ...]\n{clean(rest)}"


def _whole_end(head: bytes) -> bytes:
    """`head` without the beginning of a character at its end."""
    for size in range(1, min(3, len(head)) + 1):
        lead = head[-size]
        if lead & 0xC0 == 0x80:
            continue
        wanted = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        return head[:-size] if wanted > size else head
    return head


def _whole_start(tail: bytes) -> bytes:
    """`tail` without the end of a character at its start."""
    start = 0
    while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
        start += 1
    return tail[start:]
