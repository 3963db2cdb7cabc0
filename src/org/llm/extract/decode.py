"""From the text of arguments to values: JSON and what models write for it, Python calls, and
Gemma's notation. Pure.

Every function raises `ValueError` for what it cannot read.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from org.llm.extract.patterns import lazy

MAX_REPAIR = 1 << 16  # characters that the slow ways are tried on

_STRICT = json.JSONDecoder(strict=False)
_ESCAPE = r"""\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(.)|\Z)"""
_PYTHON_ESCAPE = r"""\\(?:(["'\\abfnrtv\n0-7]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|N\{[A-Z -]+\})|(.))"""
_PYTHON_SIGN = r"'|\"{3}|\b(?:True|False|None)\b"


def decode(text: str, *, complete: bool = True) -> Any:
    """The value that `text` stands for, all of it: as JSON, with bad escapes keeping their
    backslash, as a Python literal, after small repairs, or as json_repair reads it.

    A text that is not `complete` (its closers are missing) is left to the small repairs: json_repair
    makes something of anything.
    """
    text = text.strip()
    if text.startswith("{{"):  # braces doubled, as in a template
        text = text.replace("{{", "{").replace("}}", "}")
    attempts = [_json, _json_with_bad_escapes, _repaired]
    if len(text) <= MAX_REPAIR:
        attempts.insert(2, _python_literal)
        if complete:
            attempts.append(_json_repair)
    for attempt in attempts:
        try:
            return attempt(text)
        except (ValueError, TypeError, SyntaxError, LookupError, RecursionError, MemoryError):
            continue  # the next way may read it
    raise ValueError("no JSON")


def _json(text: str) -> Any:
    value, end = _STRICT.raw_decode(text)
    if text[end:].strip():
        raise ValueError("text after the value")
    return value


def keep_bad_escapes(text: str) -> str:
    r"""Double the backslash where JSON knows no such escape; `\'` is an apostrophe."""

    def mend(found: re.Match[str]) -> str:
        if found[1]:
            return found[0]
        return "'" if found[2] == "'" else "\\" + found[0]

    return lazy(_ESCAPE, re.DOTALL).sub(mend, text)


def _json_with_bad_escapes(text: str) -> Any:
    if "\\" not in text:
        raise ValueError("no escapes to mend")
    return _json(keep_bad_escapes(text))


def _python_literal(text: str) -> Any:
    if not lazy(_PYTHON_SIGN).search(text):
        raise ValueError("nothing of Python in it")
    return _plain(ast.literal_eval(_parsed(lazy(_ESCAPE, re.DOTALL).sub(_for_python, text))))


def _parsed(source: str) -> ast.expr:
    with warnings.catch_warnings():  # of the model's Python, which is of no interest
        warnings.simplefilter("ignore")
        return ast.parse(source, mode="eval").body


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, text for keys. Raises `TypeError` for what JSON has not."""
    return json.loads(json.dumps(value))


def _for_python(found: re.Match[str]) -> str:
    if found[2] and found[2] not in "'\n":
        return "\\" + found[0]
    return found[0]


_TOKEN = r"""(?P<skip>\s++|//[^\n]*+|\#[^\n]*+|/\*.*?\*/)
    |(?P<string>"{3}(?:[^"\\]++|\\.|"(?!""))*+"{3}|"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.|(?<=\w)'(?=\w))*+'|“(?:[^”“\\]++|\\.)*+[”“]|‘(?:[^’\\]++|\\.)*+’)
    |(?P<mark>[{}\[\],:])
    |(?P<word>[^\s{}\[\],:"'“‘]++)"""
_WORDS = {
    "true": "true",
    "false": "false",
    "null": "null",
    "none": "null",
    "undefined": "null",
    "nil": "null",
}
_NUMBER = r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\Z"
_OPEN_TO_CLOSE = {"{": "}", "[": "]"}


def _repaired(text: str) -> Any:
    """Read `text` word by word and write it as JSON: other quotes, unquoted keys, Python's words,
    comments, trailing commas, closers that are missing or one too many."""
    out: list[str] = []
    stack: list[str] = []
    at = 0
    while at < len(text):
        found = lazy(_TOKEN, re.DOTALL | re.VERBOSE).match(text, at)
        if found is None:
            raise ValueError("a string without its end")
        at, kind, token = found.end(), found.lastgroup, found.group()
        if kind == "skip":
            continue
        if kind == "mark":
            if token in "{[":
                stack.append(token)
            elif token in "}]":
                if all(_OPEN_TO_CLOSE[bracket] != token for bracket in stack):
                    continue
                _drop_comma(out)
                while _OPEN_TO_CLOSE[stack[-1]] != token:
                    out.append(_OPEN_TO_CLOSE[stack.pop()])
                stack.pop()
            elif token == "," and (not out or out[-1] in ("{", "[", ",")):
                continue
        else:
            if kind == "word" and out and out[-1] not in ("{", "[", ",", ":", "}", "]"):
                raise ValueError("a word after a value")
            token = _string(token) if kind == "string" else _word(token)
            if out and out[-1] not in ("{", "[", ",", ":"):
                out.append(",")
        if token in ("{", "[") and out and out[-1] not in ("{", "[", ",", ":"):
            out.append(",")
        out.append(token)
    _drop_comma(out)
    out += [_OPEN_TO_CLOSE[bracket] for bracket in reversed(stack)]
    return _json("".join(out))


def _drop_comma(out: list[str]) -> None:
    if out and out[-1] == ",":
        out.pop()


def _string(token: str) -> str:
    body = token[3:-3] if token.startswith('"""') and len(token) > 5 else token[1:-1]
    if token[0] == '"' and not token.startswith('"""'):
        return '"' + _raw_controls(keep_bad_escapes(body)) + '"'
    body = re.sub(r'\\.|"', lambda found: found[0] if found[0] != '"' else '\\"', body, flags=re.DOTALL)
    return '"' + _raw_controls(keep_bad_escapes(body)) + '"'


def _raw_controls(body: str) -> str:
    return re.sub(r"[\x00-\x1f]", lambda found: f"\\u{ord(found[0]):04x}", body)


def _word(token: str) -> str:
    if token.lower() in _WORDS:
        return _WORDS[token.lower()]
    if lazy(_NUMBER).match(token):
        return repr(float(token)) if re.search(r"[.eE]", token) else str(int(token))
    return json.dumps(token)


def _json_repair(text: str) -> Any:
    import json_repair  # noqa: PLC0415 - the last resort, and slow to load

    value = json_repair.loads(text, skip_json_loads=True)
    if value in ("", None):
        raise ValueError("not even with json_repair")
    return value


def unescape_once(text: str) -> str:
    r"""`{\"a\": 1}` -> `{"a": 1}`."""
    value = _STRICT.decode(f'"{text.strip()}"')
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


# -- Python calls


def decode_python(text: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """The calls in `f(1, a=2)` or `[f(), g(b="x")]`: (name, positional, named), literals only."""
    if len(text) > MAX_REPAIR * 4:
        raise ValueError("too long for Python")
    source = lazy(_PYTHON_ESCAPE, re.DOTALL).sub(lambda m: m[0] if m[1] else "\\" + m[0], text.strip())
    try:
        tree = _parsed(source)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        tree = _parse_with_raw_newlines(source)
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_python_call(node) for node in nodes]


_PYTHON_STRING = r'"(?:[^"\\]++|\\.)*+"|\'(?:[^\'\\]++|\\.)*+\''
_PYTHON_WORD = r"\b(true|false|null)\b"
_PYTHON_NAME = {"true": "True", "false": "False", "null": "None"}


def _parse_with_raw_newlines(source: str) -> ast.expr:
    """Once more, with newlines inside strings escaped and JSON's words outside of them read."""
    parts: list[str] = []
    at = 0
    for found in lazy(_PYTHON_STRING, re.DOTALL).finditer(source):
        parts.append(lazy(_PYTHON_WORD).sub(lambda m: _PYTHON_NAME[m[0]], source[at : found.start()]))
        parts.append(re.sub(r"(?<!\\)\n", r"\\n", found.group()))
        at = found.end()
    parts.append(lazy(_PYTHON_WORD).sub(lambda m: _PYTHON_NAME[m[0]], source[at:]))
    try:
        return _parsed("".join(parts))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a Python call") from error


def _python_call(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if not isinstance(node, ast.Call):
        raise ValueError("not a call")
    if isinstance(node.func, ast.Name) and node.func.id == "print" and len(node.args) == 1:
        return _python_call(node.args[0])
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = _literal(keyword.value)
        if keyword.arg is not None:
            named[keyword.arg] = value
        elif isinstance(value, dict):
            named |= value
    return ast.unparse(node.func), [_literal(argument) for argument in node.args], named


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_literal(key) if key is not None else None for key in node.keys]
        return dict(zip(map(str, keys), map(_literal, node.values), strict=True))
    try:
        return _plain(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("an argument is no literal") from error


# -- Gemma


_GEMMA = r'<\|"\|>(.*?)<\|"\|>|<escape>(.*?)<escape>|("(?:[^"\\]++|\\.)*+")|([^<"{}\[\],:]+)|(.)'


def decode_gemma(text: str) -> Any:
    """`{key:<|"|>text<|"|>,n:3}`: strings between marks, keys and other values bare."""
    out: list[str] = []
    for found in lazy(_GEMMA, re.DOTALL).finditer(text):
        marked = found[1] if found[1] is not None else found[2]
        if marked is not None:
            out.append(json.dumps(marked))
        elif found[3]:
            out.append(found[3])
        elif found[4]:
            word = found[4].strip()
            out.append(_word(word) if word else "")
        else:
            out.append(found[5])
    return decode("".join(out))
