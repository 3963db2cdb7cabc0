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
"""Characters of a line that are kept to tell whether it opens or closes a code block."""

_ASIDE = r"(?: ?(?:\([^)\n]{0,60}\)|->[^:\n]{0,60}))?"
"""What a model may put between a name and the colon: `(to you)`, `-> everyone`."""

_AFTER_NAME = re.compile(r"(?:\*\*?|\]|>)?(?: ?(?:\([^)\n]{0,60}\)?|-(?:>[^:\n]{0,60})?)?)?:?\*?")
_PIECE = re.compile(r"[^\n]*\n|[^\n]+")
_QUIET = re.compile(r"[*_`\"']{0,3}(?:P(?:A(?:S(?:S[*_`\"'.]{0,4})?)?)?)?")


class Speech:
    """Feed it the visible text of one completion; `text` is what counts of it in the end."""

    def __init__(self, own: str, others: Collection[str]) -> None:
        self._own = own
        self._names = tuple({own, *others})
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        self._voice = re.compile(
            rf" {{0,3}}(?:\*\*|\[|<)?({names})(?:\*\*|\]|>)?{_ASIDE}:(?:\*\*)?(?=[ \t\n]|$)"
        )
        self._fence = Fence()
        self._line = ""  # the current line: all of it until it is judged, then its beginning
        self._judged = False
        self._named = False  # our own name was just taken off, the blanks behind it go too
        self._held: list[str] = []  # what may still become PASS
        self._passed = False  # what is held is PASS, unless more comes
        self._said: list[str] = []
        self.cut = ""
        """The name in which the model went on to speak, if it did."""

    def feed(self, text: str) -> str:
        """The part that may be shown now."""
        if self.cut:
            return ""
        return self._say("".join([self._take(piece) for piece in _PIECE.findall(text) if not self.cut]))

    def finish(self) -> str:
        """The rest that was held back."""
        rest = "" if self.cut or self._judged else self._judge()
        shown = self._say(rest)
        if self._held and not self._passed:
            shown = "".join(self._held)
            self._held.clear()
            self._said.append(shown)
        return shown

    @property
    def text(self) -> str:
        """All that was let through, or the `PASS` that was not."""
        return "".join(self._said or self._held)

    def _take(self, piece: str) -> str:
        """What may pass of a piece of one line, its end included if that has come."""
        ended = piece.endswith("\n")
        if self._judged:
            if len(self._line) < LINE_HEAD:
                self._line += piece[:LINE_HEAD]
            passed = piece.lstrip(" \t") if self._named else piece
            self._named = self._named and not passed
        else:
            self._line += piece
            passed = self._judge() if ended or not self._undecided() else ""
        if ended:
            self._fence.takes(self._line[:LINE_HEAD].rstrip("\n"))
            self._line, self._judged, self._named = "", False, False
        return passed

    def _judge(self) -> str:
        """Decide whose words the line is; what of it may pass."""
        self._judged = True
        match = None if self._fence.open else self._voice.match(self._line)
        if match is None:
            return self._line
        if match[1] != self._own:
            self.cut = match[1]
            return ""
        rest = self._line[match.end() :].lstrip(" \t")
        self._named = not rest
        return rest

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

    def _say(self, text: str) -> str:
        if self._said:
            self._said.append(text)
            return text
        if not self._held:
            text = text.lstrip()
        if not text:
            return ""
        self._held.append(text)
        if self._passed and text.isspace():
            return ""
        whole = "".join(self._held)
        self._passed = is_pass(whole)
        if self._passed or _QUIET.fullmatch(whole):
            return ""
        self._held.clear()
        self._said.append(whole)
        return whole
