"""What the API is, for programs: `GET /openapi.json`."""

from __future__ import annotations

from typing import Any, TypeAlias

from org import __version__

Schema: TypeAlias = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_NO: Schema = {"type": "boolean"}


def _object(*optional: str, **fields: Schema) -> Schema:
    """An object with these fields, all of them required but those named first."""
    required = [name for name in fields if name not in optional]
    made: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _open(*required: str, **fields: Schema) -> Schema:
    """An object with these fields, and with others that do not matter."""
    return {"type": "object", "properties": fields, "required": list(required)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _in(place: str, name: str, schema: Schema, about: str = "") -> Schema:
    made = {"in": place, "name": name, "schema": schema, "required": place == "path"}
    return made | ({"description": about} if about else {})


REFUSALS = {
    400: "the request is no JSON, or no HTTP",
    401: "the token is missing or wrong",
    403: "a request of another page",
    404: "no such room",
    408: "the body did not come in time",
    409: "another process has the room open, or the name is taken",
    413: "the body is too long",
    421: "another host's name",
    422: "something in the request is off",
    429: "too many requests",
    502: "the model server answers with an error",
    503: "something of this machine is missing, or the server is about to end",
}


def _operation(id: str, about: str, answers: dict[str, Schema], error: str = "Error", **more: Any) -> Schema:
    refusals = {str(status): _json(text, _ref(error)) for status, text in REFUSALS.items()}
    return {"operationId": id, "summary": about, "responses": answers | refusals, **more}


_KEY = TEXT | {"maxLength": 200, "pattern": "^[ -~]*$"}
_ROOM_ID = TEXT | {"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
_MEMBER = TEXT | {"pattern": "^[a-z][a-z0-9_-]{0,31}$"}
_ID = _in("path", "id", _ROOM_ID, "the room's id")
_NAME = _in("path", "name", _MEMBER, "who is meant")
_SEQ = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
_PARTICIPANT = TEXT | {
    "pattern": "^[a-z][a-z0-9_-]{0,31}=(agent|python|simple)(:.*[^ ].*)?$",
    "description": "`id=profile` or `id=profile:model`, as in `ann=simple:qwen3:8b`",
}
_MODE = TEXT | {"pattern": "^(group|direct:.+|file:.+)$"}
_ROOM = {"200": _json("the room", _ref("Room"))}
_NEW_ROOM = {"201": _json("the room", _ref("Room"))}

_PARTS = _list(_open("type", "text", type={"const": "text"}, text=TEXT))
_CONTENT: Schema = {"anyOf": [TEXT, _PARTS]}
_MODEL_ID = TEXT | {"pattern": "^org/main(/[a-z][a-z0-9_-]{0,31})?$"}
_MESSAGE: Schema = {
    "anyOf": [
        _open("role", "content", role={"enum": ["system", "developer", "user"]}, content=_CONTENT),
        _open("role", role={"const": "assistant"}, content=_nullable(_CONTENT)),
    ]
}


def _number(least: int, most: int, kind: Schema = WHOLE) -> Schema:
    return _nullable(kind | {"minimum": least, "maximum": most})


_ASKED = _open(
    *("model", "messages"),
    model=_MODEL_ID,
    messages=_list(_MESSAGE) | {"minItems": 1, "description": "the last one is the user's"},
    stream=_nullable(YES_NO),
    stream_options=_nullable(_open(include_usage=_nullable(YES_NO))),
    temperature=_number(0, 2, NUMBER),
    top_p=_number(0, 1, NUMBER),
    max_tokens=_number(1, 2**31 - 1),
    max_completion_tokens=_number(1, 2**31 - 1),
    seed=_number(-(2**63), 2**63 - 1),
    stop=_nullable({"anyOf": [TEXT, _list(TEXT | {"minLength": 1}) | {"maxItems": 4}]}),
    metadata=_nullable(_open(room=_nullable(TEXT | {"description": "the id of a room to speak in"}))),
)

SCHEMAS: dict[str, Schema] = {
    "Error": _object(error=_object(message=TEXT, hint=TEXT)),
    "OpenAiError": _open(
        "error",
        error=_open("message", message=TEXT, type=TEXT, param=_nullable(TEXT), code=_nullable(TEXT)),
    ),
    "Model": _object(id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT),
    "Completion": _open(
        *("id", "object", "created", "model", "choices", "usage"),
        id=TEXT,
        object={"const": "chat.completion"},
        created=WHOLE,
        model=TEXT,
        choices=_list(
            _open(
                *("index", "message", "finish_reason"),
                index=WHOLE,
                message=_open("content", role={"const": "assistant"}, content=TEXT, reasoning_content=TEXT),
                finish_reason={"enum": ["stop", "length"]},
            )
        ),
        usage=_open(
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
    "Listed": _object(
        id=TEXT,
        created=NUMBER,
        last=NUMBER,
        messages=WHOLE,
        members=_list(TEXT),
        open=YES_NO,
        busy=TEXT,
        problem=TEXT,
    ),
    "Room": _object(
        id=TEXT,
        seq=WHOLE,
        open=YES_NO,
        busy=TEXT,
        place=TEXT,
        participants=_list(
            _object(name=TEXT, profile=TEXT, model=TEXT, mode=TEXT, unread=WHOLE, tokens=WHOLE)
        ),
        people=_list(_object(name=TEXT, mode=TEXT)),
        limits=_nullable(_object(turns=WHOLE, seconds=NUMBER, tokens=WHOLE, tools=WHOLE)),
        usage=_object(prompt=WHOLE, completion=WHOLE, cached=WHOLE),
        running=_list(_object(participant=TEXT, turn=WHOLE)),
    ),
    "Health": _object(
        status={"enum": ["starting", "serving", "draining"]},
        commit=TEXT,
        generation=TEXT,
        pid=WHOLE,
        uptime_s=NUMBER,
        model_reachable=_nullable(YES_NO),
        nonce=TEXT,
    ),
}

PATHS: dict[str, dict[str, Schema]] = {
    "/health": {
        "get": _operation(
            "health",
            "how the server is",
            {"200": _json("at once", _ref("Health"))},
            parameters=[_in("query", "nonce", TEXT, "given back")],
            security=[],
        )
    },
    "/login": {
        "post": _operation("login", "a cookie for the token", {"204": {"description": "the cookie is set"}})
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "figures, in Prometheus' text format",
            {"200": {"description": "figures", "content": {"text/plain": {"schema": TEXT}}}},
        )
    },
    "/rooms": {
        "get": _operation(
            "rooms", "the rooms there are", {"200": _json("rooms", _object(rooms=_list(_ref("Listed"))))}
        ),
        "post": _operation(
            "create",
            "make a room",
            _NEW_ROOM,
            requestBody=_body(
                _object("id", "participants", id=_ROOM_ID, participants=_list(_PARTICIPANT)), required=False
            ),
        ),
    },
    "/rooms/{id}": {"get": _operation("room", "who is in a room, and what runs", _ROOM, parameters=[_ID])},
    "/rooms/{id}/messages": {
        "post": _operation(
            "post",
            "say something; the answers come over the event stream",
            {"202": _json("the ids of what it became", _object(messages=_list(WHOLE)))},
            parameters=[_ID, _in("header", "Idempotency-Key", _KEY, "the same key posts once")],
            requestBody=_body(_object("sender", text=TEXT, sender=_MEMBER)),
        )
    },
    "/rooms/{id}/events": {
        "get": _operation(
            "events",
            "what happens, as it happens",
            {
                "200": {
                    "description": "an event stream without end; each `data` is an Event",
                    "content": {"text/event-stream": {"schema": TEXT}},
                }
            },
            parameters=[
                _ID,
                _in("query", "after", _SEQ, "the event after which it begins"),
                _in("header", "Last-Event-ID", _SEQ, "the same, and goes first"),
            ],
        )
    },
    "/rooms/{id}/interrupt": {
        "post": _operation(
            "interrupt",
            "stop what runs",
            {"200": _json("whether anything ran", _object(interrupted=YES_NO))},
            parameters=[_ID],
        )
    },
    "/rooms/{id}/transcript": {
        "get": _operation(
            "transcript",
            "the events that were not undone",
            {
                "200": {
                    "description": "events, or Markdown",
                    "content": {
                        "application/json": {
                            "schema": _object(room=TEXT, seq=WHOLE, events=_list(_ref("Event")))
                        },
                        "text/markdown": {"schema": TEXT},
                    },
                }
            },
            parameters=[_ID, _in("query", "format", {"enum": ["json", "md"]})],
        )
    },
    "/rooms/{id}/members": {
        "post": _operation(
            "enter",
            "let a participant or a person in",
            _NEW_ROOM,
            parameters=[_ID],
            requestBody=_body({"oneOf": [_object(participant=_PARTICIPANT), _object(person=_MEMBER)]}),
        )
    },
    "/rooms/{id}/members/{name}": {
        "delete": _operation("leave", "send a participant out", _ROOM, parameters=[_ID, _NAME])
    },
    "/rooms/{id}/members/{name}/mode": {
        "put": _operation(
            "set_mode",
            "set whom somebody speaks to",
            {"200": _json("the mode", _object(mode=TEXT))},
            parameters=[_ID, _NAME],
            requestBody=_body(_object(mode=TEXT | {"description": "`group`, `direct:NAME` or `file:PATH`"})),
        )
    },
    "/v1/models": {
        "get": _operation(
            "openai_models",
            "the room and its participants, as OpenAI's clients see them",
            {"200": _json("models", _object(object={"const": "list"}, data=_list(_ref("Model"))))},
            "OpenAiError",
        )
    },
    "/v1/models/org/main": {
        "get": _operation(
            "openai_room", "the room as a model", {"200": _json("a model", _ref("Model"))}, "OpenAiError"
        )
    },
    "/v1/models/org/main/{name}": {
        "get": _operation(
            "openai_participant",
            "a participant as a model",
            {"200": _json("a model", _ref("Model"))},
            "OpenAiError",
            parameters=[_NAME],
        )
    },
    "/v1/chat/completions": {
        "post": _operation(
            "openai_complete",
            "an answer to a conversation, in OpenAI's form",
            {
                "200": {
                    "description": "the answer, or an event stream of its pieces",
                    "content": {
                        "application/json": {"schema": _ref("Completion")},
                        "text/event-stream": {"schema": TEXT},
                    },
                }
            },
            "OpenAiError",
            requestBody=_body(_ASKED),
        )
    },
}

DESCRIPTION: Schema = {
    "openapi": "3.1.0",
    "info": {"title": "org", "version": __version__, "summary": "A room of people and language models."},
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{"token": []}],
}
