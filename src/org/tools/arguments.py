"""The arguments of a call against the tool's own schema. Pure.

Covers what the tools here declare: an object of strings and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from org.errors import UsageError
from org.tooling import ToolCall, ToolSpec


def checked(call: ToolCall, spec: ToolSpec) -> Mapping[str, Any]:
    """The arguments, numbers as `float`; a number written as a string is taken for the number.

    Raises `UsageError` that says what is wrong and what was expected.
    """
    properties: Mapping[str, Mapping[str, Any]] = spec.parameters["properties"]
    expected = f"expected {signature(spec)}"
    if call.error:
        raise UsageError(f"{call.error}; {expected}")
    for name in call.arguments:
        if name not in properties:
            raise UsageError(f"`{name}` is no argument of {spec.name}; {expected}")
    for name in spec.parameters["required"]:
        if name not in call.arguments:
            raise UsageError(f"`{name}` is missing; {expected}")
    return {
        name: _text(name, value, expected)
        if properties[name]["type"] == "string"
        else _number(name, value, expected)
        for name, value in call.arguments.items()
        if value is not None or name in spec.parameters["required"]
    }


def signature(spec: ToolSpec) -> str:
    """As in `sh(cmd: string, timeout_s?: number)`."""
    required = spec.parameters["required"]
    words = (
        f"{name}{'' if name in required else '?'}: {schema['type']}"
        for name, schema in spec.parameters["properties"].items()
    )
    return f"{spec.name}({', '.join(words)})"


def _text(name: str, value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"`{name}` must be a string, not {_kind(value)}; {expected}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"`{name}` holds half a character (U+{ord(value[error.start]):04X})") from error
    if "\0" in value:
        raise UsageError(f"`{name}` holds a zero character")
    return value


def _number(name: str, value: object, expected: str) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not (math.isfinite(number) and number > 0):
        shown = repr(value) if isinstance(value, int | float | str) else _kind(value)
        raise UsageError(f"`{name}` must be a positive number, not {shown[:40]}; {expected}")
    return number


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list | tuple) else "an object"
