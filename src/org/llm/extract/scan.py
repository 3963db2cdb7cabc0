"""Where the arguments of a call end: resumable scanners, each character looked at once. Pure.

A scanner is given a window of the text, the position in it that was not looked at yet, and the
offset of the window in the whole text; it answers with the position from which it wants to go on.
It never needs what lies before that again. All positions that it keeps are offsets in the whole
text.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Protocol

from org.llm.extract.patterns import BLANK, MORE, Pattern, beginnings, either, lazy

MAX_DEPTH = 64
MAX_SPAN = 1 << 23  # characters; a longer text is no call
MAX_ARGUMENTS = 100


class State(Enum):
    MORE = "more"  # the end has not come yet
    DONE = "done"  # it ends at `end`
    BROKEN = "broken"  # it has to end at `end`, without its closers: something else follows
    FAILED = "failed"  # too deep or too long


_LONGEST_TAG = 512
_ONLY_BLANK = re.compile(r"\s*\Z")


class Scanner(Protocol):
    state: State
    end: int

    @property
    def open_value(self) -> bool:
        """Whether a text that stopped here would stop inside a string or a value."""
        ...

    def scan(self, window: str, at: int, base: int, final: bool) -> int: ...


_OUTSIDE = re.compile(r"""["'“‘{}()\[\]`<\\/#]""")
_INSIDE = {
    '"': re.compile(r'["\\]'),
    "'": re.compile(r"['\\]"),
    "”": re.compile(r"[”“\\]"),
    "’": re.compile(r"[’\\]"),
    '"""': re.compile(r'"""|""?\Z|\\'),
    "'''": re.compile(r"'''|''?\Z|\\"),
    '\\"': re.compile(r"\\\\(?:\\(?:.|\Z)|[^\\]|\Z)|\\(?:.|\Z)", re.DOTALL),
    "\n": re.compile(r"\n"),
    "*/": re.compile(r"\*/|\*\Z"),
}
_WHOLE_STRING = re.compile(r'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"')  # the usual case, in one step
_COMMENTS = ("\n", "*/")
_CLOSER = {"{": "}", "[": "]", "(": ")"}
_SMART = {"“": "”", "‘": "’"}
_QUOTE_MAY_FOLLOW = frozenset("{[(,:=")


class BracketScanner:
    """JSON, whatever models take for JSON, or a Python call: brackets, strings, comments.

    It ends where the first bracket is closed; a text that starts with a string ends with that.
    With `python`, quotes always start a string, three are one, and anything may stand between.
    With `data` the text is known to be no call and is only followed to its end; a string that runs
    over a line shows that it was no data after all.
    """

    def __init__(self, start: int, *, python: bool = False, data: bool = False) -> None:
        self.state = State.MORE
        self.end = start
        self.items_end = 0  # the end of the last whole object in a list of calls ...
        self.before_prose = False  # it is broken because words follow
        self.items_open = ""  # ... and the brackets that are open there
        self._start = start
        self._python = python
        self._data = data
        self._stack: list[str] = []
        self._quote = ""
        self._last = ""  # the last character outside strings that is not blank
        self._value_end = start
        self._breaks = 0  # line breaks since then
        self._base = 0
        self._waiting = False

    @property
    def open_value(self) -> bool:
        return bool(self._quote) and self._quote not in _COMMENTS

    @property
    def between_values(self) -> bool:
        """Whether the last thing is a comma, a colon or an opening bracket: more has to come."""
        return self._last in _QUOTE_MAY_FOLLOW

    @property
    def brackets(self) -> str:
        return "".join(self._stack)

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        self._base, self._waiting = base, False
        while self.state is State.MORE and not self._waiting:
            at = self._string(window, at, final) if self._quote else self._outside(window, at, final)
        if base + at - self._start > MAX_SPAN and not self._data and self.state is State.MORE:
            self.state = State.FAILED
        return at

    def _wait(self, at: int) -> int:
        self._waiting = True
        return at

    def _finish(self, state: State, end: int) -> None:
        self.state, self.end = state, self._base + end

    def _string(self, window: str, at: int, final: bool) -> int:
        quote = self._quote
        found = _INSIDE[quote].search(window, at)
        if self._data and quote not in _COMMENTS:
            newline = window.find("\n", at, found.start() if found else len(window))
            if newline >= 0:
                self._finish(State.BROKEN, newline)
                return newline
        if found is None:
            return self._wait(len(window))
        token, after = found.group(), found.end()
        needs_more = after >= len(window) and not final
        if token == quote or token == "“":
            if quote == "'" and not self._python:
                if needs_more:
                    return self._wait(found.start())
                if window[after : after + 1].isalnum():
                    return after  # an apostrophe
            self._quote = ""
            if quote not in _COMMENTS:
                self._last, self._value_end = '"', self._base + after
                if not self._stack:
                    self._finish(State.DONE, after)
            return after
        if needs_more and token != "\\":
            return self._wait(found.start())
        if token == "\\":  # what follows it belongs to the string
            return after + 1 if after < len(window) else self._wait(len(window) if final else found.start())
        return after

    def _outside(self, window: str, at: int, final: bool) -> int:
        found = _OUTSIDE.search(window, at)
        stop = found.start() if found else len(window)
        gap = window[at:stop]
        word = gap.strip()
        self._breaks += gap[: gap.find(word)].count("\n") if word else gap.count("\n")
        if word:
            if word[0].isalpha() and not self._python and self._prose_may_follow():
                self._finish(State.BROKEN, self._value_end - self._base)
                self.before_prose = True
                return at
            self._last = word[-1]
        if word or found:
            self._breaks = 0
        if found is None:
            return self._wait(stop)
        character = found.group()
        if character in "{[" or (character == "(" and self._python):
            self._stack.append(character)
            self._last = character
            if len(self._stack) > MAX_DEPTH:
                self.state = State.FAILED
        elif character in "}]" or (character == ")" and self._python):
            self._close(character, stop + 1)
        elif character in "\"'“‘":
            return self._open_string(character, window, stop, final)
        elif character in "\\/#":
            return self._mark(character, window, stop, final)
        elif character in "`<" and not self._python:
            self._finish(State.BROKEN, stop)
            return stop
        return stop + 1

    def _prose_may_follow(self) -> bool:
        """Whether a word that comes now stands behind arguments that lack their closers."""
        return self._last in ("}", "]") or (self._last == '"' and self._breaks > 1)

    def _close(self, character: str, after: int) -> None:
        if all(_CLOSER[bracket] != character for bracket in self._stack):
            return  # one too many
        while _CLOSER[self._stack.pop()] != character:
            pass  # the closer of an inner bracket is missing
        self._last = character
        self._value_end = self._base + after
        if not self._stack:
            self._finish(State.DONE, after)
        elif character == "}" and self.brackets in ("[", "{["):
            self.items_end, self.items_open = self._value_end, self.brackets

    def _open_string(self, character: str, window: str, start: int, final: bool) -> int:
        triple = character * 3
        if (self._python and character in "\"'") or (character == '"' and self._last == ":"):
            if not final and triple.startswith(window[start : start + 3]) and start + 3 > len(window):
                return self._wait(start)
            if window.startswith(triple, start):
                self._quote = triple
                return start + 3
        if self._python:
            pass
        elif character == "'" and self._last and self._last not in _QUOTE_MAY_FOLLOW:
            return start + 1  # an apostrophe
        elif character == '"' and (whole := _WHOLE_STRING.match(window, start)) and self._stack:
            self._last, self._value_end = '"', self._base + whole.end()
            return whole.end()
        self._quote = _SMART.get(character, character)
        return start + 1

    def _mark(self, character: str, window: str, start: int, final: bool) -> int:
        """A backslash (of JSON that is escaped as a whole), or the start of a comment."""
        if self._python and character != "#":
            return start + 1
        if start + 1 >= len(window) and not final:
            return self._wait(start)
        pair = window[start : start + 2]
        if pair == '\\"':
            self._quote = pair
            return start + 2
        if character == "#" or pair == "//":
            self._quote = "\n"
        elif pair == "/*":
            self._quote = "*/"
            return start + 2
        return start + 1


class TaggedScanner:
    """Arguments between tags. Their values are not escaped, so the end of a value is the closing
    tag that is followed by another tag of the call; what looks like a whole call inside a value
    is a part of it. Without such an end, a `patient` scanner falls back to the first closing tag.

    `pairs` holds (key, type or None, start, end) of every value.
    """

    def __init__(
        self,
        start: int,
        *,
        parameter: Pattern,
        parameter_mark: str,
        value_close: str,
        call_opens: tuple[str, ...],
        call_closes: tuple[str, ...],
        outer_closes: tuple[str, ...],
        keys: frozenset[str],
        only_keys: bool,
        patient: bool,
    ) -> None:
        self.state = State.MORE
        self.end = start
        self.pairs: list[tuple[str, str | None, int, int]] = []
        self._start = start
        self._parameter = parameter
        self._parameter_mark = parameter_mark
        self._close_template = value_close
        self._call_opens = call_opens
        self._call_closes = call_closes
        self._outer_closes = outer_closes
        self._keys = keys
        self._only_keys = only_keys
        self._patient = patient
        self.gave_up = False  # it looked at everything for a better end, and found none
        self._call_end = Pattern(BLANK, either(*call_closes))
        self._closed_by = Pattern(BLANK, either(parameter_mark, *call_closes, *outer_closes, *call_opens))
        self._ended_by = Pattern(BLANK, either(*outer_closes, *call_opens))
        self._close_tag = ""
        self._cut_tag = False  # the text ends inside the tag of one more value
        self._key: str | None = None
        self._type: str | None = None
        self._value_start = start
        self._base = 0
        self._waiting = False

    @property
    def open_value(self) -> bool:
        return self._key is not None or self._cut_tag

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        self._base, self._waiting = base, False
        while self.state is State.MORE and not self._waiting:
            at = self._between(window, at, final) if self._key is None else self._value(window, at, final)
        if base + at - self._start > MAX_SPAN and self.state is State.MORE:
            self.state = State.FAILED
        return at

    def _wait(self, at: int) -> int:
        self._waiting = True
        return at

    def _between(self, window: str, at: int, final: bool) -> int:
        parameter = self._parameter.match(window, at, final)
        end = self._call_end.match(window, at, final)
        if parameter is MORE or end is MORE:
            return self._wait(at)
        if parameter is not None and (parameter["key"] in self._keys or not self._only_keys):
            self._open(parameter)
            return parameter.end()
        if end is None and final and len(window) - at < _LONGEST_TAG and not _ONLY_BLANK.match(window, at):
            if self._parameter.match(window, at, final=False) is MORE:
                self._cut_tag = True
                return self._wait(at)
            if self._call_end.match(window, at, final=False) is MORE:
                at = len(window)
        self.state, self.end = State.BROKEN, self._base + at
        if end is not None:
            self.state, self.end = State.DONE, self._base + end.end()
            return end.end()
        return at

    def _open(self, parameter: re.Match[str]) -> None:
        self._key = parameter["key"]
        self._type = parameter.groupdict().get("type")
        self._value_start = self._base + parameter.end()
        close = self._close_template.replace("{key}", self._key)
        if close != self._close_tag:
            self._expect(close)
        self._nested = 0
        self._cdata = False
        self._first_close: int | None = None

    def _expect(self, close: str) -> None:
        """Prepare for a value that `close` ends."""
        marks = (close, *self._call_opens, *self._call_closes, self._parameter_mark, "<![CDATA[")
        longest_first = sorted(set(marks), key=len, reverse=True)
        self._close_tag = close
        self._tokens = re.compile("|".join(map(re.escape, longest_first)))
        self._marks = marks
        self._longest = len(longest_first[0])

    def _store(self, end: int) -> None:
        assert self._key is not None
        self.pairs.append((self._key, self._type, self._value_start, end))
        if len(self.pairs) > MAX_ARGUMENTS:
            self.state = State.FAILED
        self._key = None

    def _value(self, window: str, at: int, final: bool) -> int:
        if self._cdata:
            end = window.find("]]>", at)
            if end < 0:
                return self._give_up(window) if final else self._wait(max(at, len(window) - 2))
            self._cdata = False
            return end + 3
        found = self._tokens.search(window, at)
        if found is None:
            if final:
                return self._give_up(window)
            return self._wait(max(at, len(window) - self._longest + 1))
        token, start, after = found.group(), found.start(), found.end()
        rest = window[start : start + self._longest]
        if not final and any(len(mark) > len(rest) and mark.startswith(rest) for mark in self._marks):
            return self._wait(start)
        if token == "<![CDATA[":
            self._cdata = True
        elif token == self._close_tag and not self._nested:
            follows = self._closed_by.match(window, after, final=False)
            if follows is MORE and not final:
                return self._wait(start)
            if follows is not None:
                self._store(self._base + start)
            elif self._first_close is None and self._patient:
                self._first_close = self._base + start
        elif token in self._call_opens:
            self._nested += 1
        elif token in self._call_closes:
            if self._nested:
                self._nested -= 1
                return after
            follows = self._ended_by.match(window, after, final)
            if follows is MORE:
                return self._wait(start)
            if follows is not None or (final and _ONLY_BLANK.match(window, after)):
                self._store(self._base + start)
                return start
        elif token == self._parameter_mark and not self._nested:
            parameter = self._parameter.match(window, start, final)
            if parameter is MORE:
                return self._wait(start)
            if parameter is not None and parameter["key"] in self._keys:
                self._store(self._base + start)  # its closing tag is missing
                return start
        return after

    def _give_up(self, window: str) -> int:
        """The text ended inside a value: where it could have ended, if anywhere."""
        if self._first_close is None:
            return self._wait(len(window))
        self.gave_up = True
        close = self._first_close
        self._store(close)
        self.state, self.end = State.BROKEN, close + len(self._close_tag)
        return len(window)


_GEMMA = (
    rf'<\|"\|>|<escape>|(?P<part><(?:{beginnings("|")}{beginnings(chr(34))}{beginnings("|")}|{beginnings("escape")})\Z)'
    r'|["{}\[\]]'
)


class GemmaScanner:
    """`{key:<|"|>text<|"|>,n:3}`: brackets, and strings between marks of several characters."""

    def __init__(self, start: int) -> None:
        self.state = State.MORE
        self.end = start
        self._start = start
        self._depth = 0
        self._quote = ""

    @property
    def open_value(self) -> bool:
        return bool(self._quote)

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        while self.state is State.MORE:
            if self._quote:
                close = window.find(self._quote, at)
                if close < 0:
                    return len(window) if final else max(at, len(window) - len(self._quote) + 1)
                at, self._quote = close + len(self._quote), ""
                continue
            found = lazy(_GEMMA).search(window, at)
            if found is None:
                return len(window)
            if found["part"]:
                return len(window) if final else found.start()
            token, at = found.group(), found.end()
            if token in "{[":
                self._depth += 1
            elif token in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.state, self.end = State.DONE, base + at
            else:
                self._quote = token
            if self._depth > MAX_DEPTH or base + at - self._start > MAX_SPAN:
                self.state = State.FAILED
        return at


_LINE_END = r"\n(?=\s{0,40}\n|Observation|Thought|Action|Final Answer)|```"


class LineScanner:
    """Plain text, to a blank line, the next label, or the end."""

    def __init__(self, start: int) -> None:
        self.state = State.MORE
        self.end = start
        self.open_value = True  # nothing has come yet
        self._start = start

    def scan(self, window: str, at: int, base: int, final: bool) -> int:
        found = lazy(_LINE_END).search(window, at)
        stop = found.start() if found else len(window)
        if self.open_value and not _ONLY_BLANK.match(window, at, stop):
            self.open_value = False
        if found is None and base + at - self._start > MAX_SPAN:
            self.state = State.FAILED
        elif found is None and (not final or self.open_value):
            return max(at, len(window) - 64)
        else:
            self.state = State.DONE
            self.end = base + (stop if found else max(at, len(window.rstrip())))
        return stop
