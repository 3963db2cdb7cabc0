"""Events as JSON: what the journal stores, `org run --json` prints and an event stream carries.

An event is one flat object, `{"v": 1, "type": "posted", "message": {...}}`; `type` is the class name
in snake case and the other keys are the fields of `org.events`. Decoding is strict: an unknown type, a
missing field or a value of another type is an error that names it. A field with a default may be
missing and unknown ones are ignored, so that adding one of those needs no new version.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from operator import itemgetter
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from org.events import Event

VERSION = 1

_Convert: TypeAlias = Callable[[Any], Any]


class _Misfit(Exception):
    """A value that does not fit; `path` grows from the inside out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path: list[str] = []


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object: dicts, lists, text, numbers, booleans and None only."""
    kind: type = type(event)
    shape = _shape(kind)
    return {"v": VERSION, "type": shape.type, **_write(shape, event)}


def from_json(data: Mapping[str, Any]) -> Event:
    """The event that `to_json` made `data` of. Raises `ValueError` that names what does not fit."""
    try:
        version, name = itemgetter("v", "type")(data)
    except KeyError as error:
        raise ValueError(f"missing field: {error.args[0]}") from None
    if version != VERSION:
        raise ValueError(f"unknown version of an event: {version!r} (this is version {VERSION})")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown type of event: {name!r}")
    try:
        event: Event = _read(_shape(kind), data)
    except _Misfit as misfit:
        raise ValueError(f"{'.'.join([name, *reversed(misfit.path)])}: {misfit}") from None
    return event


def encode(event: Event) -> bytes:
    """The event as JSON for storing: UTF-8, except that lone surrogates, which models do write, are
    kept as the three bytes each that UTF-8 forbids. `decode` gives back the very same event."""
    return _dumps(to_json(event)).encode("utf-8", "surrogatepass")


def decode(data: bytes) -> Event:
    """The event that `encode` made. Raises `ValueError`."""
    value = json.loads(data.decode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise ValueError("an event is a JSON object")
    return from_json(value)


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


# -- how a class is written and read, found once from its fields


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    required: bool
    write: _Convert | None  # None: the value is JSON already
    read: _Convert


@dataclass(frozen=True, slots=True)
class _Shape:
    make: Callable[..., Any]
    type: str
    fields: tuple[_Field, ...]


@cache
def _shape(cls: type) -> _Shape:
    hints = get_type_hints(cls)
    return _Shape(
        make=cls,
        type=type_name(cls),
        fields=tuple(
            _Field(
                field.name,
                field.default is MISSING and field.default_factory is MISSING,
                *_conversion(hints[field.name]),
            )
            for field in fields(cls)
        ),
    )


def type_name(cls: type) -> str:
    """The `type` of an event of that class: `CallFinished` -> `call_finished`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


_TYPES: dict[str, type] = {type_name(cls): cls for cls in get_args(Event)}


def _write(shape: _Shape, value: Any) -> dict[str, Any]:
    return {
        field.name: getattr(value, field.name)
        if field.write is None
        else field.write(getattr(value, field.name))
        for field in shape.fields
    }


def _read(shape: _Shape, data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise _Misfit(f"expected an object, got {_kind(data)}")
    values = {}
    for field in shape.fields:
        if field.name in data:
            try:
                values[field.name] = field.read(data[field.name])
            except _Misfit as misfit:
                misfit.path.append(field.name)
                raise
        elif field.required:
            raise _Misfit(f"missing field: {field.name}")
    return shape.make(**values)


def _conversion(hint: Any) -> tuple[_Convert | None, _Convert]:
    """How a field of that type is written and read."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        shape = _shape(hint)
        return partial(_write, shape), partial(_read, shape)
    if origin is Literal:
        return None, partial(_one_of, args)
    if origin is tuple:
        inner, read = _conversion(args[0])
        length = None if args[-1] is ... else len(args)
        return (list if inner is None else partial(_list, inner)), partial(_tuple, read, length)
    if origin in (Union, UnionType):
        (kind,) = (arg for arg in args if arg is not type(None))
        inner, read = _conversion(kind)
        return (None if inner is None else partial(_optional, inner)), partial(_optional, read)
    if origin is not None:
        assert issubclass(origin, Mapping), f"no JSON for {hint}"
        return dict, partial(_instance, (dict,))
    return None, {float: _number, int: _whole}.get(hint, partial(_instance, (hint,)))


def _list(convert: _Convert, values: Any) -> list[Any]:
    return [convert(value) for value in values]


def _optional(convert: _Convert, value: Any) -> Any:
    return None if value is None else convert(value)


def _tuple(read: _Convert, length: int | None, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise _Misfit(f"expected a list{'' if length is None else f' of {length}'}, got {_kind(value)}")
    return tuple(read(item) for item in value)


def _one_of(words: tuple[Any, ...], value: Any) -> Any:
    if value not in words:
        raise _Misfit(f"expected one of {', '.join(words)}; got {value!r}")
    return value


def _instance(kinds: tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kinds):
        raise _Misfit(f"expected {_NAMES[kinds[0]]}, got {_kind(value)}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Misfit(f"expected a whole number, got {_kind(value)}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Misfit(f"expected a number, got {_kind(value)}")
    return float(value)


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
