"""The end of JSON, of what models take for JSON, and of Python calls. Pure."""

from __future__ import annotations

import re

from org.llm.extract.scan import MAX_DEPTH, MAX_SPAN, State

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
            if word[0].isalpha() and self._prose_may_follow():
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
        if self._python:
            return self._last == ")" and self._stack == ["["]
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
