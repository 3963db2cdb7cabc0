"""A call in the making: from its opening to its last closing mark, then decoded and judged. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from org.llm.extract.accept import Found, Refused, Toolbox, arguments_of, calls_in, is_schema, placeholder
from org.llm.extract.brackets import BracketScanner
from org.llm.extract.decode import decode, decode_gemma, decode_python, unescape_once
from org.llm.extract.lexicon import Row
from org.llm.extract.patterns import MORE, lazy
from org.llm.extract.result import Incomplete, Refusal
from org.llm.extract.rope import Rope
from org.llm.extract.scan import GemmaScanner, LineScanner, Scanner, State
from org.llm.extract.tagged import TaggedScanner
from org.llm.extract.typed import fits, typed
from org.tooling import Origin, ToolCall


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a candidate that ends at `end`: calls, or the reason why there are none."""

    end: int
    calls: tuple[ToolCall, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    refused: tuple[Refusal, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Item:
    """The arguments of one call (or a list of calls): the name before them, and where they stand."""

    name: str
    start: int
    scanner: Scanner


class _CutOffError(Exception):
    """The text ended inside a call: its name if that is known, and the whole calls before it."""

    def __init__(self, name: str, calls: list[Found]) -> None:
        super().__init__(name)
        self.name = name
        self.calls = calls


_NEAR = 80  # characters after a call that may hold the next thing after it
_MAX_ITEMS = 1_000  # calls in one wrapper
_NAME_IN_JSON = (
    r"""(?:name|tool|function|action)\\{0,2}["'”]?\s{0,8}:\s{0,8}\\{0,2}["'“]([\w.\-:/]{1,128})\\{0,2}["'”]"""
)
_NAME_IN_PYTHON = r"\[?\s*([\w.]+)"
_ESCAPED = r'[\s{\[]*\\"'
_MARKING_KEY = r"""["'](?:tool_calls|tool_uses|function_call)["']\s*:\s*[\[{]"""
_NAME_BEGINS = r"""["'](?:name|tool|tool_name|recipient_name)["']\s*:\s*["'](?:functions\.)?([\w.\-]+)\Z"""
_CUT_GEMMA = r"[:,{\[]\s*\Z|<[^<>]{0,8}\Z"
_CLOSER = {"{": "}", "[": "]", "(": ")"}


class Candidate:
    """Feed it windows of text by `advance`, until it has an outcome.

    `head` was matched in a window at the offset `base`; `start` is the offset of the opening;
    `before` is the visible text that led up to it. `kept` collects the text that left the window.
    """

    def __init__(
        self,
        row: Row,
        box: Toolbox,
        head: re.Match[str],
        start: int,
        base: int,
        before: str,
        *,
        patient: bool = True,
    ) -> None:
        self._patient = patient
        self.start = start
        self.before = before
        self.kept = Rope()
        self.row = row
        self._box = box
        self._items: list[_Item] = []
        self._broken = False
        self._fresh = False  # nothing was consumed since the last arguments
        self._end = start
        self._begin(head, base)

    def _begin(self, head: re.Match[str], base: int) -> None:
        groups = head.groupdict()
        self._name = (groups.get("name") or self.row.tool).strip()
        if groups.get("value") is not None:
            self.position = base + head.start("value")
        else:
            first = self.row.format.whole and not self._items
            self.position = self.start if first else base + head.end()
        self._value_start = self.position
        self._scanner: Scanner | None = self._new_scanner()

    def _new_scanner(self) -> Scanner:
        format, start = self.row.format, self._value_start
        if format.grammar == "gemma":
            return GemmaScanner(start)
        if format.grammar == "line":
            return LineScanner(start)
        if format.tags is None:
            return BracketScanner(start, python=format.grammar == "python")
        tags = format.tags
        try:
            keys = frozenset(self._box.named(self._name).properties)
        except Refused:
            keys = frozenset()
        closes = tuple(close.replace("{tool}", self._name) for close in tags.call_closes)
        return TaggedScanner(
            start,
            parameter=self.row.parameter,
            parameter_mark=tags.mark,
            value_close=tags.value_close,
            call_opens=tags.call_opens,
            call_closes=closes,
            outer_closes=format.closers or closes,
            keys=keys,
            only_keys=tags.only_keys,
            patient=self._patient,
        )

    def advance(self, window: str, at: int, base: int, final: bool) -> Outcome | None:
        """Go on at `at` of the window; None when more text is needed, from `position` on."""
        while True:
            scanner = self._scanner
            if scanner is not None:
                at = scanner.scan(window, at, base, final)
                self.position = base + at
                if scanner.state is State.FAILED:
                    return Outcome(base + at, reason="too long or too deep")
                if scanner.state is State.MORE:
                    return self._outcome(window, base, scanner) if final else None
                self._items.append(_Item(self._name, self._value_start, scanner))
                self._scanner, self._fresh = None, scanner.state is State.DONE
                self._broken = scanner.state is State.BROKEN
                self._move(scanner.end)
                at = scanner.end - base
                if _before_prose(scanner):  # no closing mark can follow
                    return self._outcome(window, base)
            step = self._tail(window, at, base, final)
            if step is None:
                return None
            if step < 0:
                return self._outcome(window, base)
            at = step

    @property
    def gave_up(self) -> bool:
        """Whether it looked at all of the text and gave most of it back."""
        last = self._items[-1].scanner if self._items else None
        return isinstance(last, TaggedScanner) and last.gave_up

    @property
    def cost(self) -> int:
        """What it took to read it, in calls of an ordinary kind."""
        failed = self._scanner is not None and self._scanner.state is State.FAILED
        return max(1, len(self._items)) + (10 if failed else 0)

    def _tail(self, window: str, at: int, base: int, final: bool) -> int | None:
        """After arguments: one more closing mark, or the opening of one more call. The position to
        go on from; -1 when there is neither, None when more text is needed."""
        if at >= len(window) and not final:
            return None
        if self._fresh and self.row.format.grammar == "json" and window[at : at + 1] in ("}", "]"):
            self._move(base + at + 1)  # one bracket too many
            return at + 1
        self._fresh = False
        closer = self.row.closer.match(window, at, final)
        if closer is MORE:
            return None
        if closer is not None:
            self._broken = False
            self._move(base + closer.end())
            return closer.end()
        header = None
        if self.row.header and not self._broken and len(self._items) < _MAX_ITEMS:
            header = self.row.header.match(window, at, final)
        if header is MORE:
            return None
        if header is None:
            return -1
        self._begin(header, base)
        return self.position - base

    def _move(self, position: int) -> None:
        self._end = self.position = position

    # -- the outcome

    def _outcome(self, window: str, base: int, cut: Scanner | None = None) -> Outcome:
        end = self._end if cut is None else base + len(window)
        text = self.kept.text()[: end - self.start] + window[max(0, self.start - base) : max(0, end - base)]
        name = self.row.format.name
        calls: list[Found] = []
        reasons: list[str] = []
        incomplete: list[Incomplete] = []
        for item in self._items:
            try:
                found = self._read(item, text, item.scanner.end)
            except Refused as why:
                reasons.append(str(why))
                continue
            if item.scanner.state is not State.BROKEN or text[item.scanner.end - self.start :].strip():
                calls += found
            elif not (_before_prose(item.scanner) or window[end - base : end - base + _NEAR].strip()):
                if self._lacking(found):  # the text ends here, and more was to come
                    end = base + len(window)
                    incomplete.append(Incomplete(item.name, name, (self.start, end)))
                else:
                    calls += found
            elif self._lacking(found) or (isinstance(item.scanner, TaggedScanner) and not item.scanner.pairs):
                reasons.append("no arguments")
            else:
                calls += found
        if cut is not None:
            try:
                calls += self._read_cut(_Item(self._name, self._value_start, cut), text)
            except Refused as why:
                reasons.append(str(why))
            except _CutOffError as rest:
                calls += rest.calls
                incomplete.append(Incomplete(rest.name, name, (self.start, end)))
        if not calls and not incomplete:
            return Outcome(end, reason=reasons[0])
        if calls and all(placeholder(call.arguments) for call in calls):
            return Outcome(end, reason="its arguments are stand-ins")
        span = (self.start, end)
        origin = Origin("embedded", name, span)
        return Outcome(
            end,
            tuple(ToolCall("", call.name, call.arguments, origin) for call in calls),
            tuple(incomplete),
            tuple(Refusal(span, name, reason) for reason in reasons),
        )

    def _read(self, item: _Item, text: str, end: int, closers: str = "") -> list[Found]:
        """The calls that complete arguments stand for. Raises `Refused`."""
        grammar = self.row.format.grammar
        value = text[item.start - self.start : end - self.start] + closers
        try:
            if isinstance(item.scanner, TaggedScanner):
                return [self._tagged(item, item.scanner, text)]
            if grammar == "python":
                return [self._python(*call) for call in decode_python(value)]
            if grammar == "gemma":
                return [self._named(item.name, decode_gemma(value))]
            if grammar == "line":
                if not value.strip():
                    raise Refused("no arguments")
                return [self._named(item.name, value.strip().strip("`\"'"), plain=True)]
            if item.name and item.scanner.state is State.BROKEN and not value.strip():
                return [self._named(item.name, {})]
            complete = item.scanner.state is State.DONE and not closers
            decoded = decode(
                unescape_once(value) if lazy(_ESCAPED).match(value) else value, complete=complete
            )
            if item.name and not self.row.format.whole:
                return [self._named(item.name, decoded, plain=self.row.format.name == "react")]
            return calls_in(decoded, self._box, strict=not self.row.format.marked)
        except ValueError as error:
            raise Refused(f"unreadable arguments: {error}") from error

    def _named(self, name: str, value: Any, *, plain: bool = False) -> Found:
        """A call whose name stands before its arguments."""
        tool = self._box.named(name)
        arguments = arguments_of(value, tool, plain=plain)
        if arguments.get("name") == name and "name" not in tool.properties:
            return calls_in(arguments, self._box, strict=False)[0]
        if "properties" not in tool.properties and is_schema({"parameters": arguments}):
            raise Refused("a tool's schema")
        return Found(tool.name, arguments)

    def _is_marked_by_a_key(self, text: str) -> bool:
        """Whether JSON that was cut before it names a tool was going to call one."""
        name = lazy(_NAME_BEGINS).search(text)
        begun = name is not None and any(tool.startswith(name[1]) for tool in self._box.tools)
        return begun or lazy(_MARKING_KEY).search(text, 0, 400) is not None

    def _lacking(self, calls: list[Found]) -> bool:
        return any(key not in call.arguments for call in calls for key in self._box.tools[call.name].required)

    def _python(self, name: str, positional: list[Any], named: Mapping[str, Any]) -> Found:
        tool = self._box.named(name.removesuffix(".call"))
        keys = [key for key in tool.properties if key not in named]
        if len(positional) == 1 and isinstance(positional[0], dict) and not named:
            return Found(tool.name, positional[0])
        if len(positional) > len(keys):
            raise Refused("more arguments than the tool takes")
        for key, value in zip(keys, positional, strict=False):
            if not fits(value, tool.properties[key]):
                raise Refused(f"`{key}` is of another type")
        return Found(tool.name, {**dict(zip(keys, positional, strict=False)), **named})

    def _tagged(self, item: _Item, scanner: TaggedScanner, text: str) -> Found:
        tool = self._box.named(item.name)
        arguments: dict[str, Any] = {}
        for key, kind, start, end in scanner.pairs:
            declared = {"true": "string", "false": "any"}.get(kind or "", kind)
            schema = tool.properties.get(key.strip())
            arguments[key.strip()] = typed(text[start - self.start : end - self.start], schema, declared)
        return Found(tool.name, arguments)

    def _read_cut(self, item: _Item, text: str) -> list[Found]:
        """The calls of arguments that stop where the text does. One that stops inside a value is
        never completed; one that only lacks its closers is. Raises `Refused`, `_CutOffError`."""
        scanner = item.scanner
        value = text[item.start - self.start :]
        before: list[Found] = []
        name = item.name
        if isinstance(scanner, BracketScanner):
            if scanner.items_end:
                closers = "".join(_CLOSER[bracket] for bracket in reversed(scanner.items_open))
                before = self._read(item, text, scanner.items_end, closers)
                value = text[scanner.items_end - self.start :]
            if not name or self.row.format.whole:
                pattern = _NAME_IN_PYTHON if self.row.format.grammar == "python" else _NAME_IN_JSON
                found = lazy(pattern).search(value)
                name = found[1] if found else ""
        if name:
            name = self._box.named(name).name
        elif not (self.row.format.marked or before or self._is_marked_by_a_key(text)):
            raise Refused("it ends before it names a tool")
        if scanner.open_value or (isinstance(scanner, BracketScanner) and scanner.between_values):
            raise _CutOffError(name, before)
        if (
            value[-1:].isalnum()
            or value[-1:] in tuple("._-+")
            or (isinstance(scanner, GemmaScanner) and lazy(_CUT_GEMMA).search(value))
        ):
            raise _CutOffError(name, before)  # a number may go on
        if self.row.format.grammar == "python" and value.endswith(('""', "''")):
            raise _CutOffError(name, before)  # three quotes may be meant
        closers = ""
        if isinstance(scanner, BracketScanner):
            closers = "".join(_CLOSER[bracket] for bracket in reversed(scanner.brackets))
        try:
            calls = self._read(item, text, self.start + len(text), closers)
        except Refused as why:
            raise _CutOffError(name, before) from why
        if self._lacking(calls):
            raise _CutOffError(name, before)
        return calls


def _before_prose(scanner: Scanner) -> bool:
    return isinstance(scanner, BracketScanner) and scanner.before_prose
