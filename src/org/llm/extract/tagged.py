"""The end of arguments between tags. Pure."""

from __future__ import annotations

import re

from org.llm.extract.patterns import BLANK, MORE, Pattern, either
from org.llm.extract.scan import MAX_SPAN, ONLY_BLANK, State

MAX_ARGUMENTS = 100
_LONGEST_TAG = 512


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
        if end is None and final and len(window) - at < _LONGEST_TAG and not ONLY_BLANK.match(window, at):
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
            if follows is not None or (final and ONLY_BLANK.match(window, after)):
                self._store(self._base + start)
                return start
        elif token == self._parameter_mark and not self._nested:
            parameter = self._parameter.match(window, start, final)
            if parameter is MORE:
                return self._wait(start)
            if parameter is not None and self._is_due(parameter["key"]):
                self._store(self._base + start)  # its closing tag is missing
                return start
        return after

    def _is_due(self, key: str) -> bool:
        """Whether a parameter of the tool is still to come."""
        return key in self._keys and key != self._key and all(key != given for given, *_ in self.pairs)

    def _give_up(self, window: str) -> int:
        """The text ended inside a value: where it could have ended, if anywhere."""
        if self._first_close is None:
            return self._wait(len(window))
        self.gave_up = True
        close = self._first_close
        self._store(close)
        self.state, self.end = State.BROKEN, close + len(self._close_tag)
        return len(window)
