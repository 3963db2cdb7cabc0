"""The stream: text in, visible text out, calls at the end. Pure.

What stays and what goes, in one place: of a call that is accepted, the text from its opening to its
last closing mark disappears, with blanks between those marks, one separator (`;` or `,`) between
two calls, the code fence or label that holds nothing else, and end tokens after it; between two calls
with nothing but blanks between them, those too. Everything else stays as it was, blanks before the
first and after the last of such calls included, and so does every text that is no call.

The text is looked at once, from left to right. `_buffer` holds what was fed and not yet shown;
`_at` is where in it the scan of a candidate has got to. Whatever has to wait (for a candidate to end,
for a fence to be closed, for a `</think>` that may come) is held by `Output`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from org.llm.extract.accept import toolbox
from org.llm.extract.around import guard, guard_list
from org.llm.extract.brackets import BracketScanner
from org.llm.extract.candidate import Candidate, Outcome
from org.llm.extract.formats import THINKING
from org.llm.extract.lexicon import Opening, Row, lexicon
from org.llm.extract.output import Hold, Output
from org.llm.extract.patterns import MORE, More, lazy
from org.llm.extract.result import Extraction, Incomplete
from org.llm.extract.scan import State
from org.tooling import ToolCall

_LOOK_BACK = 400  # characters before a candidate that say whether it is meant


_BATCH = 256  # pieces that go straight through are joined at a time
_INDENT = 64
_PATIENCE = 50_000  # places that are looked at ...
_MAX_CANDIDATES = 1_000  # ... or calls and look-alikes that are read to their end
_MAX_FAILURES = 100  # ... or data that is nested too deep
_MAX_GIVEN_UP = 4
_LONGEST_FENCE = 16
_DATA_HEAD = 300


@dataclass(frozen=True, slots=True)
class _CallBlock:
    """A block of code that so far holds nothing but calls, of the rows of `only`."""

    fence: str
    only: Opening | None
    hold: Hold


@dataclass(frozen=True, slots=True)
class _Data:
    """Data that is no call, followed to its end, so that nothing inside it is one."""

    scanner: BracketScanner
    start: int
    name: str  # the tool that it names, and that nobody declared


_MESSAGE = r"""\{\s*["']role["']"""
_THOUGHT = "in closed thinking"
_PROSE = r"[a-z,.] [a-z]+ [a-z]"
_RUN = r"`+|~+"
_FENCE = r"(?P<fence>`{3,}|~{3,})[ \t]{0,8}(?P<language>[\w+\-.#]{0,32})[ \t]{0,8}(?:\r?\n|(?=[{\[<]))"
_FENCE_START = r"(?:`{3,}|~{3,})[ \t]{0,8}[\w+\-.#]{0,32}[ \t]{0,8}\r?\Z"
_CALL_LANGUAGES = frozenset(
    (
        "",
        "json",
        "jsonc",
        "json5",
        "jsonl",
        "tool_call",
        "tool_calls",
        "tool_use",
        "tool",
        "function_call",
        "function_calls",
        "action",
    )
)
_CODE_LANGUAGES = frozenset(("tool_code", "tool-code"))
_COMMENT_START = r"(?:/|//[^\n]{0,200}|\#[^\n]{0,200})\Z"
_COMMENT = r"\s{0,64}(?:(?://|\#)[^\n]{0,200}\n\s{0,64})*"
_THINK_START = dict(THINKING)
_THINK_MARK = "|".join(re.escape(mark) for row in THINKING for mark in row)
_THINK_PREFIXES = frozenset(mark[:n] for row in THINKING for mark in row for n in range(1, len(mark)))
_QUOTES = tuple("\"'“‘")
_CLOSING_QUOTES = tuple("\"'”’")
_HARMONY_END = "<|end|>"  # ends every message there, so it ends thinking only where that began so


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
    call begins there, for prose within 16 characters. What follows a call waits until thinking is
    opened or closed, or for `finish`: a call in thinking whose start was lost is none.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._box = toolbox(tools)
        self._lexicon = lexicon(tuple(sorted(self._box.tools))) if self._box.tools else None
        self._search = self._lexicon.trigger.search if self._lexicon else None
        self._idle = True  # nothing is open and nothing waits
        self._plain: list[str] = []
        self._output = Output()
        self._buffer = ""  # what was fed and is not done with
        self._base = 0  # where in the whole text the buffer begins
        self._indent = 0  # the blanks before it in its line; `_INDENT` for anything else
        self._done = 0  # in the buffer: everything before is shown or cut
        self._pos = 0  # in the buffer: everything before is known to be text
        self._candidate: Candidate | None = None
        self._patience = _PATIENCE  # for look-alikes; a text that exhausts it is shown as it is
        self._given_up = 0  # candidates that made the scan go back
        self._at = 0  # in the buffer: how far the candidate has been scanned
        self._data: _Data | None = None
        self._fence = ""  # closes the block of code that we are in
        self._call_block: _CallBlock | None = None
        self._think_end = ""  # what closes the thinking that we are in
        self._think_hold: Hold | None = None
        self._think_seen = False  # until then, the start may be lost: the first end takes calls back
        self._after_call = -1  # in the whole text: where the blanks after the last call end
        self._adjacent = False  # right after a call: blanks before another one are a part of it
        self._example: tuple[int, str] = (-1, "")  # where a refusal ended that goes for what follows it

    # -- the public half

    def feed(self, chunk: str) -> str:
        """Take the next piece of the text; return what may be shown now."""
        if self._search is None:
            self._output.through(chunk)
            return chunk
        if self._idle and self._search(chunk) is None:
            self._plain.append(chunk)
            if len(self._plain) >= _BATCH:
                self._settle_plain()
            return chunk
        self._settle_plain()
        self._buffer += chunk
        self._run(final=False)
        return self._output.take()

    def finish(self) -> Extraction:
        """The calls of everything that was fed. Nothing can be fed after it."""
        if self._lexicon is not None:
            self._settle_plain()
            self._run(final=True)
        return self._output.finish()

    def _settle_plain(self) -> None:
        """Account for the pieces that went straight through."""
        if self._plain:
            text = "".join(self._plain)
            self._plain.clear()
            self._output.through(text)
            self._base += len(text)
            self._leave(text, len(text))

    def _leave(self, text: str, end: int) -> None:
        """Account for what of `text`, up to `end`, lies before the buffer."""
        newline = text.rfind("\n", 0, end)
        line = text[newline + 1 : min(end, newline + 1 + _INDENT)]
        before = self._indent if newline < 0 else 0
        self._indent = _INDENT if line.strip() else min(_INDENT, before + len(line))

    # -- where text goes

    def _flush(self) -> None:
        """Show what is known to be text."""
        if self._pos > self._done:
            self._output.show(self._buffer[self._done : self._pos])
        self._done = self._pos

    def _cut(self, end: int, calls: Sequence[ToolCall] = (), incomplete: Sequence[Incomplete] = ()) -> None:
        """Take the buffer up to `end` out of the visible text."""
        self._flush()
        self._output.cut(self._buffer[self._done : end], calls, incomplete)
        self._done = self._pos = end

    def _before(self, at: int, count: int = _LOOK_BACK) -> str:
        """The last `count` characters of the visible text that precede `at` of the buffer."""
        text = self._buffer[max(self._done, at - count) : at]
        return self._output.tail(count - len(text)) + text if len(text) < count else text

    def _at_line_start(self, at: int) -> bool:
        """Whether `at` of the buffer has nothing but a few blanks before it in its line."""
        line = self._buffer[max(0, at - _INDENT) : at]
        newline = line.rfind("\n")
        if line[newline + 1 :].strip():
            return False
        return newline >= 0 or self._indent + at < _INDENT

    # -- the loop

    def _run(self, *, final: bool) -> None:
        going = True
        while going:
            if self._candidate is not None:
                going = self._go_on(self._candidate, final)
            elif self._data is not None:
                going = self._follow_data(self._data, final)
            elif self._fence:
                going = self._follow_code(final)
            elif self._call_block is not None:
                going = self._follow_calls(self._call_block, final)
            else:
                going = self._look(final)
                self._patience -= going
        self._flush()
        self._trim()

    def _trim(self) -> None:
        keep = self._pos
        if self._candidate is not None:
            keep = self._at
            self._candidate.kept.append(self._buffer[self._pos : keep])
        if keep:
            self._leave(self._buffer, self._pos)  # a candidate may be put back, up to where it starts
            self._buffer = self._buffer[keep:]
            self._base += keep
        self._pos = self._done = self._at = 0
        open_things = self._buffer or self._candidate or self._data or self._fence
        self._idle = not (open_things or self._output.held or self._adjacent)

    def _look(self, final: bool) -> bool:
        """Plain text, up to where something may begin; True when there is more to do."""
        assert self._lexicon is not None
        if self._adjacent and not self._gather(final):
            return False
        found = self._lexicon.trigger.search(self._buffer, self._pos) if self._patience > 0 else None
        if found is None:
            self._pos = len(self._buffer)
            return False
        self._pos = found.start()
        character = found.group()
        if character in "`~":
            return self._open_fence(final)
        if character in "<[" and (decided := self._think(final)) is not None:
            return decided
        fitting = self._fitting(self._pos, final)
        if fitting is MORE:
            return False
        if fitting is not None:
            self._start(*fitting)
        elif final and self._is_left_over():
            self._output.drop()
            self._cut(len(self._buffer))
        elif final and (cut := self._cut_head()) is not None:
            self._cut(len(self._buffer), incomplete=[cut])
        elif character in "{[":
            return self._start_data(final)
        else:
            self._pos += 1
        return True

    def _gather(self, final: bool) -> bool:
        """Right after a call: blanks wait until it is clear whether another one follows them. Whether
        what follows is there."""
        end = self._pos + _LOOK_BACK - self._output.waiting
        blanks = lazy(r"\s*").match(self._buffer, self._pos, end)
        assert blanks is not None
        self._output.wait(blanks.group())
        self._done = self._pos = blanks.end()
        if not final and self._pos == len(self._buffer) and self._output.waiting < _LOOK_BACK:
            return False
        self._adjacent = False
        self._after_call = self._base + self._pos
        return True

    def _fitting(
        self, at: int, final: bool, only: Opening | None = None
    ) -> tuple[Row, re.Match[str]] | More | None:
        """The first row of the table (of `only`) that fits at `at` of the buffer."""
        assert self._lexicon is not None
        if only is None and not final and self._lexicon.may_open(self._buffer, at):
            return MORE
        for opening in (only,) if only else self._lexicon.openings(self._buffer, at):
            after = at + len(opening.literal)
            if opening.gate.match(self._buffer, after, final) is None:
                continue
            for row in opening.rows:
                if row.format.line_start and not self._at_line_start(at):
                    continue
                head = row.head.match(self._buffer, after, final)
                if head is MORE:
                    return MORE
                if head is not None:
                    return row, head
        return None

    def _is_left_over(self) -> bool:
        """Whether nothing follows a call but one more opening, which was meant to close it."""
        assert self._lexicon is not None
        if self._after_call != self._base + self._pos:
            return False
        for opening in self._lexicon.openings(self._buffer, self._pos)[:1]:
            marked = all(row.format.marked for row in opening.rows)
            return marked and not self._buffer[self._pos + len(opening.literal) :].strip()
        return False

    def _cut_head(self) -> Incomplete | None:
        """The call whose opening the text ends in, if it does, before any arguments."""
        assert self._lexicon is not None
        if len(self._buffer) - self._pos > _LOOK_BACK:
            return None
        for opening in self._lexicon.openings(self._buffer, self._pos):
            rest = self._buffer[self._pos + len(opening.literal) :]
            if not rest.strip() or lazy(_PROSE).search(rest):
                continue
            if rest[0] in _CLOSING_QUOTES and self._before(self._pos, 1) in _QUOTES:
                continue
            for row in opening.rows:
                head = row.head.match(self._buffer, self._pos + len(opening.literal), final=False)
                known = row.format.marked or self._lexicon.begins_name(rest)
                if (
                    head is not MORE
                    or not known
                    or guard(self._before(self._pos), "", marked=row.format.marked)
                ):
                    continue
                span = (self._base + self._pos, self._base + len(self._buffer))
                return Incomplete(self._lexicon.name_in(rest) or row.tool, row.format.name, span)
        return None

    # -- a candidate

    def _start(self, row: Row, head: re.Match[str]) -> None:
        start = self._base + self._pos
        before, patient = self._before(self._pos), self._given_up < _MAX_GIVEN_UP
        self._candidate = Candidate(row, self._box, head, start, self._base, before, patient=patient)
        self._at = self._candidate.position - self._base

    def _go_on(self, candidate: Candidate, final: bool) -> bool:
        outcome = candidate.advance(self._buffer, self._at, self._base, final)
        if outcome is None:
            self._at = candidate.position - self._base
            return False
        self._candidate = None
        self._given_up += candidate.gave_up
        self._patience -= candidate.cost * (_PATIENCE // _MAX_CANDIDATES)
        if candidate.kept.length:
            self._buffer, self._base = candidate.kept.text() + self._buffer, candidate.start
        self._conclude(candidate, outcome)
        return True

    def _conclude(self, candidate: Candidate, outcome: Outcome) -> None:
        end = outcome.end - self._base
        format = candidate.row.format
        around = guard(candidate.before, self._buffer[end : end + _INDENT + 8], marked=format.marked)
        if format.grammar == "python" and not format.marked:
            around = around or guard_list(candidate.before, self._buffer[end : end + 1])
        if candidate.before.rstrip()[-1:] in ("}", "]") and lazy(_MESSAGE).match(self._buffer, self._pos):
            around = around or "a list of chat messages"
        if not around and self._is_blank_since(self._example[0]):
            around = self._example[1]
        thought = self._think_end == _HARMONY_END and format.name != "harmony"
        if thought and self._buffer.endswith(_HARMONY_END, self._pos, end):
            end -= len(_HARMONY_END)  # it ends the thinking, with the call in it
        if around:
            self._example = (self._base + end, around)
        if outcome.reason or around:
            self._output.refuse((candidate.start, outcome.end), format.name, outcome.reason or around)
            self._pos = end
            return
        if self._call_block is None:
            self._doubt()
        self._cut(end, outcome.calls, outcome.incomplete)
        self._output.refused(outcome.refused)
        self._adjacent = self._call_block is None

    def _doubt(self) -> None:
        """Hold a call, and what follows it, if it may turn out to be a part of thinking."""
        if self._think_hold is None and (self._think_end or not self._think_seen):
            self._flush()
            self._think_hold = self._output.hold(outermost=True)

    def _is_blank_since(self, position: int) -> bool:
        """Whether nothing but blanks precedes the candidate since `position` of the whole text."""
        count = self._base + self._pos - position
        return position >= 0 and count < _LOOK_BACK and not self._before(self._pos)[-count or None :].strip()

    # -- other data

    def _start_data(self, final: bool) -> bool:
        """At a bracket that opens no call: it may open other data."""
        window = self._buffer[self._pos : self._pos + _DATA_HEAD]
        if not final and len(window) < _DATA_HEAD and lazy(_DATA_START).match(window):
            return False
        if lazy(_DATA).match(window) is None:
            self._pos += 1
            return True
        named = lazy(_NAMED).match(window)
        start = self._base + self._pos
        self._data = _Data(BracketScanner(start, data=True), start, named[1] if named else "")
        return True

    def _follow_data(self, data: _Data, final: bool) -> bool:
        self._pos = data.scanner.scan(self._buffer, self._pos, self._base, final)
        if data.scanner.state is State.MORE:
            return False
        if data.name:
            end = data.scanner.end if data.scanner.state is State.BROKEN else self._base + self._pos
            self._output.refuse((data.start, end), "json", f"no tool is called `{data.name}`")
        if data.scanner.state is State.FAILED:
            self._patience -= _PATIENCE // _MAX_FAILURES
        self._data = None
        return True

    # -- blocks of code

    def _open_fence(self, final: bool) -> bool:
        """At three or more backticks or tildes."""
        run = lazy(_RUN).match(self._buffer, self._pos)
        assert run is not None
        length = run.end() - self._pos
        if not final and run.end() == len(self._buffer) and length <= _LONGEST_FENCE:
            return False
        if not 3 <= length <= _LONGEST_FENCE or self._before(self._pos, 1) == run.group()[0]:
            self._pos = run.end()
            return True
        opening = lazy(_FENCE).match(self._buffer, self._pos)
        if not final and opening is None and lazy(_FENCE_START).match(self._buffer, self._pos):
            return False
        if not self._at_line_start(self._pos) and not (opening and opening["language"]):
            self._pos = run.end()
            return True
        language = opening["language"].lower() if opening else "?"
        if opening is None or language not in _CALL_LANGUAGES | _CODE_LANGUAGES:
            self._fence, self._pos = run.group(), run.end()
            return True
        assert self._lexicon is not None
        only = self._lexicon.tool_code if language in _CODE_LANGUAGES else None
        return self._open_block(opening, only, final)

    def _open_block(self, opening: re.Match[str], only: Opening | None, final: bool) -> bool:
        """A block that may hold calls: its opening waits until the first thing in it is known."""
        comment = lazy(_COMMENT).match(self._buffer, opening.end())
        at = comment.end() if comment else opening.end()
        if not final and at >= len(self._buffer) and at - opening.end() < _LOOK_BACK:
            return False
        if not final and lazy(_COMMENT_START).match(self._buffer, at):
            return False
        fitting = self._fitting(at, final, only)
        if fitting is MORE:
            return False
        if fitting is None:
            self._fence, self._pos = opening["fence"], opening.end()
            return True
        self._flush()
        self._call_block = _CallBlock(opening["fence"], only, self._output.hold())
        self._cut(at)
        self._start(*fitting)
        return True

    def _follow_calls(self, block: _CallBlock, final: bool) -> bool:
        """After something in a block: its end, another call, or what makes it a plain block."""
        self._flush()
        hold, rest = block.hold, self._buffer[self._pos : self._pos + _LOOK_BACK]
        at = self._pos + len(rest) - len(rest.lstrip())
        mark = self._buffer[at : at + len(block.fence)]
        found = bool(hold.calls or hold.incomplete)
        if not final and at + len(block.fence) >= len(self._buffer) and block.fence.startswith(mark):
            return False
        if found and mark == block.fence and lazy(r"\w").match(self._buffer, at + len(mark)):
            self._end_block(block)  # another block begins: this one was not closed
            return True
        if found and (mark == block.fence or block.fence.startswith(self._buffer[at : at + _INDENT])):
            self._cut(at + len(mark))
            self._end_block(block)
            return True
        fitting = self._fitting(at, final, block.only) if found else None
        if fitting is MORE:
            return False
        if fitting is not None:
            self._cut(at)
            self._start(*fitting)
            return True
        self._call_block, self._fence = None, block.fence
        self._output.reject(hold, "in a block of code with other text")
        return True

    def _end_block(self, block: _CallBlock) -> None:
        """A block of calls has come to its end."""
        self._call_block = None
        self._doubt()
        self._output.release(block.hold)
        self._adjacent = True

    def _follow_code(self, final: bool) -> bool:
        """Inside a block of code, up to the fence that closes it."""
        found = self._buffer.find(self._fence, self._pos)
        while found >= 0 and not self._at_line_start(found):
            found = self._buffer.find(self._fence, found + len(self._fence))
        if found < 0:
            self._pos = len(self._buffer) - (0 if final else _overlap(self._buffer, self._fence))
            return False
        self._pos = found + len(self._fence)
        self._fence = ""
        return True

    # -- thinking

    def _think(self, final: bool) -> bool | None:
        """At a tag around thinking: whether to go on; None at anything else."""
        found = lazy(_THINK_MARK).match(self._buffer, self._pos)
        if found is None:
            waits = not final and self._buffer[self._pos : self._pos + _INDENT] in _THINK_PREFIXES
            return False if waits else None
        mark = found.group()
        if mark == _HARMONY_END and self._think_end != mark:
            return None
        self._flush()
        if mark in _THINK_START:
            if not mark.startswith("<|") and self._is_quoted():
                return None
            if self._think_hold is not None and not self._think_end:
                self._output.release(self._think_hold)  # what was not in thinking is a call for good
                self._think_hold = None
            self._think_end = _THINK_START[mark]
        else:
            hold, self._think_hold, self._think_end = self._think_hold, None, ""
            if hold is not None:
                self._output.reject(hold, _THOUGHT)
        self._think_seen = True
        self._pos = found.end()
        return True

    def _is_quoted(self) -> bool:
        line = self._before(self._pos, _INDENT).rpartition("\n")[2]
        return line.count("`") % 2 == 1 or line[-1:] in _QUOTES


_DATA = r"""\{\s{0,40}(?:["'“][^"'”\n]{0,80}["'”]\s{0,40}:|\w{1,64}\s{0,8}:)|\[\s{0,40}[{"\[]"""
_NAMED = r"""\{\s{0,40}["'](?:name|tool|tool_name|action)["']\s{0,8}:\s{0,8}["']([^"'\n]{0,80})["']"""
_DATA_START = (
    r"""[{\[]\s{0,40}\Z|\{\s{0,40}(?:["'“][^"'”\n]{0,80}(?:["'”]\s{0,40})?|\w{1,64}\s{0,8})\Z"""
    r"""|\{\s{0,40}["'](?:name|tool|tool_name|action)["']\s{0,8}:\s{0,8}(?:["'][^"'\n]{0,80})?\Z"""
)


def _overlap(text: str, mark: str) -> int:
    """The length of the longest beginning of `mark` that `text` ends with."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
