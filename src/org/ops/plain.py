"""What somebody else has written, as it may be shown and kept. Pure."""

from __future__ import annotations


def line(text: str) -> str:
    """On one line, and nothing that drives a terminal: a model, and a candidate, may know how to."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def text(text: str) -> str:
    """As it is, but for halves of characters: those cannot be written to a file."""
    return text.encode("utf-8", "replace").decode("utf-8")
