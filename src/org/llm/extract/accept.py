"""Is it a call? What an envelope says, and the guards that decide; every verdict has a reason. Pure."""

from __future__ import annotations

import re
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


# -- what stands around it

_LAST_SENTENCE = r"[.!?](?:[\"')\]*_]*)\s+(?=\S)"
_EXAMPLE = r"""
    \bfor[ ](?:example|instance)\b | 例如 | 比如 | 示例 | 例子
  | \b(?:e\.?g\.?|i\.?e\.?|such[ ]as|namely),?\s*:?\s*\Z
  | \A\W*(?:an?[ ])?examples?(?:\s+(?:\#?\d+|of\b.*|\w+))?\W*\Z
  | \bexamples?\s*(?:\#?\d+|[A-Z])?\s*[:：]
  | \A\W*(?:usage|syntax|format|template|sample|demo|schema|spec|(?:in)?valid|(?:in)?correct
    | wrong|right|good|bad|expected)\b[^.:]{0,24}[:：]\W*\Z
  | \b(?:would|could|might|should)[ ](?:not[ ])?have[ ]\w+
  | \b(?:message|output|reply|response|request|answer|call|prompt|line|payload|body|text|string)[ ]
    (?:was|were|contained|said)\s*[:：]?\s*\Z
  | \A(?!.*\b(?:I|let[ ]me|we)\b).*\b(?:in|from|of)[ ]the[ ]
    (?:docs?|documentation|readme|manual|guide|tutorial|spec\w*|logs?|transcript)\b[^.]{0,30}[:：]\s*\Z
  | \A(?!.*\b(?:I|let[ ]me|we)\b).*\bto[ ](?:call|use|invoke|run)\b[^.]{0,80}
    \b(?:output|emit|write|send|respond|reply|print|format|return|provide|put|type)\b[^.]*\Z
  | \bif[ ](?:you|it|(?:the|a)[ ]\w+)[ ]
    (?:see|write|type|paste|send|emit|output|print|return)s?\b[^.:]{0,20}\Z
  | \b(?:like|writes|emits|prints|outputs|sends|produces|generates|trained[ ]to[ ]\w+)\s*\Z
  | \A\W*[\w.\-]+[ ]format\s*[:：]\s*\Z
  | \b(?:example|sample|hypothetical|illustrative|fictional|template)[ ]
    (?:of|tool|function|call|calls|invocation|json|usage|request|response|reply|payload|message)\b
  | \A\W*(?:imagine|suppose|assume|pretend)\b
  | \billustrat(?:e|es|ion|ing|ive)\b | \bhypothetical(?:ly)?\b
  | \b(?:would|might|could|should|must|can|may|will)[ ](?:\w+ly[ ]|then[ ]|just[ ]|also[ ])?
    (?:look[ ](?:something[ ])?like | look\s*[:：]?\s*\Z
      | be[ ](?:written|formatted|encoded|expressed|called[ ](?:like|with|as|by)))
  | \b(?:look|looks|written|formatted|something|structured|encoded|it[ ]is|used)[ ]like
    (?:[ ](?:this|so|that|these|the[ ]following))?\s*[:：.]?\s*\Z
"""
# Said of somebody's calls, and not as the end of a sentence after which one is made.
_ABOUT_CALLS = r"""
    \b(?:the|this|following|correct|right|proper|expected|required|exact|tool|calls?|calling|function|json)[ ]
    (?:format|syntax|notation|convention|form|schema|shape|template|structure)\s*
    (?:is\b|looks\b|would\b|for\b|to\b|of\b|used\b|[:：])
  | \b(?:you|one|people|users?|models?|the[ ]assistant|an?[ ]agent|agents|an?[ ]llm|llms|the[ ]model)[ ]
    (?:can|could|would|should|must|might|may|have[ ]to|need[ ]to|will)[ ]
    (?:\w+ly[ ]|then[ ]|just[ ]|also[ ])?
    (?:call|use|write|emit|send|invoke|output|print|type|produce|generate|respond|reply|issue|request|make|return)\b
  | \b(?:never|not|don['’]t|mustn['’]t|shouldn['’]t)[ ](?:\w+[ ])?
    (?:call|emit|output|write|send|invoke|run|execute)\b
  | \b(?:is|are|gets?|was|were)[ ](?:usually[ ]|often[ ]|typically[ ])?
    (?:written|encoded|represented|expressed|formatted|serialized|serialised|rendered|spelled)\b
  | (?<!as[ ])(?<!as[ ]the[ ])\b(?:model|assistant|user|log|logs|agent|bot|transcript|it|he|she|they|you)[ ]
    (?:then[ ]|had[ ]|once[ ]|previously[ ]|earlier[ ])?
    (?:wrote|said|printed|emitted|output|logged|sent|replied|answered|produced|called|used|typed)
    (?:[ ](?:this|that|the[ ]following|something[ ]like))?\s*[:：]?\s*\Z
"""
_QUOTED_LINE = r"(?:\A|\n)[ \t]*(?:>|\|)[^\n]*\Z"
_MARKUP = (
    r"<(/?)(examples?|samples?|samp|code|pre|blockquote|quote|docs?|documents?|documentation|tool_response|tool_result"
    r"|function_results?|results?|output|observation|logs?|history|transcript|comment)\b[^<>]*>"
)
_TRANSCRIPT = r"^(?:user|human|customer|q)\s*:.*^(?:assistant|ai|model|bot|agent|a)\s*:[^\n]*\Z"
_OF_DATA = r"""["'“‘«「『\\A-Za-z0-9_(\])]\Z|=\s*\Z|["']\s*:\s*\Z"""
_RESULT = (
    r"^\W*(?:observation|results?|tool (?:result|output|response)|stdout|stderr|logs?|returned)"
    r"\b[^\n:]{0,20}:\s*\Z"
)
_LOG_LINE = r"(?:\A|\n)\W{0,4}(?:\d{4}-\d\d-\d\d|\d\d:\d\d|(?:INFO|DEBUG|ERROR|WARN(?:ING)?|TRACE)\b)[^\n]*\Z"
_GOES_ON = r"[ \t]{0,64}[a-z,)?'’]"


def guard(before: str, after: str, *, marked: bool) -> str:
    """Why something between the texts `before` and `after` is not meant as a call; empty when it may be.

    `before` is the end of the visible text so far; `after` need not hold more than the next character
    that is not blank. `marked`: it starts with a mark of its own.
    """
    line = before[before.rfind("\n") + 1 :]
    if line.count("`") % 2:
        return "inline code"
    tags = list(lazy(_MARKUP, re.IGNORECASE).finditer(before))
    if tags and not tags[-1][1]:
        return "inside `" + tags[-1].group() + "`"
    if before.rfind("<!--") > before.rfind("-->"):
        return "in a comment"
    if lazy(_QUOTED_LINE).search(before):
        return "in a quotation"
    if lazy(_TRANSCRIPT, re.IGNORECASE | re.MULTILINE | re.DOTALL).search(before):
        return "in a transcript"
    if lazy(_LOG_LINE).search(before):
        return "a line of a log"
    if after.lstrip(" ")[:1] == "?":
        return "in a question"
    if not marked:
        if lazy(_OF_DATA).search(before):
            return "a part of other text"
        if lazy(_RESULT, re.IGNORECASE | re.MULTILINE).search(before):
            return "a result"
        if lazy(_GOES_ON).match(after):
            return "in the middle of a sentence"
    if is_example(before):
        return "presented as an example"
    return ""


def guard_list(before: str, after: str) -> str:
    """Why a list of Python calls is none, as far as that is asked of it only: manuals are named so.
    `after` is the next character."""
    if after in ("(", ":"):
        return "a link"
    if after in (".", ";", "!") and lazy(r"\w \Z").search(before):
        return "in the middle of a sentence"
    return ""


def is_example(before: str) -> bool:
    """Whether the sentence that leads up to it speaks about a call instead of making one."""
    lead = before.rstrip().rstrip("*_")
    if not lead:
        return False
    paragraph = lead[lead.rfind("\n") + 1 :]
    sentence = lazy(_LAST_SENTENCE).split(paragraph.replace("e.g.", "eg").replace("E.g.", "eg"))[-1]
    flags = re.IGNORECASE | re.VERBOSE
    if lazy(_EXAMPLE, flags).search(sentence):
        return True
    return sentence[-1:] not in (".", "!", "?") and bool(lazy(_ABOUT_CALLS, flags).search(sentence))


def placeholder(arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments are only stand-ins, as in a format's description."""
    texts = [value for value in arguments.values() if isinstance(value, str)]
    return (
        bool(texts)
        and len(texts) == len(arguments)
        and all(lazy(_PLACEHOLDER).fullmatch(t.strip()) for t in texts)
    )


_PLACEHOLDER = r"\.\.\.|…|<[a-z][\w \-]*>|\{[a-z]\w*\}|\[[a-z][\w ]*\]"
