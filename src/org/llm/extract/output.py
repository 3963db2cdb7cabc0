"""Where text and calls go: shown at once, or held until it is known what they are. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from org.llm.extract.result import Extraction, Incomplete, Refusal
from org.llm.extract.rope import Rope
from org.tooling import ToolCall


class Hold:
    """Text that is shown or cut later: as it was, and as it is without the calls in it."""

    def __init__(self) -> None:
        self.raw = Rope()
        self.visible = Rope()
        self.calls: list[ToolCall] = []
        self.incomplete: list[Incomplete] = []
        self.lead = ""  # blanks before it, which are a part of the calls in it if there are any


class Output:
    """What an extraction comes to, as it grows.

    Holds are nested: thinking that has not ended holds back what follows the first call in it (and so
    does a text that may have begun as thinking), and a block of code is held while it holds nothing
    but calls.
    """

    def __init__(self) -> None:
        self._bottom = Hold()  # its `visible` is what was not taken yet
        self._taken = Rope()
        self._refused: list[Refusal] = []
        self._holds: list[Hold] = []
        self._blanks = ""  # after a call: cut if another call follows, shown if not

    @property
    def held(self) -> bool:
        return bool(self._holds or self._blanks)

    @property
    def waiting(self) -> int:
        """How many blanks wait."""
        return len(self._blanks)

    def wait(self, blanks: str) -> None:
        """These go the way of what comes next."""
        self._blanks += blanks

    def drop(self) -> None:
        """The blanks that wait go with the call before them."""
        blanks, self._blanks = self._blanks, ""
        self.cut(blanks)

    def show(self, text: str) -> None:
        text, self._blanks = self._blanks + text, ""
        for hold in self._holds[-1:]:
            hold.raw.append(text)
        self._top.visible.append(text)

    def cut(self, text: str, calls: Sequence[ToolCall] = (), incomplete: Sequence[Incomplete] = ()) -> None:
        """`text` is not shown; it held these calls."""
        if calls or incomplete:
            text, self._blanks = self._blanks + text, ""
        if self._holds:
            self._top.raw.append(text)
        self._top.calls.extend(calls)
        self._top.incomplete.extend(incomplete)

    def refuse(self, span: tuple[int, int], grammar: str, reason: str) -> None:
        self._refused.append(Refusal(span, grammar, reason))

    def refused(self, refusals: Sequence[Refusal]) -> None:
        self._refused.extend(refusals)

    # -- holds

    def hold(self, *, outermost: bool = False) -> Hold:
        """Hold back what comes from now on; with `outermost`, around what is held already."""
        made = Hold()
        if outermost:
            self._holds.insert(0, made)
        else:
            made.lead, self._blanks = self._blanks, ""
            self._holds.append(made)
        return made

    def release(self, hold: Hold) -> None:
        """What was held goes where it would have gone, without the calls in it."""
        self.show("")  # blanks that waited in it
        self._holds.remove(hold)
        top = self._top
        found = hold.calls or hold.incomplete
        if self._holds:
            top.raw.append(hold.lead)
            top.raw.append(hold.raw.text())
        top.visible.append("" if found else hold.lead)
        top.visible.append(hold.visible.text())
        top.calls.extend(hold.calls)
        top.incomplete.extend(hold.incomplete)

    def reject(self, hold: Hold, reason: str) -> None:
        """What was held is shown as it was: nothing in it was a call."""
        self.show("")  # blanks that waited in it
        self._holds.remove(hold)
        for call in hold.calls:
            self.refuse(call.origin.span or (0, 0), call.origin.grammar, reason)
        self.show(hold.lead)
        self.show(hold.raw.text())

    # -- reading it

    def tail(self, count: int) -> str:
        """The last `count` characters of the visible text, what is held included."""
        text = self._blanks[-count:]
        for hold in (*reversed(self._holds), self._bottom):
            if len(text) < count:
                text = hold.lead + hold.visible.tail(count - len(text)) + text
        if len(text) < count:
            text = self._taken.tail(count - len(text)) + text
        return text[-count:]

    def through(self, text: str) -> None:
        """Account for text that was shown without passing here."""
        self._taken.append(text)

    def take(self) -> str:
        """What may be shown since this was asked last."""
        text = self._bottom.visible.text()
        self._taken.append(text)
        self._bottom.visible = Rope()
        return text

    def finish(self) -> Extraction:
        self.show("")
        for hold in self._holds[::-1]:
            self.release(hold)
        tail = self.take()
        return Extraction(
            tuple(self._bottom.calls),
            self._taken.text(),
            tuple(self._bottom.incomplete),
            tail,
            tuple(self._refused),
        )

    @property
    def _top(self) -> Hold:
        return self._holds[-1] if self._holds else self._bottom
