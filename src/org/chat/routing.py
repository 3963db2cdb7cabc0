"""Whom a text is for: the room's grammar. Pure.

At the start of a line outside a code fence, `@id` (or several) or `#file:path`, an optional `:` or
`,`, then a blank or the end of the line, addresses what follows up to the next such line. Text
before the first address goes to the speaker's standing audience. An address that nearly names
somebody is refused with all that follows it, never delivered to somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from org.errors import UsageError
from org.messages import EVERYONE, Audience

GROUP = "group"
NEAR = 2
"""The edit distance up to which a word after `@` is taken for a misspelt name."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What a participant may be called."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_TO_FILE = re.compile(r" {0,3}#file:", re.IGNORECASE)
_PATH = re.compile(r'(?:"([^"]+)"|([^\s"]+?))[:,]?(?:\s+|$)')
# Letters of any script, with their accents: what is nearly a name must not pass as text.
_AT = re.compile(r"@(\w[\w\u0300-\u036f-]*)[:,]?(?:\s+|$)")
_PASS = re.compile(r"[*_`\"']{0,3}PASS[*_`\"'.]{0,4}")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a text with the one audience it is for; `addressed` when it was written there."""

    audience: Audience
    content: str
    addressed: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """An address that is nobody's: `word` as written, and what is wrong with it."""

    word: str
    problem: str

    def __str__(self) -> str:
        return f"{self.problem}. What followed was not delivered"


@dataclass(frozen=True, slots=True)
class Routed:
    segments: tuple[Segment, ...]
    refused: tuple[Refusal, ...] = ()


def is_pass(text: str) -> bool:
    """Whether a whole reply says nothing."""
    return _PASS.fullmatch(text.strip()) is not None


def route(text: str, sender: str, names: Collection[str], standing: Audience) -> Routed:
    """Split a text by its addresses. `names` are all participants, people included."""
    segments: list[Segment] = []
    refused: list[Refusal] = []
    audience: Audience | None = standing
    addressed = False
    lines: list[str] = []

    def close() -> None:
        content = "\n".join(lines).strip("\n").rstrip()
        if content.strip() and audience is not None:
            segments.append(Segment(audience, content, addressed))
        lines.clear()

    fence = Fence()
    for line in text.replace("\r\n", "\n").split("\n"):
        address = None if fence.takes(line) else address_of(line, sender, names)
        if address is None:
            lines.append(line)
            continue
        close()
        found, rest = address
        addressed = True
        audience = found if isinstance(found, Audience) else None
        if isinstance(found, Refusal):
            refused.append(found)
        fence.takes(rest)
        lines.append(rest)
    close()
    return Routed(tuple(segments), tuple(refused))


def parse_mode(mode: str, sender: str, names: Collection[str]) -> Audience:
    """`group`, `direct:<id>[,<id>…]` or `file:<path>` as an audience. Raises `UsageError`."""
    kind, _, rest = mode.strip().partition(":")
    if kind == GROUP and not rest:
        return EVERYONE
    if kind == "file" and (path := rest.strip()):
        if path.startswith("/") or ".." in path.split("/"):
            raise UsageError(
                f"outside of the workspace: `{path}`", "it is a path in it, as in `file:notes/a.md`"
            )
        return Audience.file(path)
    if kind == "direct" and rest.strip():
        wanted = tuple(dict.fromkeys(part.strip().removeprefix("@") for part in rest.split(",")))
        for word in wanted:
            if word not in names or word == sender:
                others = ", ".join(sorted(n for n in names if n != sender))
                raise UsageError(f"nobody to address is called `{word}`", f"there are: {others}")
        return Audience.only(*wanted)
    raise UsageError(f"not a mode: `{mode}`", "it is `group`, `direct:<id>` or `file:<path>`")


class Fence:
    """Whether lines stand in a fenced code block, fed one by one."""

    def __init__(self) -> None:
        self._mark = ""

    @property
    def open(self) -> bool:
        return bool(self._mark)

    def takes(self, line: str) -> bool:
        """Whether this line belongs to a code block, its fences included."""
        match = _FENCE.match(line)
        if self._mark:
            if match and match[1].startswith(self._mark) and not match[2].strip():
                self._mark = ""
            return True
        if match and not (match[1][0] == "`" and "`" in match[2]):
            self._mark = match[1]
            return True
        return False


def address_of(line: str, sender: str, names: Collection[str]) -> tuple[Audience | Refusal, str] | None:
    """(whom a line outside a code block addresses, the rest of it), or None when it addresses nobody."""
    if head := _TO_FILE.match(line):
        if path := _PATH.match(line, head.end()):
            return Audience.file(path[1] or path[2]), line[path.end() :]
        return Refusal("#file:", "a path follows `#file:` at once, in quotes if it has blanks"), line[
            head.end() :
        ]
    position = len(line) - len(line.lstrip(" "))
    if position > 3:
        return None
    found: list[str] = []
    while match := _AT.match(line, position):
        word = match[1]
        name = _lookup(word, names)
        if name is None:
            near = _nearest(word, names)
            if near:
                return Refusal(word, f"nobody is called `@{word}`, perhaps you mean `@{near}`"), line[
                    match.end() :
                ]
            break
        found.append(name)
        position = match.end()
    if not found:
        return None
    rest = line[position:]
    if GROUP in found:
        return EVERYONE, rest
    others = tuple(dict.fromkeys(name for name in found if name != sender))
    if not others:
        return Refusal(found[0], f"`@{found[0]}` is yourself"), rest
    return Audience.only(*others), rest


def _lookup(word: str, names: Collection[str]) -> str | None:
    if word in names or word == GROUP:
        return word
    folded = word.casefold()
    return folded if folded in names or folded == GROUP else None


def _nearest(word: str, names: Collection[str]) -> str:
    folded = word.casefold()
    distances = [(edit_distance(folded, name), name) for name in (*names, GROUP)]
    distance, name = min(distances)
    return name if distance <= NEAR else ""


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance; names are short, so the plain table will do."""
    if abs(len(a) - len(b)) > NEAR:
        return abs(len(a) - len(b))
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
