"""What an answer says, whatever a model writes around it. Pure.

Who is asked for a number or a word and answers with all that there are has not answered: so of a number the
last one counts, of words what the answer begins or ends with, and of JSON there may be one value.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

MOST_SAID = 400
"""Characters of an answer that is a number or some words. A longer one is none."""
_MOST_TRIED = 50  # places at which a JSON value may begin

_THOUGHTS = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"\A\W{0,4}(?:final )?answer(?:\*\*)?:(?:\*\*)?\s+", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_MARK = re.compile(r"\*\*([^*\n]+)\*\*|`([^`\n]+)`|\\boxed\{([^{}\n]+)\}")


def said(text: str) -> str:
    """A text without what was thought aloud, and without `Answer:`; what was only begun to be thought ends in
    nothing."""
    return _LABEL.sub("", _THOUGHTS.sub("", text).strip())


def _marked(text: str) -> list[str]:
    """What a text marks, as code, in bold, or in a box. Of several marks none is the answer."""
    found = _FENCE.findall(text) or ["".join(groups) for groups in _MARK.findall(text)]
    return found if len(found) == 1 else []


def _bare(text: str) -> bool:
    """Whether nothing is said: there may be marks and stops."""
    return not any(map(str.isalnum, text))


# -- numbers

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_BELOW_ZERO = r"(?P<below>(?<![0-9] )\b(?:minus|negative) |(?<![^\W_])(?<!\))[-\u2212\u2013])?"
_NUMBER = re.compile(
    rf"{_BELOW_ZERO}(?<![^\W_])(?<![0-9][.,])"
    # In groups of three, with a fraction or without, or a fraction alone.
    r"(?:(?P<groups>[1-9][0-9]{0,2}(?:[, _'\u00a0\u2009\u202f][0-9]{3})+(?![0-9])(?:\.[0-9]+)?)"
    r"|(?P<plain>[0-9]+(?:[.,][0-9]+)?|(?<!\.)\.[0-9]+))",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(rf"{_BELOW_ZERO}(?<![\w-])(?P<word>{'|'.join(_WORDS)})(?![\w-])", re.IGNORECASE)


def number(text: str) -> Decimal | None:
    """The number that a short answer gives: the one that it marks or begins with in a line of its own, else
    the last; in words, up to twenty, when there are no digits."""
    if len(text) > MOST_SAID:
        return None
    text = text.replace("{,}", ",").replace("\\,", "")
    for part in (*_marked(text), text.partition("\n")[0]):
        found = list(_NUMBER.finditer(part))
        if len(found) == 1 and _bare(part[: found[0].start()] + part[found[0].end() :]):
            return _value(found[0])
    form = _NUMBER if re.search("[0-9]", text) else _IN_WORDS
    every = list(form.finditer(text))
    return _value(every[-1]) if every else None


def _value(found: re.Match[str]) -> Decimal:
    named = found.groupdict()
    if word := named.get("word"):
        value = Decimal(_WORDS.index(word.lower()))
    elif groups := named.get("groups"):
        value = Decimal(re.sub(r"[^0-9.]", "", groups))
    else:
        value = Decimal(named["plain"].replace(",", "."))
    return -value if named["below"] else value


# -- words


def says(pattern: str, text: str) -> bool:
    """Whether a short answer begins or ends with what is looked for, or does so in what alone it marks."""
    if len(text) > MOST_SAID:
        return False
    return any(
        _ends(part, *found.span())
        for part in (text, *_marked(text))
        for found in re.finditer(pattern, part, re.MULTILINE)
    )


def _ends(text: str, begin: int, end: int) -> bool:
    """Whether these are whole words with which a text begins or ends."""
    is_whole = _bare(text[begin - 1 : begin]) and _bare(text[end : end + 1])
    return is_whole and (_bare(text[:begin]) or _bare(text[end:]))


# -- JSON

_OPENS = re.compile(r"[\[{]")


def json_values(text: str) -> Iterator[Any]:
    """The JSON values that stand in a text, or in its code if it has some, whatever is around them; of a
    value, not its parts. A text that is JSON as a whole is the only one."""
    if len(fenced := _FENCE.findall(text)) == 1:
        text = fenced[0]
    decoder = json.JSONDecoder(parse_constant=no_number)
    try:
        yield decoder.decode(text.strip())
        return
    except (ValueError, RecursionError):
        pass
    at = 0
    tried = 0
    while (begin := _OPENS.search(text, at)) is not None and tried < _MOST_TRIED:
        tried += 1
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            at = begin.end()
        else:
            yield value


def no_number(word: str) -> float:
    """What JSON has no word for."""
    raise ValueError(f"{word} is no number")


def likeness(wanted: Any, found: Any) -> float:
    """The share of an object's keys that are right; of anything else, whether it is the same."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted:
        right = sum(key in found and _same(value, found[key]) for key, value in wanted.items())
        return right / len(wanted.keys() | found.keys())
    return float(_same(wanted, found))


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        finite = max(abs(wanted), abs(found)) <= sys.float_info.max
        return wanted == found or (finite and math.isclose(wanted, found))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_same(one, found[key]) for key, one in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    return bool(wanted == found)
