"""Values by the types of a tool's schema: what the text between two tags stands for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from org.llm.extract.decode import decode


def typed(text: str, schema: Any, declared: str | None = None) -> Any:
    """The value of a tag's text. It is a string, unless the schema of its parameter (or, without
    one, the format: `declared`) says something else and it reads as that.

    A line break after the opening tag is not part of it, nor is then the one before the closing tag.
    """
    if text.startswith("<![CDATA[") and text.endswith("]]>"):
        return text[9:-3]
    opening = re.match(r"\r?\n", text)
    body = re.sub(r"\r?\n[ \t]*\Z", "", text[opening.end() :]) if opening else text
    types = schema_types(schema)
    if not types and declared is not None:
        types = [declared]
    stripped = body.strip()
    for kind in types:
        if kind in ("string", "str", "text", "enum"):
            return body
        try:
            value = _typed(stripped, kind)
        except ValueError:
            continue  # not of this type: another one of the schema's, or a string
        return value
    return body


def schema_types(schema: Any) -> list[str]:
    """The JSON types a schema allows, those that a text is tried as first: `string` last."""
    if not isinstance(schema, Mapping):
        return []
    kind = schema.get("type")
    types = (
        [kind]
        if isinstance(kind, str)
        else [t for t in kind if isinstance(t, str)]
        if isinstance(kind, Sequence)
        else []
    )
    for word in ("anyOf", "oneOf", "allOf"):
        options = schema.get(word)
        for option in options if isinstance(options, Sequence) else ():
            types += schema_types(option)
    if not types and isinstance(schema.get("enum"), Sequence):
        types = ["string"] if all(isinstance(v, str) for v in schema["enum"]) else ["any"]
    if not types and "properties" in schema:
        types = ["object"]
    return sorted(types, key=lambda t: t == "string")


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def fits(value: Any, schema: Any) -> bool:
    """Whether a value is of a type that the schema allows; true for types that are not JSON's."""
    types = schema_types(schema)
    if not types or any(kind not in _KINDS for kind in types):
        return True
    return any(
        isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "boolean") for kind in types
    )


def _typed(text: str, kind: str) -> Any:
    lowered = text.lower()
    if kind in ("integer", "int"):
        number = float(text)
        if number != int(number):
            raise ValueError("not a whole number")
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else int(number)
    if kind in ("number", "float"):
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else _finite(text)
    if kind in ("boolean", "bool"):
        if lowered not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError("not a boolean")
        return lowered in ("true", "1", "yes")
    if kind == "null":
        if lowered not in ("null", "none", ""):
            raise ValueError("not null")
        return None
    value = decode(text)
    if kind in ("array", "list") and not isinstance(value, list):
        raise ValueError("not an array")
    if kind in ("object", "dict") and not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("not a number")
    return number
