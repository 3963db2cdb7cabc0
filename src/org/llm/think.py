"""Thoughts that a model wrote into its text as `<think>…</think>`. Pure.

A server that knows the model reports them apart; one that does not leaves them in the content,
at its very beginning.
"""

OPEN, CLOSE = "<think>", "</think>"
BLANKS = 256
"""Characters of white space that may stand before a thought; an answer that begins with more has none."""


class ThinkSplitter:
    """Splits a streamed text into what is said and what is thought; each character is looked at once."""

    def __init__(self) -> None:
        self._held = ""  # could still become a tag
        self._state = "start"  # -> "thinking" -> "after" -> "said", or "start" -> "said"
        self._thought: list[str] = []

    def feed(self, text: str) -> tuple[str, str]:
        """(said, thought) as far as it is decided."""
        if self._state == "said":
            return text, ""
        text = self._held + text
        self._held = ""
        if self._state == "start":
            bare = text.lstrip()
            if OPEN.startswith(bare) and bare != OPEN and len(text) - len(bare) <= BLANKS:
                self._held = text
                return "", ""
            if not bare.startswith(OPEN):
                self._state = "said"
                return text, ""
            self._state = "thinking"
            text = bare[len(OPEN) :]
        thought = ""
        if self._state == "thinking":
            thought, mark, text = text.partition(CLOSE)
            if not mark:
                keep = _prefix_at_end(thought, CLOSE)
                self._held = thought[len(thought) - keep :]
                thought = thought[: len(thought) - keep]
                self._thought.append(thought)
                return "", thought
            self._state = "after"
        text = text.lstrip("\n")
        if text:
            self._state = "said"
        return text, thought

    def finish(self) -> tuple[str, str, str]:
        """(said, thought, unclosed): what was still held, and the whole thought when it never closed."""
        held, self._held = self._held, ""
        if self._state == "thinking":
            return "", held, "".join(self._thought) + held
        return held, "", ""


def _prefix_at_end(text: str, mark: str) -> int:
    """The length of the longest end of `text` that `mark` begins with."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
