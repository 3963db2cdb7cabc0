"""Is it a call? What its envelope says; every verdict has a reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from org.llm.extract.decode import decode
from org.llm.extract.formats import PARALLEL
from org.llm.extract.patterns import lazy


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool that may be called: the schemas of its arguments, and those it cannot do without."""

    name: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]

    @property
    def single(self) -> str:
        """The one argument that a plain text can stand for, or empty."""
        keys = self.required if len(self.required) == 1 else tuple(self.properties)
        return keys[0] if len(keys) == 1 else ""


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    arguments: dict[str, Any]


class Refused(Exception):
    """It is no call; the message says why."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The declared tools by name."""

    tools: Mapping[str, Declared] = field(default_factory=dict)

    def named(self, written: Any) -> Declared:
        """The tool that a model means by `written`: blanks and prefixes are forgiven."""
        if not isinstance(written, str):
            raise Refused("the name of the tool is no text")
        name = written.strip().strip("`\"'")
        for candidate in (
            name,
            lazy(_PREFIX).sub("", name),
            lazy(_INDEX).sub("", lazy(_PREFIX).sub("", name)),
        ):
            if candidate in self.tools:
                return self.tools[candidate]
        raise Refused(f"no tool is called `{name[:60]}`")


_PREFIX = r"\A\$?(?:functions?|tools?|default_api|api)[.:/]\s*"
_INDEX = r":\d+\Z"


def toolbox(tools: Sequence[Mapping[str, Any]]) -> Toolbox:
    """`tools` are OpenAI tool schemas, their `function` objects, or those with an `input_schema`."""
    declared = {}
    for tool in tools:
        inner = tool.get("function")
        function = inner if isinstance(inner, Mapping) else tool
        name = function.get("name")
        if not isinstance(name, str) or not name.strip():
            continue
        schema = function.get("parameters", function.get("input_schema"))
        parameters = schema if isinstance(schema, Mapping) else {}
        properties, required = parameters.get("properties"), parameters.get("required")
        declared[name] = Declared(
            name,
            properties if isinstance(properties, Mapping) else {},
            tuple(filter(_is_text, required)) if isinstance(required, list | tuple) else (),
        )
    return Toolbox(declared)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# -- envelopes

_NAMES = ("name", "tool_name", "tool", "function_name", "function", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "action_input", "input", "tool_input", "params", "kwargs")
_LISTS = ("tool_calls", "tool_uses", "function_calls")
_NESTED = ("function_call", "tool_call", "function", "action", "tool_use")
_NOT_BESIDE_A_CALL = frozenset(
    (
        "description",
        "result",
        "results",
        "output",
        "response",
        "error",
        "returns",
        "exit_code",
        "timestamp",
        "duration",
    )
)
MAX_UNWRAP = 3


def calls_in(value: Any, box: Toolbox, *, strict: bool) -> list[Found]:
    """The calls that a decoded value holds. Raises `Refused` when it is something else.

    `strict` is for text without marks: then a name without arguments is no call, and an object that
    also holds a result or a description is a record of something.
    """
    for _ in range(MAX_UNWRAP):
        if not isinstance(value, str):
            break
        value = _decoded(value)
    if isinstance(value, list):
        return _calls_in_list(value, box, strict=strict)
    if not isinstance(value, Mapping):
        raise Refused("neither an object nor a list")
    if is_schema(value):
        raise Refused("a tool's schema")
    if value.get("role") not in (None, "assistant"):
        raise Refused("a chat message")
    for key in _LISTS:
        inner = value.get(key)
        if isinstance(inner, list | Mapping):
            return calls_in(inner, box, strict=False)
    for key in _NESTED:
        inner = value.get(key)
        if isinstance(inner, Mapping) and _name_key(inner):
            return calls_in(inner, box, strict=False)
    return _calls_in_object(value, box, strict=strict)


def _calls_in_list(values: list[Any], box: Toolbox, *, strict: bool) -> list[Found]:
    if any(isinstance(value, Mapping) and "role" in value and "content" in value for value in values):
        raise Refused("a list of chat messages")
    found: list[Found] = []
    reason = Refused("an empty list")
    for value in values:
        if not isinstance(value, Mapping):
            raise Refused("a list of other things")
        if is_schema(value):
            raise Refused("a list of tool schemas")
        try:
            found += calls_in(value, box, strict=strict)
        except Refused as why:
            reason = why
    if not found:
        raise reason
    return found


def _calls_in_object(value: Mapping[str, Any], box: Toolbox, *, strict: bool) -> list[Found]:
    name_key = _name_key(value)
    arguments_key = next((key for key in _ARGUMENTS if key in value), "")
    if not name_key:
        only = next(iter(value)) if len(value) == 1 else ""
        if not strict and only in box.tools and isinstance(value[only], Mapping):
            return [Found(only, dict(value[only]))]
        raise Refused("an object that names no tool")
    inner = value.get(arguments_key)
    if value[name_key] == PARALLEL and isinstance(inner, Mapping):
        return calls_in(inner, box, strict=False)
    tool = box.named(value[name_key])
    if not arguments_key:
        if strict or tool.required:
            raise Refused("a name without arguments")
        return [Found(tool.name, {})]
    if strict and not _NOT_BESIDE_A_CALL.isdisjoint(value):
        raise Refused("a record that holds more than a call")
    arguments = arguments_of(
        value[arguments_key], tool, plain=arguments_key in ("action_input", "tool_input")
    )
    if "properties" not in tool.properties and is_schema({"parameters": arguments}):
        raise Refused("a tool's schema")
    return [Found(tool.name, arguments)]


def _name_key(value: Mapping[str, Any]) -> str:
    return next((key for key in _NAMES if isinstance(value.get(key), str)), "")


def is_schema(value: Mapping[str, Any]) -> bool:
    """Whether an object declares a tool rather than calls one."""
    function = value.get("function")
    if isinstance(function, Mapping) and is_schema(function):
        return True
    for key in ("parameters", "input_schema", "inputSchema", "arguments"):
        inner = value.get(key)
        if not isinstance(inner, Mapping) or inner.get("type") not in (None, "object"):
            continue
        if isinstance(inner.get("properties"), Mapping):
            return True
    return False


def arguments_of(value: Any, tool: Declared, *, plain: bool = False) -> dict[str, Any]:
    """The arguments as an object: they may be written as a string, up to three times over.

    `plain`: a text that is no object is the only argument that the tool has.
    """
    text = value
    for _ in range(MAX_UNWRAP):
        if not isinstance(value, str):
            break
        if not value.strip():
            value = {}
            break
        try:
            value = decode(value)
        except ValueError:
            break
    if value is None or value == []:
        value = {}
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]
    if isinstance(value, Mapping):
        return dict(value)
    if plain and tool.single:
        return {tool.single: text}
    raise Refused("the arguments are no object")


def _decoded(text: str) -> Any:
    try:
        return decode(text)
    except ValueError as error:
        raise Refused("neither JSON nor anything like it") from error


def placeholder(arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments are only stand-ins, as in a format's description."""
    texts = [value for value in arguments.values() if isinstance(value, str)]
    return (
        bool(texts)
        and len(texts) == len(arguments)
        and all(lazy(_PLACEHOLDER).fullmatch(t.strip()) for t in texts)
    )


_PLACEHOLDER = r"\.\.\.|…|<[a-z][\w \-]*>|\{[a-z]\w*\}|\[[a-z][\w ]*\]"
