"""The formats in which models write calls: one row each. Pure data; `docs/formats.md` shows how to
add one.

A row says which literals start it (`open`), what follows until the arguments (`head`), how those
are written (`grammar`), what stands before the arguments of a further call in the same wrapper
(`header`), and which literals may close it (`closers`; all of them optional, since models forget
them). Rows that share an opening are tried in the order of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from org.llm.extract.patterns import BLANK, Element, Part, ahead, beginnings, capture, chars, either, maybe

Grammar: TypeAlias = Literal["json", "tagged", "python", "gemma", "line"]


@dataclass(frozen=True, slots=True)
class Tags:
    """How arguments between tags look: what opens one (with its key captured), the literal that this
    begins with, what closes one (`{key}` stands for its key), and what opens and closes the call."""

    parameter: tuple[Element, ...]
    mark: str
    value_close: str
    call_opens: tuple[str, ...]
    call_closes: tuple[str, ...]
    only_keys: bool = False  # only the keys of the tool's schema are tags


@dataclass(frozen=True, slots=True)
class Format:
    """One row. `{tool}` in `open` and the element `TOOL` stand for each declared name.

    `whole`: the arguments begin with the opening itself. `marked`: the opening is written for
    nothing but calls, so less is asked of what it holds. `line_start`: only there it counts.
    """

    name: str
    open: tuple[str, ...]
    head: tuple[Element, ...]
    grammar: Grammar = "json"
    closers: tuple[str, ...] = ()
    header: tuple[Element, ...] | None = None
    tags: Tags | None = None
    whole: bool = False
    marked: bool = True
    line_start: bool = False


TOOL = Part("{tool}", "{tool-begins}")  # replaced by the declared names
VALUE = Part("(?P<value>)", "")  # the arguments begin here (otherwise: where the head ends)
NAME = capture("name", chars(r"\w.\-:/$ ", 1, 128))
QUOTE = chars("\"'“”‘’\\\\", 0, 2)
# JSON, or JSON in a string; a quote that begins neither closes a quotation of the opening.
_JSON_AHEAD = Part(r"(?=[{\[]|[\"'“‘\\]{1,8}[{\[])", r"[\"'“‘\\]{0,8}")
JSON_START = (BLANK, _JSON_AHEAD)
OBJECT_START = (BLANK, ahead(r"{"))
SEPARATED = (BLANK, maybe(either(",", ";")), *JSON_START)
PREFIX = maybe(either("functions.", "default_api.", "tools.", "api."))
_JOINED = (BLANK, either(";", ","), *JSON_START)
PARALLEL = "multi_tool_use.parallel"  # a name under which several calls are made at once
FENCE = maybe("```", maybe(either("json", "JSON")))

# What may follow a call and is never meant to be read.
END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|assistant_end|>",
    "<|header_end|>",
    "<|observation|>",
    "<|user|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|close|>message<|sep|>",
    "<|tool_response>",
    "<|tool_response|>",
    "<start_function_response>",
    "<end_of_turn>",
    "<end_code>",
    "<|end_of_role|>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "<|end▁of▁sentence|>",
)


def _tag(*names: str) -> tuple[str, ...]:
    return tuple(f"<{name}>" for name in names)


def _closing(*names: str) -> tuple[str, ...]:
    return tuple(f"</{name}>" for name in names)


# What opens and closes thinking. The closing mark is the last of each row.
THINKING = (
    *((f"<{tag}>", f"</{tag}>") for tag in ("think", "thinking", "thought", "reasoning", "reflection")),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)

# -- tags around JSON

_HERMES = (
    "tool_call",
    "function_call",
    "functioncall",
    "longcat_tool_call",
    "tool",
    "tool_use",
    "tool_request",
    "toolcall",
    "TOOLCALL",
    "TOOL_CALL",
    "tool_calls",
    "function_calls",
    "tools",
    "seed:tool_call",
    "minimax:tool_call",
    "action",
)
_HERMES_CLOSE = _closing(*_HERMES)

# -- tagged values

_CALL_TAGS = ("<tool_call>", "<tool_calls>", "<seed:tool_call>", "<function_calls>", "<minimax:tool_call>")
_CALL_TAGS_CLOSE = tuple(f"</{tag[1:]}" for tag in _CALL_TAGS)
_KEY = capture("key", chars(r"\w.\-", 1, 128))
_LOOSE_KEY = capture("key", chars(r"^<>\n", 1, 128))
_ATTRIBUTES = chars(r"^<>\n", 0, 80)

_CODER_TAGS = Tags(
    parameter=(BLANK, "<parameter=", QUOTE, _KEY, QUOTE, ">"),
    mark="<parameter=",
    value_close="</parameter>",
    call_opens=("<function=",),
    call_closes=("</function>",),
)
_CODER_CALL: tuple[Element, ...] = ("<function=", QUOTE, NAME, QUOTE, ">")
_PARAM_TAGS = Tags(
    parameter=(BLANK, "<param name=", QUOTE, _KEY, QUOTE, _ATTRIBUTES, ">"),
    mark="<param name=",
    value_close="</param>",
    call_opens=("<function name=",),
    call_closes=("</function>",),
)
_PARAMETER_TAGS = Tags(
    parameter=(BLANK, "<parameter name=", QUOTE, _KEY, QUOTE, _ATTRIBUTES, ">"),
    mark="<parameter name=",
    value_close="</parameter>",
    call_opens=("<function name=",),
    call_closes=("</function>",),
)
_GLM_TAGS = Tags(
    parameter=(BLANK, "<arg_key>", _LOOSE_KEY, "</arg_key>", BLANK, "<arg_value>"),
    mark="<arg_key>",
    value_close="</arg_value>",
    call_opens=("<tool_call>",),
    call_closes=("</tool_call>",),
)
_K3_CALL: tuple[Element, ...] = (
    '<|open|>call tool="',
    NAME,
    '"',
    chars(r"^<\n", 0, 80),
    "<|sep|>",
)
_K3_TAGS = Tags(
    parameter=(
        BLANK,
        '<|open|>argument key="',
        capture("key", chars(r'^"<\n', 1, 128)),
        '"',
        maybe(' type="', capture("type", chars(r"\w", 1, 16)), '"'),
        chars(r"^<\n", 0, 40),
        "<|sep|>",
    ),
    mark="<|open|>argument",
    value_close="<|close|>argument<|sep|>",
    call_opens=("<|open|>call",),
    call_closes=("<|close|>call<|sep|>",),
)
_XML_TAGS = Tags(
    parameter=(BLANK, "<", _KEY, ">"),
    mark="<",
    value_close="</{key}>",
    call_opens=(),
    call_closes=("</{tool}>",),
    only_keys=True,
)


def _invoke(prefix: str) -> tuple[tuple[Element, ...], Tags]:
    """`<invoke name=..><parameter name=..>`, as the name spaces of several models write it."""
    call: tuple[Element, ...] = (f"<{prefix}invoke name=", QUOTE, NAME, QUOTE, _ATTRIBUTES, ">")
    tags = Tags(
        parameter=(
            BLANK,
            f"<{prefix}parameter name=",
            QUOTE,
            _KEY,
            QUOTE,
            chars(r"\s", 0, 8),
            maybe("string=", QUOTE, capture("type", either("true", "false")), QUOTE),
            maybe("type=", QUOTE, chars(r"\w", 0, 16), QUOTE),
            ">",
        ),
        mark=f"<{prefix}parameter name=",
        value_close=f"</{prefix}parameter>",
        call_opens=(f"<{prefix}invoke name=",),
        call_closes=(f"</{prefix}invoke>",),
    )
    return call, tags


_INVOKE, _INVOKE_TAGS = _invoke("")
_DSML, _DSML_TAGS = _invoke("｜DSML｜")
_ANTML, _ANTML_TAGS = _invoke("antml:")
_STEPTML, _STEPTML_TAGS = _invoke("steptml:")


def _rows_of_tags() -> list[Format]:
    rows = [
        Format(
            "llama-function",
            ("<function=",),
            (QUOTE, NAME, QUOTE, maybe(">"), *OBJECT_START),
            closers=("</function>", "<function>", "</tool_call>"),
        ),
        Format(
            "llama-function",
            ("<tool_call>",),
            (BLANK, "<function=", QUOTE, NAME, QUOTE, maybe(">"), *OBJECT_START),
            closers=("</function>", "</tool_call>"),
        ),
        Format(
            "qwen-coder",
            _CALL_TAGS,
            (BLANK, *_CODER_CALL),
            "tagged",
            _CALL_TAGS_CLOSE,
            (BLANK, *_CODER_CALL),
            _CODER_TAGS,
        ),
        Format(
            "qwen-coder",
            ("<function=",),
            (QUOTE, NAME, QUOTE, ">"),
            "tagged",
            _CALL_TAGS_CLOSE,
            (BLANK, *_CODER_CALL),
            _CODER_TAGS,
        ),
        Format(
            "glm",
            ("<tool_call>",),
            (BLANK, NAME, BLANK, ahead("<")),
            "tagged",
            ("</tool_call>",),
            tags=_GLM_TAGS,
        ),
    ]
    for tags in (_PARAM_TAGS, _PARAMETER_TAGS):
        call: tuple[Element, ...] = (QUOTE, NAME, QUOTE, _ATTRIBUTES, ">")
        rows.append(
            Format(
                "minicpm",
                ("<function name=",),
                (*call, BLANK, either((ahead("<"),))),
                "tagged",
                _CALL_TAGS_CLOSE,
                tags=tags,
            )
        )
        rows.append(
            Format(
                "minicpm",
                _CALL_TAGS,
                (BLANK, "<function name=", *call, BLANK, ahead("<")),
                "tagged",
                _CALL_TAGS_CLOSE,
                (BLANK, "<function name=", *call),
                tags,
            )
        )
    for name, opens, closes, call, tags in (
        ("invoke", _CALL_TAGS, _CALL_TAGS_CLOSE, _INVOKE, _INVOKE_TAGS),
        (
            "invoke",
            ("<function_calls>", "<function_calls>"),
            ("</function_calls>", "</function_calls>"),
            _ANTML,
            _ANTML_TAGS,
        ),
        (
            "deepseek-dsml",
            ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
            ("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
            _DSML,
            _DSML_TAGS,
        ),
    ):
        bare = str(call[0])
        rows.append(Format(name, opens, (BLANK, *call), "tagged", closes, (BLANK, *call), tags))
        rows.append(Format(name, (bare,), call[1:], "tagged", closes, (BLANK, *call), tags))
    return rows


def _rows_of_deepseek() -> list[Format]:
    """The tokens are written with a full-width bar and a low line; some servers write plain ones."""
    rows = []
    for bar, gap in (("｜", "▁"), ("|", "▁"), ("｜", "_"), ("|", "_")):
        begin_all, end_all = f"<{bar}tool{gap}calls{gap}begin{bar}>", f"<{bar}tool{gap}calls{gap}end{bar}>"
        begin, end = f"<{bar}tool{gap}call{gap}begin{bar}>", f"<{bar}tool{gap}call{gap}end{bar}>"
        separator = f"<{bar}tool{gap}sep{bar}>"
        closers = ("```", end, end_all)
        step: tuple[Element, ...] = (BLANK, "function", BLANK, separator, BLANK, *_STEPTML)
        third: tuple[Element, ...] = (BLANK, "function", BLANK, separator, NAME, BLANK, FENCE, *OBJECT_START)
        later: tuple[Element, ...] = (BLANK, NAME, BLANK, separator, BLANK, FENCE, *OBJECT_START)
        for name, call in (("deepseek-v3", third), ("deepseek-v3.1", later)):
            header = (BLANK, begin, *call)
            rows.append(Format(name, (begin_all,), header, "json", closers, header))
            rows.append(Format(name, (begin,), call, "json", closers, header))
        header = (BLANK, maybe(separator, BLANK), begin, *step)
        rows.append(Format("step3", (begin_all,), header, "tagged", (end, end_all), header, _STEPTML_TAGS))
        rows.append(Format("step3", (begin,), step, "tagged", (end, end_all), header, _STEPTML_TAGS))
    rows.append(Format("step3", (str(_STEPTML[0]),), _STEPTML[1:], "tagged", (), None, _STEPTML_TAGS))
    return rows


def _rows_of_tokens() -> list[Format]:
    """Special tokens around JSON, a Python call or Gemma's notation."""
    python: tuple[Element, ...] = (
        BLANK,
        VALUE,
        maybe("["),
        BLANK,
        PREFIX,
        TOOL,
        maybe(".call"),
        chars(" ", 0, 2),
        "(",
    )
    kimi: tuple[Element, ...] = (BLANK, NAME, BLANK, "<|tool_call_argument_begin|>", *OBJECT_START)
    kimi_next = (BLANK, "<|tool_call_begin|>", *kimi)
    kimi_opens = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>")
    kimi_closers = ("<|tool_call_end|>", "<|tool_calls_section_end|>", "<|tool_call_section_end|>")
    k3_json: tuple[Element, ...] = (BLANK, *_K3_CALL, *OBJECT_START)
    k3_closers = ("<|close|>call<|sep|>", "<|close|>tools<|sep|>")
    constrain = (BLANK, maybe("<|constrain|>"), chars(r"\w", 0, 16), BLANK, "<|message|>", *JSON_START)
    nothing = (*constrain[:-2], BLANK, Part(r"(?=<\|call\|>)", beginnings("<|call|>")))
    channel = either("commentary", "analysis", "final")
    gemma: tuple[Element, ...] = (BLANK, "call:", BLANK, NAME, *OBJECT_START)
    gemma_closers = ("<tool_call|>", "<end_function_call>", "<|tool_call|>")
    mistral_next: tuple[Element, ...] = (
        BLANK,
        maybe("[TOOL_CALLS]"),
        BLANK,
        NAME,
        BLANK,
        maybe("[CALL_ID]", chars(r"\w\-", 0, 64)),
        maybe("[ARGS]"),
        *OBJECT_START,
    )
    return [
        Format("kimi-k2", kimi_opens, kimi_next, "json", kimi_closers, kimi_next),
        Format("kimi-k2", ("<|tool_call_begin|>",), kimi, "json", kimi_closers, kimi_next),
        Format("kimi-k3", ("<|open|>tools<|sep|>",), k3_json, "json", k3_closers, k3_json),
        Format(
            "kimi-k3", ('<|open|>call tool="',), (*_K3_CALL[1:], *OBJECT_START), "json", k3_closers, k3_json
        ),
        Format(
            "kimi-k3",
            ("<|open|>tools<|sep|>",),
            (BLANK, *_K3_CALL),
            "tagged",
            ("<|close|>tools<|sep|>",),
            (BLANK, *_K3_CALL),
            _K3_TAGS,
        ),
        Format(
            "kimi-k3",
            ('<|open|>call tool="',),
            _K3_CALL[1:],
            "tagged",
            ("<|close|>tools<|sep|>",),
            (BLANK, *_K3_CALL),
            _K3_TAGS,
        ),
        Format(
            "harmony",
            ("<|channel|>",),
            (channel, BLANK, "to=", NAME_WITHOUT_BLANK, *constrain),
            closers=("<|call|>", "<|end|>", "<|return|>"),
        ),
        Format(
            "harmony",
            ("<|channel|>",),
            (channel, BLANK, "to=", NAME_WITHOUT_BLANK, *nothing),
            closers=("<|call|>",),
        ),
        Format(
            "harmony",
            ("<|start|>assistant",),
            ("<|channel|>", channel, BLANK, "to=", NAME_WITHOUT_BLANK, *constrain),
            closers=("<|call|>", "<|end|>", "<|return|>"),
        ),
        Format(
            "harmony",
            ("<|start|>assistant",),
            (BLANK, "to=", NAME_WITHOUT_BLANK, "<|channel|>", channel, *constrain),
            closers=("<|call|>", "<|end|>", "<|return|>"),
        ),
        Format("gemma", ("<|tool_call>", "<start_function_call>"), gemma, "gemma", gemma_closers, gemma),
        Format(
            "pythonic",
            ("<|python_start|>", "<|tool_call_start|>", "<|python_tag|>", "<tool_call>", "<|tool_call|>"),
            python,
            "python",
            ("]", "<|python_end|>", "<|tool_call_end|>", "</tool_call>"),
            (BLANK, maybe(either(";", ",")), *python),
        ),
        Format("llama-3", ("<|python_tag|>",), JSON_START, header=SEPARATED),
        Format("mistral", ("[TOOL_CALLS]",), (BLANK, ahead(r"\[{")), closers=("[/TOOL_CALLS]",)),
        Format("mistral", ("[TOOL_CALLS]",), mistral_next, closers=("[/TOOL_CALLS]",), header=mistral_next),
        Format("cohere", ("<|START_ACTION|>",), JSON_START, closers=("<|END_ACTION|>",)),
        Format("apertus", ("<|tools_prefix|>",), JSON_START, closers=("<|tools_suffix|>",)),
        Format(
            "internlm",
            ("<|action_start|>",),
            (BLANK, maybe(either("<|plugin|>", "<|interpreter|>")), *JSON_START),
            closers=("<|action_end|>",),
        ),
        Format(
            "phi-4",
            (
                "<|tool_call|>",
                "<|tool_calls|>",
                "<|tool_call_start|>",
                "<|python_start|>",
                "<|function_call|>",
            ),
            JSON_START,
            closers=(
                "<|/tool_call|>",
                "<|/tool_calls|>",
                "</|tool_call|>",
                "<|tool_call_end|>",
                "<|python_end|>",
                "<|tool_call|>",
            ),
            header=SEPARATED,
        ),
        Format("phi-4", ("functools",), (BLANK, ahead(r"\[")), closers=()),
    ]


NAME_WITHOUT_BLANK = capture("name", chars(r"\w.\-:/$", 1, 128))

# -- no marks at all: the words of a prompt, or bare JSON

_NAME_KEY = either("name", "tool_name", "tool", "function_name", "function", "action", "recipient_name")
_OTHER_KEY = either(
    "tool_calls",
    "tool_uses",
    "tool_call",
    "function_call",
    "arguments",
    "parameters",
    "args",
    "action_input",
    "input",
    "type",
    "id",
    "index",
    "role",
    "content",
    "thought",
    "thoughts",
    "reasoning",
    "explanation",
    "tool_call_id",
    "call_id",
    "tool_plan",
)
_OPEN_QUOTE = chars("\"'“”‘’\\\\", 0, 2)
# After a name: its quote (all of it), and then anything but words that are neither key nor comment.
_WORD = r"[A-Za-z][\w\-]{0,40}+"
_GOES_ON = (
    Part(r"\s{0,64}+[\"'“”‘’\\]{0,2}+\s{0,64}+", r"\s{0,64}[\"'“”‘’\\]{0,2}\s{0,64}"),
    Part(
        rf"(?=[^A-Za-z,]|,\s{{0,64}}+(?:[^A-Za-z]|{_WORD}\s{{0,8}}+[:=\"']))",
        rf",\s{{0,64}}(?:{_WORD}\s{{0,8}})?",
    ),
)

_COMMENT = either(
    ("//", chars(r"^\n", 0, 200), "\n"),
    ("#", chars(r"^\n", 0, 200), "\n"),
    ("/*", chars(r"^*", 0, 200), "*/"),
)
_COMMENTS = maybe(_COMMENT, BLANK, maybe(_COMMENT, BLANK))

# An object whose first key says that it may be a call, and names a declared tool if it names any.
_CALL_OBJECT: tuple[Element, ...] = (
    BLANK,
    _COMMENTS,
    either(
        (
            _OPEN_QUOTE,
            _NAME_KEY,
            _OPEN_QUOTE,
            BLANK,
            ":",
            BLANK,
            either((QUOTE, BLANK, PREFIX, either(PARALLEL, TOOL), *_GOES_ON), ahead("{")),
        ),
        (_OPEN_QUOTE, _OTHER_KEY, _OPEN_QUOTE, BLANK, ":"),
    ),
)
_ACTION_INPUT = (BLANK, either("Action Input:", "**Action Input:**", "ActionInput:", "Action_Input:"))


# Closing tags whose opening the server swallowed, or the model left out after its thinking.
_LOST = (*_HERMES_CLOSE, "<|tool_call_end|>", "<|/tool_call|>", "<|END_ACTION|>", "[/TOOL_CALLS]")


def _rows_of_words() -> list[Format]:
    rows = [
        Format("json", ("{", "{{"), _CALL_OBJECT, closers=_LOST, whole=True, marked=False, header=_JOINED),
        Format("json", ("[",), (BLANK, "{", *_CALL_OBJECT), closers=_LOST, whole=True, marked=False),
        Format(
            "openai",
            ('"tool_calls"', "'tool_calls'"),
            (BLANK, ":", BLANK, ahead(r"\[{")),
            closers=("}",),
            marked=False,
        ),
        Format("pythonic", ("[",), (BLANK, PREFIX, TOOL, "("), "python", whole=True, marked=False),
        Format(
            "gptme",
            ("@{tool}",),
            (chars(" ", 0, 2), "(", chars(r"^)\n", 0, 40), ")", chars(" ", 0, 2), maybe(":"), *OBJECT_START),
            line_start=True,
        ),
        Format(
            "functionary",
            (">>>{tool}", ">>> {tool}"),
            (chars(" ", 0, 2), maybe("\r"), "\n", *OBJECT_START),
            line_start=True,
        ),
        Format("xml", ("<{tool}>",), JSON_START, closers=("</{tool}>",)),
        Format("xml", ("<{tool}>",), (), "tagged", tags=_XML_TAGS),
    ]
    for label in ("Action:", "**Action:**"):
        name = (BLANK, QUOTE, chars(r"`\[", 0, 1), TOOL, chars(r"`\]", 0, 1), QUOTE)
        rows += [
            Format(
                "react",
                (label,),
                (*name, *_ACTION_INPUT, BLANK, "`", ahead(r"{")),
                closers=("`",),
                line_start=True,
            ),
            Format(
                "react",
                (label,),
                (*name, *_ACTION_INPUT, BLANK, FENCE, *OBJECT_START),
                closers=("```",),
                line_start=True,
            ),
            Format(
                "react",
                (label,),
                (*name, *_ACTION_INPUT, BLANK, ahead(r"^`{\s")),
                "line",
                line_start=True,
            ),
            Format(
                "cohere",
                (label,),
                (BLANK, "```", maybe(either("json", "JSON")), BLANK, ahead(r"\[{")),
                closers=("```",),
                line_start=True,
            ),
            Format("cohere", (label,), (BLANK, ahead(r"\[{")), line_start=True, header=None),
            Format("react", (label,), (BLANK, VALUE, PREFIX, TOOL, "("), "python", line_start=True),
        ]
    return rows


FORMATS: tuple[Format, ...] = (
    *_rows_of_tags(),
    *_rows_of_tokens(),
    Format("hermes", _tag(*_HERMES), JSON_START, closers=_HERMES_CLOSE, header=SEPARATED),
    Format(
        "hermes",
        _tag(*_HERMES),
        (BLANK, "```", maybe(either("json", "JSON")), *JSON_START),
        closers=("```", *_HERMES_CLOSE),
    ),
    Format(
        "hermes",
        ("<tool_call name=", "<function_call name=", "<tool name=", "<tool_use name=", "<function name="),
        (QUOTE, NAME, QUOTE, _ATTRIBUTES, ">", *OBJECT_START),
        closers=(*_HERMES_CLOSE, "</function>"),
    ),
    Format("hermes", _tag(*_HERMES), (BLANK, TOOL, *OBJECT_START), closers=_HERMES_CLOSE),
    *_rows_of_deepseek(),
    *_rows_of_words(),
)

# Statements in a block that is marked as tool code.
TOOL_CODE = Format(
    "tool-code",
    (),
    (BLANK, maybe(chars(r"\w", 1, 64), " = "), VALUE, maybe("["), maybe("print("), PREFIX, TOOL, "("),
    "python",
    (")",),
)
