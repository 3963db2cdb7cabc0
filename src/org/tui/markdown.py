"""Markdown that a model wrote, as lines of a terminal. Pure.

Nothing in it can do more than be read: HTML, images and markup of any other kind stay as they were
written, links are not to be clicked and always show where they lead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

LONGEST = 20_000
"""Characters beyond which a text is shown as it is: reading Markdown takes time with its length."""

LONGEST_LINE = 4_000

_PARSER = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable(["image", "entity", "reference"])
)
# A link is only text here, and where it leads is shown as it was written.
_PARSER.validateLink = lambda url: True  # type: ignore[method-assign]
_PARSER.normalizeLink = lambda url: url  # type: ignore[method-assign]
_BULLETS = "•◦▪"
_EMPHASIS = {"strong": Style(bold=True), "em": Style(italic=True), "s": Style(strike=True)}
_TAB = 4
_CONTAINERS = ("bullet_list_open", "ordered_list_open", "list_item_open", "blockquote_open")


@dataclass(frozen=True, slots=True)
class Look:
    """Styles of what is not plain."""

    code: Style
    head: Style
    dim: Style


def is_plain(text: str) -> bool:
    """Whether a text is too long, or has too long a line, to be read as Markdown."""
    return len(text) > LONGEST or any(len(line) > LONGEST_LINE for line in text.split("\n"))


def lines_of(text: str, width: int, look: Look) -> list[Text]:
    """The text in lines of at most `width` cells. It is clean already.

    It is shown as it was written when it is long, or when reading it as Markdown would hide a word:
    in quotes nested too deep, say, or in the title of a link.
    """
    width = max(width, 8)
    if not is_plain(text):
        writer = _Writer(width, look)
        writer.write(_PARSER.parse(text))
        if writer.lines and _letters(text) <= sum(_letters(line.plain) for line in writer.lines):
            return writer.lines
    return [Text(row) for line in text.split("\n") for row in rows_of(line.expandtabs(_TAB), width)]


def rows_of(line: str, width: int) -> list[str]:
    """One plain line as rows of at most `width` cells, broken at blanks; in linear time."""
    assert width > 0
    rows: list[str] = []
    place = 0
    while True:
        window = line[place : place + width + 1]
        fit = _fitting(window, width)
        if place + fit >= len(line):
            return [*rows, line[place:]]
        cut = fit if window[fit : fit + 1] == " " else window.rfind(" ", 0, fit) + 1 or fit
        rows.append(line[place : place + cut].rstrip(" "))
        place += cut
        if line[place : place + 1] == " ":
            place += 1


def _fitting(window: str, width: int) -> int:
    """How many characters of it fit; at least one."""
    if window.isascii():
        return min(len(window), width)
    cells = 0
    for place, character in enumerate(window):
        cells += cell_len(character)
        if cells > width:
            return max(1, place)
    return len(window)


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


@dataclass(frozen=True, slots=True)
class _Margin:
    """What stands before the lines of a block: once before its first, then before each other."""

    first: Text = field(default_factory=Text)
    rest: Text = field(default_factory=Text)


class _Writer:
    def __init__(self, width: int, look: Look) -> None:
        self.lines: list[Text] = []
        self._width = width
        self._look = look
        self._console = Console(width=width)
        self._margins: list[_Margin] = []
        self._lists: list[int | None] = []  # the next number, None for bullets
        self._tight = False
        self._gap = False  # a blank line goes before the next block

    def write(self, tokens: list[Token]) -> None:
        place = 0
        while place < len(tokens):
            token = tokens[place]
            if token.type == "table_open":
                end = next(i for i in range(place, len(tokens)) if tokens[i].type == "table_close")
                self._table(tokens[place:end])
                place = end
            elif token.nesting:
                self._nest(token)
            else:
                self._leaf(token, tokens[place - 1].tag if place else "")
            place += 1

    def _nest(self, token: Token) -> None:
        if self._gap and self.lines and token.type in _CONTAINERS:
            self.lines.append(self._margin())
            self._gap = False
        match token.type:
            case "bullet_list_open":
                self._lists.append(None)
            case "ordered_list_open":
                self._lists.append(int(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                self._lists.pop()
                self._gap = not self._lists
            case "list_item_open":
                mark = self._mark()
                self._margins.append(_Margin(Text(mark, self._look.dim), Text(" " * cell_len(mark))))
            case "blockquote_open":
                bar = Text("│ ", self._look.dim)
                self._margins.append(_Margin(bar, bar))
            case "list_item_close" | "blockquote_close":
                self._margins.pop()
                self._gap = self._gap or token.type == "blockquote_close"
            case "paragraph_close":
                self._gap = not token.hidden
            case "heading_open":
                self._gap = bool(self.lines)
            case _:
                pass

    def _mark(self) -> str:
        number = self._lists[-1]
        if number is None:
            return f"{_BULLETS[min(len(self._lists), 3) - 1]} "
        self._lists[-1] = number + 1
        return f"{number}. "

    def _leaf(self, token: Token, tag: str) -> None:
        match token.type:
            case "inline":
                heading = tag.startswith("h") and tag[1:].isdigit()
                self._block(self._inline(token, self._look.head if heading else Style()))
            case "fence" | "code_block":
                if token.info.strip():
                    self._block(Text(token.info.strip(), self._look.dim))
                    self._gap = False
                self._code(token.content)
                self._gap = True
            case "hr":
                self._block(Text("─" * min(self._room(), 40), self._look.dim))
                self._gap = True
            case _:
                self._block(Text(token.content))

    def _inline(self, token: Token, base: Style) -> Text:
        """The runs of a paragraph, each in its style."""
        made = Text()
        styles = [base]
        targets: list[tuple[str, int]] = []
        for child in token.children or ():
            match child.type:
                case "text" | "html_inline":
                    made.append(child.content, styles[-1])
                case "softbreak" | "hardbreak":
                    made.append("\n")
                case "code_inline":
                    made.append(child.content, styles[-1] + self._look.code)
                case "strong_open" | "em_open" | "s_open":
                    styles.append(styles[-1] + _EMPHASIS[child.tag])
                case "strong_close" | "em_close" | "s_close":
                    styles.pop()
                case "link_open":
                    targets.append((str(child.attrs.get("href", "")), len(made)))
                case "link_close":
                    target, start = targets.pop()
                    if made.plain[start:] != target:
                        made.append(f" ({target})", self._look.dim)
                case _:
                    made.append(child.content, styles[-1])
        return made

    def _code(self, content: str) -> None:
        for line in content.rstrip("\n").split("\n"):
            self._block(Text(line.expandtabs(_TAB), self._look.code), indent="  ")
            self._gap = False

    def _table(self, tokens: list[Token]) -> None:
        rows: list[list[Text]] = []
        for place, token in enumerate(tokens):
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                head = tokens[place - 1].type == "th_open"
                rows[-1].append(self._inline(token, self._look.head if head else Style()))
        widths = [max(row[i].cell_len for row in rows if i < len(row)) for i in range(len(rows[0]))]
        if sum(widths) + 3 * (len(widths) - 1) > self._room():
            self._stacked(rows)
            return
        for number, row in enumerate(rows):
            line = Text()
            for cell, width in zip(row, widths, strict=False):
                cell.pad_right(width - cell.cell_len)
                line.append(" │ " if len(line) else "", self._look.dim)
                line.append_text(cell)
            self._block(line)
            self._gap = False
            if number == 0:
                self._block(Text("─┼─".join("─" * width for width in widths), self._look.dim))
        self._gap = True

    def _stacked(self, rows: list[list[Text]]) -> None:
        """A table that is wider than the screen: each row as its named cells, one below the other."""
        names, *others = rows
        for row in others or [names]:
            for name, cell in zip(names, row, strict=False):
                self._block(Text.assemble(name, ": ", cell))
                self._gap = False
            self._gap = True

    def _room(self) -> int:
        return max(8, self._width - sum(margin.rest.cell_len for margin in self._margins))

    def _block(self, text: Text, indent: str = "") -> None:
        """Write a block below what there is, broken into lines."""
        if self._gap and self.lines:
            self.lines.append(self._margin())
        self._gap = False
        room = self._room() - len(indent)
        for line in text.split("\n", allow_blank=True):
            for row in _wrapped(line, room, self._console):
                prefix = self._margin(first=True)
                prefix.append(indent)
                prefix.append_text(row)
                self.lines.append(prefix)

    def _margin(self, *, first: bool = False) -> Text:
        made = Text()
        for place, margin in enumerate(self._margins):
            made.append_text(margin.first if first else margin.rest)
            if first:
                self._margins[place] = replace(margin, first=margin.rest)
        return made


def _wrapped(line: Text, width: int, console: Console) -> Iterable[Text]:
    """One line of styled text as rows of at most `width` cells."""
    line.expand_tabs(_TAB)
    if line.cell_len <= width:
        return [line]
    rows = line.wrap(console, width, overflow="fold")
    for row in rows:
        row.rstrip()
    return rows
