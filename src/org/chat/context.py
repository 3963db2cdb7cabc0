"""What one participant sees of a room, and how much of it fits. Pure.

A view grows by appending only, so that each request repeats the last one's bytes and the server
can reuse its prompt cache. When the budget is reached, a big part of it is replaced at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from org.events import (
    NO_SUMMARY,
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Invited,
    Joined,
    Nudged,
    Stepped,
    TurnEnded,
)
from org.messages import Entry, Message, View
from org.tooling import ToolResult

SUMMARY_REQUEST = (
    "Summarise the conversation so far for yourself, so that you can go on without it: who wants "
    "what, what was decided, what was done and found (names, paths, numbers exactly), what is open. "
    "At most 300 words, nothing else."
)
REMARK = 60
"""Characters that the remark about what was left out takes at most."""

OWN_WORDS = 2
"""How many entries a participant's own words may take the room of; its server bounds them too."""

HEADER = 60
"""Characters that are set aside for who said a message to whom."""


def clip(text: str, limit: int) -> str:
    """The head and the tail of a text, together at most `limit` characters (but at least `REMARK`)
    with the remark of how many are missing between them; 0 is no limit."""
    if not limit or len(text) <= limit:
        return text
    kept = max(0, limit - REMARK)
    head, tail = text[: kept - kept // 2], text[len(text) - kept // 2 :]
    return f"{head}\n[… {len(text) - kept} characters left out …]\n{tail}"


def render(messages: Sequence[Message], reader: str, limit: int = 0) -> str:
    """Messages as one reader sees them, in `limit` characters (0: all). The longest are clipped first.

    Nobody's own name is put in front of their own words.
    """
    share = _fair_share([len(message.content) for message in messages], limit) if limit else 0
    parts = [_header(message, reader) + clip(message.content, share) for message in messages]
    return clip("\n\n".join(parts), limit)


def _fair_share(sizes: Sequence[int], limit: int) -> int:
    """How much each may have, so that all fit: what the short ones do not need goes to the long ones."""
    left = limit - HEADER * len(sizes)
    for count, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * count > left:
            return max(2 * REMARK, left // count)
        left -= size
    return limit


def _header(message: Message, reader: str) -> str:
    if message.role == "system":
        return "[room] "
    if message.audience.kind == "group":
        return f"{message.sender}: "
    others = [name for name in message.audience.names if name != reader]
    return f"{message.sender} (only to {' and '.join(['you', *others])}): "


def result_text(result: ToolResult) -> str:
    """A tool result as the model reads it. An output may name the error too, for whoever sees it alone:
    once is enough."""
    if result.error is None:
        return result.output or "(no output)"
    message = result.error.message
    text = f"error ({result.error.kind}): {message}"
    before, _, behind = result.output.rpartition(f"[{message}]")
    output = (before.rstrip("\n") + behind).removeprefix(message)
    return f"{text}\n{output}" if output.strip("\n") else text


class Memory:
    """One participant's view as a fold over committed events: live and on resume the same bytes."""

    def __init__(self, joined: Joined) -> None:
        self._system = Entry("system", joined.system)
        self.view = View([self._system])
        self.open_turn = 0
        """The id of a turn that began and did not end, or 0."""
        self._limit = 0  # characters of an entry
        self._calls = 1  # of the newest step: their results share what one entry may take

    def apply(self, event: Committed, messages: Sequence[Message] = ()) -> None:
        """Take in an event of this participant; `messages` are those of an `Invited` event."""
        match event:
            case Invited():
                self.open_turn = event.turn
                self._limit = event.limit
                self.view.append(Entry("user", render(messages, event.participant, event.limit)))
            case Stepped():
                self._calls = max(1, len(event.calls))
                text = clip(event.text, OWN_WORDS * self._limit)
                self.view.append(Entry("assistant", text, event.calls))
            case CallFinished():
                text = clip(result_text(event.result), self._share())
                self.view.append(Entry("tool", text, call_id=event.call.id))
            case Nudged():
                self.view.append(Entry("user", f"[room] {event.text}"))
            case TurnEnded():
                self.open_turn = 0
                self._close(event)
            case Compacted():
                self._compact(event)
            case Cleared():
                self._restart([])
            case _:
                pass

    def _share(self) -> int:
        return max(2 * REMARK, self._limit // self._calls) if self._limit else 0

    def _close(self, event: TurnEnded) -> None:
        """Templates want users and assistants to alternate: a turn always ends with an answer."""
        last = self.view.since(-1)[0]
        if event.text:
            text = clip(event.text, OWN_WORDS * self._limit)
            whole = event.status in ("answered", "passed")
            self.view.append(Entry("assistant", text if whole else f"{text} [{event.status}]"))
        elif last.role in ("user", "tool"):
            self.view.append(Entry("assistant", f"(no answer: {event.status})"))

    def _compact(self, event: Compacted) -> None:
        kept = self.view.since(1 + event.dropped)
        summary = clip(event.summary or NO_SUMMARY, self._limit)
        start = [Entry("user", f"[room] The conversation up to here was left out. What it was: {summary}")]
        if not kept or kept[0].role != "assistant":
            start.append(Entry("assistant", "I go on from there."))
        self._restart([*start, *kept])

    def _restart(self, entries: Sequence[Entry]) -> None:
        self.view = View([self._system, *entries])


class Estimate:
    """Tokens of a prompt from its characters, calibrated by what the server counted.

    Between two measured prompts of one view only the difference is guessed.
    """

    PER_CHARACTER = 0.3
    FEWEST_PER_CHARACTER = 1 / 12
    CLEAR = 200  # characters: what grew by fewer tells neither a rate nor a cut
    LARGE = 2000  # characters that cannot be so few tokens, whatever they are

    def __init__(self) -> None:
        self._size = 0
        self._tokens = 0
        self._rate = self.PER_CHARACTER

    def restart(self) -> None:
        """Another view from here on: of the last one only the rate still holds."""
        self._size = self._tokens = 0

    def tokens(self, size: int) -> int:
        """What a prompt of `size` characters will count, about."""
        return max(0, round(self._tokens + (size - self._size) * self._rate))

    def note(self, size: int, tokens: int) -> bool:
        """Take in the server's count; whether it must have dropped a part of the prompt.

        A server that cuts the prompt to its context does so silently: the count is far too small,
        or stands still while the prompt grows.
        """
        if tokens <= 0:
            return False
        grown, counted = size - self._size, tokens - self._tokens
        if grown > self.CLEAR and counted <= 0:
            return True
        if grown > self.LARGE and counted < grown * self.FEWEST_PER_CHARACTER:
            return True
        if grown > self.CLEAR:
            self._rate = min(2.0, max(0.05, counted / grown))
        self._size, self._tokens = size, tokens
        return False


def cut_point(entries: Sequence[Entry], keep: int) -> int:
    """How many entries after the system prompt to drop so that about `keep` characters stay.

    What stays begins with a user's entry; when no such rest is short enough, with a step of the
    newest turn, so that calls keep their results; the newest entry (and its calls) always stays.
    0 when there is nothing to drop.
    """
    size = turn = step = newest = 0
    for index in range(len(entries) - 1, 0, -1):
        size += entries[index].size
        if entries[index].role == "tool":
            continue
        newest = newest or index
        if size <= keep and entries[index].role == "user":
            turn = index
        elif size <= keep:
            step = index
    return max(0, (turn or step or newest) - 1)


def as_text(entries: Sequence[Entry], limit: int) -> str:
    """Entries as one text to summarise, its middle left out when it is longer than `limit` characters."""
    parts = []
    for entry in entries:
        calls = "".join(f"\n(called {call.name} {json.dumps(dict(call.arguments))})" for call in entry.calls)
        speaker = {"assistant": "you: ", "tool": "result: "}.get(entry.role, "")
        parts.append(f"{speaker}{entry.content}{calls}")
    return clip("\n\n".join(parts), limit)
