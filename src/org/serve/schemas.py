"""The shapes of what is sent and answered, as JSON Schema."""

from __future__ import annotations

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_NO: Schema = {"type": "boolean"}


def exactly(*optional: str, **fields: Schema) -> Schema:
    """An object with these fields, all of them required but those named first."""
    required = [name for name in fields if name not in optional]
    made: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def at_least(*required: str, **fields: Schema) -> Schema:
    """An object with these fields, and with others that do not matter."""
    return {"type": "object", "properties": fields, "required": list(required)}


def listing(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


KEY = TEXT | {"maxLength": 200, "pattern": "^[ -~]*$"}
ROOM_ID = TEXT | {"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
MEMBER = TEXT | {"pattern": "^[a-z][a-z0-9_-]{0,31}$"}
SEQ = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_LIMIT = {"minimum": 0, "maximum": 10**9}
LIMITS = exactly(
    *("turns", "seconds", "tokens", "tools"),
    turns=WHOLE | _LIMIT,
    seconds=NUMBER | _LIMIT,
    tokens=WHOLE | _LIMIT,
    tools=WHOLE | _LIMIT,
)
PARTICIPANT = TEXT | {
    "pattern": "^[a-z][a-z0-9_-]{0,31}=(agent|python|simple)(:.*[^ ].*)?$",
    "description": "`id=profile` or `id=profile:model`, as in `ann=simple:qwen3:8b`",
}

_PARTS = listing(at_least("type", "text", type={"const": "text"}, text=TEXT))
_CONTENT: Schema = {"anyOf": [TEXT, _PARTS]}
_MODEL_ID = TEXT | {"pattern": "^org/main(/[a-z][a-z0-9_-]{0,31})?$"}
_MESSAGE: Schema = {
    "anyOf": [
        at_least("role", "content", role={"enum": ["system", "developer", "user"]}, content=_CONTENT),
        at_least("role", role={"const": "assistant"}, content=nullable(_CONTENT)),
    ]
}


def number(least: int, most: int, kind: Schema = WHOLE) -> Schema:
    return nullable(kind | {"minimum": least, "maximum": most})


ASKED = at_least(
    *("model", "messages"),
    model=_MODEL_ID,
    messages=listing(_MESSAGE) | {"minItems": 1, "description": "the last one is the user's"},
    stream=nullable(YES_NO),
    stream_options=nullable(at_least(include_usage=nullable(YES_NO))),
    temperature=number(0, 2, NUMBER),
    top_p=number(0, 1, NUMBER),
    max_tokens=number(1, 2**31 - 1),
    max_completion_tokens=number(1, 2**31 - 1),
    seed=number(-(2**63), 2**63 - 1),
    stop=nullable({"anyOf": [TEXT, listing(TEXT | {"minLength": 1}) | {"maxItems": 4}]}),
    metadata=nullable(at_least(room=nullable(TEXT | {"description": "the id of a room to speak in"}))),
)

SCHEMAS: dict[str, Schema] = {
    "Error": exactly(error=exactly(message=TEXT, hint=TEXT)),
    "OpenAiError": at_least(
        "error",
        error=at_least("message", message=TEXT, type=TEXT, param=nullable(TEXT), code=nullable(TEXT)),
    ),
    "Model": exactly(id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT),
    "Completion": at_least(
        *("id", "object", "created", "model", "choices", "usage"),
        id=TEXT,
        object={"const": "chat.completion"},
        created=WHOLE,
        model=TEXT,
        choices=listing(
            at_least(
                *("index", "message", "finish_reason"),
                index=WHOLE,
                message=at_least(
                    "content", role={"const": "assistant"}, content=TEXT, reasoning_content=TEXT
                ),
                finish_reason={"enum": ["stop", "length"]},
            )
        ),
        usage=at_least(
            *("prompt_tokens", "completion_tokens", "total_tokens"),
            prompt_tokens=WHOLE,
            completion_tokens=WHOLE,
            total_tokens=WHOLE,
        ),
    ),
    "Event": {
        "type": "object",
        "properties": {"v": WHOLE, "type": TEXT},
        "required": ["v", "type"],
        "description": "one event; its other fields depend on its type",
    },
    "Listed": exactly(
        id=TEXT,
        created=NUMBER,
        last=NUMBER,
        messages=WHOLE,
        members=listing(TEXT),
        open=YES_NO,
        busy=TEXT,
        problem=TEXT,
    ),
    "Hit": exactly(room=TEXT, seq=WHOLE, sender=TEXT, at=NUMBER, snippet=TEXT),
    "Room": exactly(
        id=TEXT,
        seq=WHOLE,
        open=YES_NO,
        busy=TEXT,
        place=TEXT,
        participants=listing(
            exactly(
                name=TEXT,
                profile=TEXT,
                model=TEXT,
                mode=TEXT,
                unread=WHOLE,
                tokens=WHOLE,
                context=WHOLE,
                tools=listing(exactly(name=TEXT, policy={"enum": ["run", "ask", "off"]})),
            )
        ),
        people=listing(exactly(name=TEXT, mode=TEXT)),
        limits=nullable(exactly(turns=WHOLE, seconds=NUMBER, tokens=WHOLE, tools=WHOLE)),
        usage=exactly(prompt=WHOLE, completion=WHOLE, cached=WHOLE),
        running=listing(exactly(participant=TEXT, turn=WHOLE)),
        asking=listing(exactly(id=TEXT, participant=TEXT, tool=TEXT, arguments={"type": "object"})),
    ),
    "Health": exactly(
        status={"enum": ["starting", "serving", "draining"]},
        commit=TEXT,
        generation=TEXT,
        pid=WHOLE,
        uptime_s=NUMBER,
        model_reachable=nullable(YES_NO),
        nonce=TEXT,
    ),
}
