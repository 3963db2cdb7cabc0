"""What of a model's text is its own speech. Pure, incremental.

A model in a group tends to write on in the others' names. Its own name at the start of a line is
taken off; where it begins to speak as somebody else, the reply ends. `PASS` is never shown, so a
reply is held back for as long as it could still become just that.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from org.chat.routing import Fence, is_pass

LINE_HEAD = 400
"""Characters of a line (or of leading blanks) that are kept to judge it by; the rest just passes."""

_ASIDE = r"(?: ?(?:\([^)\n]{0,60}\)|->[^:\n]{0,60}))?"
"""What a model may put between a name and the colon: `(to you)`, `-> everyone`."""

_AFTER_NAME = re.compile(r"(?:\*\*?|\]|>)?(?: ?(?:\([^)\n]{0,60}\)?|-(?:>[^:\n]{0,60})?)?)?:?\*?")
_PIECE = re.compile(r"[^\n]*\n|[^\n]+")
_QUIET = re.compile(r"\s*[*_`\"']{0,3}(?:P(?:A(?:S(?:S[*_`\"'.]{0,4}\s*)?)?)?)?")


class Speech:
    """Feed it the visible text of one completion; `text` is what counts of it in the end."""

    def __init__(self, own: str, others: Collection[str]) -> None:
        self._own = own
        self._names = tuple({own, *others})
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        self._voice = re.compile(
            rf" {{0,3}}(?:\*\*|\[|<)?({names})(?:\*\*|\]|>)?{_ASIDE}:(?:\*\*)?(?:[ \t]+|$)"
        )
        self._fence = Fence()
        self._line = ""  # the current line as it came
        self._through = False  # whether the current line is decided: the rest of it just passes
        self._parts: list[str] = []
        self._silent = ""  # held back because it may still become PASS
        self._speaking = False
        self.cut = ""
        """The name in which the model went on to speak, if it did."""

    def feed(self, text: str) -> str:
        """The part that may be shown now."""
        out: list[str] = []
        for piece in _PIECE.findall(text):
            if self.cut:
                break
            self._take(piece, out)
        return self._speak("".join(out))

    def finish(self) -> str:
        """The rest that was held back."""
        out: list[str] = []
        if not self.cut and not self._through and self._line:
            self._decide(out)
        tail = self._speak("".join(out))
        if not self._speaking and not is_pass(self._silent):
            self._speaking = True
            self._parts.append(self._silent)
            tail = self._silent
        return tail

    @property
    def text(self) -> str:
        """All that was let through, or the `PASS` that was not."""
        return "".join(self._parts) if self._speaking else self._silent

    def _take(self, piece: str, out: list[str]) -> None:
        """A piece of one line, with its end if it has come."""
        if len(self._line) < LINE_HEAD or not self._through:
            self._line += piece
        ended = piece.endswith("\n")
        if self._through:
            out.append(piece)
        elif ended or not self._undecided():
            self._decide(out)
        if ended:
            self._fence.takes(self._line.rstrip("\n"))
            self._line, self._through = "", False

    def _decide(self, out: list[str]) -> None:
        self._through = True
        match = None if self._fence.open else self._voice.match(self._line)
        if match is None:
            out.append(self._line)
        elif match[1] == self._own:
            out.append(self._line[match.end() :])
        else:
            self.cut = match[1]

    def _undecided(self) -> bool:
        """Whether the line so far may still turn out to be a voice."""
        if self._fence.open:
            return False
        match = self._voice.match(self._line)
        if match is not None:
            return match.end() == len(self._line)
        head = self._line.lstrip(" ")
        if len(self._line) - len(head) > 3:
            return False
        if head in ("", "*"):
            return True
        head = re.sub(r"^(?:\*\*|\[|<)", "", head)
        return any(
            name.startswith(head) or (head.startswith(name) and _AFTER_NAME.fullmatch(head[len(name) :]))
            for name in self._names
        )

    def _speak(self, text: str) -> str:
        if not self._speaking:
            self._silent += text
            if len(self._silent) < LINE_HEAD and _QUIET.fullmatch(self._silent):
                return ""
            self._speaking = True
            text = self._silent
        self._parts.append(text)
        return text
