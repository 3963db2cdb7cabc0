"""The stream: text in, visible text out, calls at the end. Pure.

What stays and what goes, in one place: of a call that is accepted, the text from its opening to its
last closing mark disappears, with blanks between those marks, one separator (`;` or `,`) between
two calls, the code fence or label that holds nothing else, and end tokens after it. Everything else
stays as it was, blank lines around a call included, and so does every text that is no call.

The text is looked at once, from left to right. `_buffer` holds what was fed and not yet shown;
`_at` is where in it the scan of a candidate has got to. Whatever has to wait (for a candidate to end,
for a fence to be closed, for a `</think>` that may come) waits in a `_Hold`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from org.llm.extract.accept import guard, toolbox
from org.llm.extract.candidate import Candidate, Outcome
from org.llm.extract.lexicon import Row, lexicon
from org.llm.extract.patterns import MORE, More
from org.llm.extract.result import Extraction, Incomplete, Refusal
from org.llm.extract.rope import Rope
from org.llm.extract.scan import BracketScanner, State
from org.tooling import ToolCall

_LOOK_BACK = 400  # characters before a candidate that say whether it is meant


class _Hold:
    """Text that is shown or cut later: as it was, and as it is without the calls in it."""

    def __init__(self) -> None:
        self.raw = Rope()
        self.visible = Rope()
        self.calls: list[ToolCall] = []
        self.incomplete: list[Incomplete] = []


_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})[ \t]{0,8}(?P<language>[\w+\-.#]{0,32})[ \t]{0,8}(?:\r?\n|(?=[{\[<]))")
_FENCE_START = re.compile(r"(?:`{3,}|~{3,})[ \t]{0,8}[\w+\-.#]{0,32}[ \t]{0,8}\r?\Z")
_CALL_LANGUAGES = frozenset(
    ("", "json", "jsonc", "json5", "jsonl", "xml", "tool_call", "tool_calls", "tool_use", "tool", "function_call", "function_calls", "action")
)
_CODE_LANGUAGES = frozenset(("tool_code", "tool-code"))
_COMMENT = re.compile(r"\s{0,64}(?:(?://|\#)[^\n]{0,200}\n\s{0,64})*")
_THINK = re.compile(r"<(?P<end>/?)(?P<tag>think|thinking|thought|reasoning|seed:think|reflection)>")
_THINK_TAGS = tuple(f"<{end}{tag}>" for end in ("", "/") for tag in ("think", "thinking", "thought", "reasoning", "seed:think", "reflection"))


def extract_tool_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> Extraction:
    """The calls in `text` to any of `tools` (OpenAI tool schemas, or their function objects), and the
    text without them; its `tail` is all of the visible text."""
    stream = ToolCallStream(tools)
    shown = stream.feed(text)
    found = stream.finish()
    return Extraction(found.calls, found.content, found.incomplete, shown + found.tail, found.refused)


class ToolCallStream:
    """Feed the pieces of a text, then `finish`. `tools` are OpenAI tool schemas.

    Calls are never shown, not even in part; all other text comes out as soon as it is clear that no
    call begins there, for prose within 16 characters.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._box = toolbox(tools)
        self._lexicon = lexicon(tuple(sorted(self._box.tools))) if self._box.tools else None
        self._shown = Rope()
        self._out: list[str] = []
        self._calls: list[ToolCall] = []
        self._incomplete: list[Incomplete] = []
        self._refused: list[Refusal] = []
        self._holds: list[_Hold] = []
        self._buffer = ""
        self._base = 0  # where in the whole text the buffer begins
        self._at = 0
        self._candidate: Candidate | None = None
        self._data: BracketScanner | None = None
        self._data_note: tuple[int, str] | None = None
        self._code_fence = ""  # the fence whose end closes the block of code we are in
        self._call_fence = ""  # the same for a block that so far holds nothing but calls
        self._call_fence_row: Row | None = None
        self._think_tag = ""
        self._think_hold: _Hold | None = None
        self._example_end = -1
        self._example_reason = ""

    # -- the public half

    def feed(self, chunk: str) -> str:
        """Take the next piece of the text; return what may be shown now."""
        if self._lexicon is None:
            self._shown.append(chunk)
            return chunk
        if not self._buffer and not self._holds and self._candidate is None and self._data is None:
            if not self._code_fence and self._lexicon.trigger.search(chunk) is None:
                self._shown.append(chunk)
                self._base += len(chunk)
                return chunk
        self._buffer += chunk
        self._run(final=False)
        return self._take()

    def finish(self) -> Extraction:
        """The calls of everything that was fed. Nothing can be fed after it."""
        if self._lexicon is not None:
            self._run(final=True)
        tail = self._take()
        return Extraction(
            tuple(self._calls), self._shown.text(), tuple(self._incomplete), tail, tuple(self._refused)
        )

    def _take(self) -> str:
        out = self._out[0] if len(self._out) == 1 else "".join(self._out)
        self._out.clear()
        return out

    # -- where text goes

    def _show(self, text: str) -> None:
        if not text:
            return
        if self._holds:
            self._holds[-1].raw.append(text)
            self._holds[-1].visible.append(text)
        else:
            self._shown.append(text)
            self._out.append(text)

    def _pass(self, count: int) -> None:
        """Show the first `count` characters of the buffer."""
        self._show(self._buffer[:count])
        self._drop(count)

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._base += count
        self._at = 0

    def _cut(self, raw: str, calls: Sequence[ToolCall], incomplete: Sequence[Incomplete]) -> None:
        if self._holds:
            self._holds[-1].raw.append(raw)
            self._holds[-1].calls += calls
            self._holds[-1].incomplete += incomplete
        else:
            self._calls += calls
            self._incomplete += incomplete

    def _release(self, hold: _Hold, *, calls: bool) -> None:
        """End a hold: with its calls, or as the plain text that it was."""
        self._holds.remove(hold)
        if not calls:
            reason = "in a block of code with other text" if hold is not self._think_hold else "in closed thinking"
            for call in hold.calls:
                self._refused.append(Refusal(call.origin.span or (0, 0), call.origin.grammar, reason))
            self._show(hold.raw.text())
        elif self._holds:
            outer = self._holds[-1]
            outer.raw.append(hold.raw.text())
            outer.visible.append(hold.visible.text())
            outer.calls += hold.calls
            outer.incomplete += hold.incomplete
        else:
            self._show(hold.visible.text())
            self._calls += hold.calls
            self._incomplete += hold.incomplete

    def _before(self) -> str:
        """The end of the visible text so far."""
        text = ""
        for hold in reversed(self._holds):
            text = hold.visible.tail(_LOOK_BACK - len(text)) + text
            if len(text) >= _LOOK_BACK:
                return text
        return self._shown.tail(_LOOK_BACK - len(text)) + text

    # -- the loop

    def _run(self, *, final: bool) -> None:
        going = True
        while going:
            if self._candidate is not None:
                going = self._go_on(self._candidate, final)
            elif self._data is not None:
                going = self._follow_data(self._data, final)
            elif self._code_fence:
                going = self._follow_code(final)
            elif self._call_fence:
                going = self._follow_calls(final)
            else:
                going = self._look(final)
        if final:
            for hold in list(reversed(self._holds)):
                self._release(hold, calls=True)

    def _look(self, final: bool) -> bool:
        """Plain text: show it up to where something may begin; True when there is more to do."""
        assert self._lexicon is not None
        found = self._lexicon.trigger.search(self._buffer)
        if found is None:
            self._pass(len(self._buffer))
            return False
        self._pass(found.start())
        character = self._buffer[0]
        if character in "`~":
            return self._fence(final)
        if character == "<" and (decided := self._think(final)) is not None:
            return decided
        started = self._start(0, final)
        if started is MORE:
            return False
        if started:
            return True
        if character in "{[" and self._start_data(final):
            return True
        if character in "{[" and not final and len(self._buffer) < 2:
            return False
        self._pass(1)
        return True

    def _start(self, at: int, final: bool, rows: Sequence[Row] = ()) -> bool | More:
        """Begin a candidate at `at` of the buffer, if a row of the table fits there."""
        assert self._lexicon is not None
        openings = [("", tuple(rows))] if rows else self._lexicon.openings(self._buffer, at)
        may_grow = not final and not rows and self._lexicon.may_open(self._buffer, at)
        if may_grow:
            return MORE
        for literal, fitting in openings:
            for row in fitting:
                if row.format.line_start and not self._at_line_start(at):
                    continue
                head = row.head.match(self._buffer, at + len(literal), final)
                if head is MORE:
                    return MORE
                if head is not None:
                    self._pass(at)
                    self._candidate = Candidate(row, self._box, self._base, head, at, self._before())
                    self._at = self._candidate.value_start - self._base
                    return True
        return False

    def _at_line_start(self, at: int) -> bool:
        before = self._before() + self._buffer[:at] if at < 64 else self._buffer[:at]
        return not before[before.rfind("\n") + 1 :].strip()

    # -- a candidate

    def _go_on(self, candidate: Candidate, final: bool) -> bool:
        outcome = candidate.advance(self._buffer, self._at, self._base, final)
        if outcome is None:
            self._at = candidate.position - self._base
            candidate.kept.append(self._buffer[: self._at])
            self._drop(self._at)
            return False
        self._candidate = None
        if candidate.kept.length:
            kept = candidate.kept.text()
            self._buffer, self._base = kept + self._buffer, candidate.start
        self._conclude(candidate, outcome)
        return True

    def _conclude(self, candidate: Candidate, outcome: Outcome) -> None:
        count = outcome.end - self._base
        span = (candidate.start, outcome.end)
        reason = outcome.reason
        if not reason:
            reason = guard(candidate.before, marked=candidate.row.format.marked)
            if not reason and candidate.start == self._example_end:
                reason = self._example_reason
        if reason:
            self._refused.append(Refusal(span, candidate.row.format.name, reason))
            self._pass(count)
            self._example_end, self._example_reason = self._base, reason
            return
        if self._think_tag and self._think_hold is None:
            self._think_hold = _Hold()
            self._holds.insert(0, self._think_hold)
        self._cut(self._buffer[:count], outcome.calls, outcome.incomplete)
        self._refused += outcome.refused
        self._drop(count)

    # -- other data

    def _start_data(self, final: bool) -> bool:
        opening = _DATA.match(self._buffer)
        if opening is None:
            return False
        self._data = BracketScanner(self._base, data=True)
        named = _NAMED.match(self._buffer)
        self._data_note = (self._base, f"no tool is called `{named[1]}`") if named else None
        return True

    def _follow_data(self, scanner: BracketScanner, final: bool) -> bool:
        at = scanner.scan(self._buffer, 0, self._base, final)
        going = scanner.state is not State.MORE
        if going:
            if self._data_note is not None:
                start, reason = self._data_note
                self._refused.append(Refusal((start, self._base + at), "json", reason))
            self._data = None
        self._pass(at)
        return going

    # -- blocks of code

    def _fence(self, final: bool) -> bool:
        if not self._at_line_start(0):
            self._pass(len(re.match(r"`+|~+", self._buffer).group()))  # type: ignore[union-attr]
            return True
        found = _FENCE.match(self._buffer)
        if not final and (found is None or found.end() == len(self._buffer)) and _FENCE_START.match(self._buffer):
            return False
        if found is None:
            fence = re.match(r"`{3,}|~{3,}", self._buffer)
            if fence is None:
                self._pass(1)
            else:
                self._code_fence = fence.group()
                self._pass(fence.end())
            return True
        language = found["language"].lower()
        if language in _CODE_LANGUAGES:
            assert self._lexicon is not None
            rows: tuple[Row, ...] = (self._lexicon.tool_code,)
        elif language in _CALL_LANGUAGES:
            rows = ()
        else:
            self._code_fence = found["fence"]
            self._pass(found.end())
            return True
        return self._open_block(found, rows, final)

    def _open_block(self, found: re.Match[str], rows: tuple[Row, ...], final: bool) -> bool:
        """A block that may hold a call: hold its opening until the first thing in it is known."""
        comment = _COMMENT.match(self._buffer, found.end())
        at = comment.end() if comment else found.end()
        if at >= len(self._buffer) and not final and at - found.end() < 200:
            return False
        started = self._probe(at, rows, final)
        if started is MORE:
            return False
        if not started:
            self._code_fence = found["fence"]
            self._pass(found.end())
            return True
        hold = _Hold()
        self._call_fence, self._call_fence_row = found["fence"], rows[0] if rows else None
        before = self._before()
        self._holds.append(hold)
        hold.raw.append(self._buffer[:at])
        self._drop(at)
        self._start(0, final, rows)
        if self._candidate is not None:
            self._candidate.before = before
        return True

    def _probe(self, at: int, rows: tuple[Row, ...], final: bool) -> bool | More:
        assert self._lexicon is not None
        if not rows and not final and self._lexicon.may_open(self._buffer, at):
            return MORE
        openings = [("", rows)] if rows else self._lexicon.openings(self._buffer, at)
        for literal, fitting in openings:
            for row in fitting:
                head = row.head.match(self._buffer, at + len(literal), final)
                if head is not None:
                    return head if head is MORE else True
        return False

    def _follow_calls(self, final: bool) -> bool:
        """After a call in a block: its end, another call, or something that makes it plain code."""
        hold = self._holds[-1]
        blanks = len(self._buffer) - len(self._buffer.lstrip())
        rest = self._buffer[blanks : blanks + len(self._call_fence)]
        if not final and rest != self._call_fence and self._call_fence.startswith(rest):
            return False
        if rest == self._call_fence or not rest:
            end = blanks + len(rest)
            if not hold.calls and not hold.incomplete:
                self._pass(end)
            else:
                hold.raw.append(self._buffer[:end])
                self._drop(end)
            self._call_fence = ""
            self._release(hold, calls=True)
            return bool(rest)
        rows = (self._call_fence_row,) if self._call_fence_row else ()
        started = self._probe(blanks, rows, final) if hold.calls else False
        if started is MORE:
            return False
        if started:
            hold.raw.append(self._buffer[:blanks])
            self._drop(blanks)
            self._start(0, final, rows)
            return True
        self._code_fence, self._call_fence = self._call_fence, ""
        self._release(hold, calls=False)
        return True

    def _follow_code(self, final: bool) -> bool:
        """Inside a block of code, up to the line that closes it."""
        found = self._buffer.find(self._code_fence)
        while found >= 0 and not self._at_line_start(found):
            found = self._buffer.find(self._code_fence, found + 1)
        if found < 0:
            keep = 0 if final else _suffix_of(self._buffer, self._code_fence)
            self._pass(len(self._buffer) - keep)
            return False
        end = found + len(self._code_fence)
        self._code_fence = ""
        self._pass(end)
        return True

    # -- thinking

    def _think(self, final: bool) -> bool | None:
        """A tag around thinking, if there is one; None when it is something else."""
        found = _THINK.match(self._buffer)
        if found is None:
            if not final and any(tag.startswith(self._buffer) for tag in _THINK_TAGS):
                return False
            return None
        if found["end"]:
            if self._think_hold is not None:
                self._release(self._think_hold, calls=False)
            self._think_hold, self._think_tag = None, ""
        elif self._at_line_start(0):
            self._think_tag = found["tag"]
        self._pass(found.end())
        return True


_DATA = re.compile(r"""\{\s{0,40}(?:["'“][^"'”\n]{0,200}["'”]\s{0,40}:|\w{1,64}\s{0,8}:)|\[\s{0,40}[{"\[]""")
_NAMED = re.compile(r"""\{\s{0,40}["'](?:name|tool|tool_name|action)["']\s{0,8}:\s{0,8}["']([^"'\n]{0,80})["']""")


def _suffix_of(text: str, mark: str) -> int:
    """The length of the longest beginning of `mark` that `text` ends with."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
