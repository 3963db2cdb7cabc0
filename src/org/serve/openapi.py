"""What the API is, for programs: `GET /openapi.json`."""

from __future__ import annotations

from typing import Any

from org import __version__
from org.serve.schemas import (
    ASKED,
    KEY,
    LIMITS,
    MEMBER,
    PARTICIPANT,
    ROOM_ID,
    SCHEMAS,
    SEQ,
    TEXT,
    WHOLE,
    YES_NO,
    Schema,
    exactly,
    listing,
    ref,
)


def _json(about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _in(place: str, name: str, schema: Schema, about: str = "", *, required: bool = False) -> Schema:
    made = {"in": place, "name": name, "schema": schema, "required": required or place == "path"}
    return made | ({"description": about} if about else {})


REFUSALS = {
    400: "the request is no JSON, or no HTTP",
    401: "the token is missing or wrong",
    403: "a request of another page",
    404: "no such room, or nobody and nothing of that name in it",
    408: "the body did not come in time",
    409: "another process has the room open, the name is taken, or it is too late",
    413: "the body is too long",
    421: "another host's name",
    422: "something in the request is off",
    429: "too many requests",
    502: "the model server answers with an error",
    503: "something of this machine is missing, or the server is about to end",
}


def _operation(id: str, about: str, answers: dict[str, Schema], error: str = "Error", **more: Any) -> Schema:
    refusals = {str(status): _json(text, ref(error)) for status, text in REFUSALS.items()}
    return {"operationId": id, "summary": about, "responses": answers | refusals, **more}


_ID = _in("path", "id", ROOM_ID, "the room's id")
_NAME = _in("path", "name", MEMBER, "who is meant")
_ROOM = {"200": _json("the room", ref("Room"))}
_NEW_ROOM = {"201": _json("the room", ref("Room"))}

PATHS: dict[str, dict[str, Schema]] = {
    "/health": {
        "get": _operation(
            "health",
            "how the server is",
            {"200": _json("at once", ref("Health"))},
            parameters=[_in("query", "nonce", TEXT, "given back")],
            security=[],
        )
    },
    "/login": {
        "post": _operation(
            "login",
            "a key for the page that shows the token",
            {"200": _json("it stands in for the token at this address", exactly(key=TEXT, seconds=WHOLE))},
        )
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
            "rooms", "the rooms there are", {"200": _json("rooms", exactly(rooms=listing(ref("Listed"))))}
        ),
        "post": _operation(
            "create",
            "make a room",
            _NEW_ROOM,
            requestBody=_body(
                exactly("id", "participants", id=ROOM_ID, participants=listing(PARTICIPANT)), required=False
            ),
        ),
    },
    "/rooms/{id}": {"get": _operation("room", "who is in a room, and what runs", _ROOM, parameters=[_ID])},
    "/rooms/{id}/messages": {
        "post": _operation(
            "post",
            "say something; the answers come over the event stream",
            {"202": _json("the ids of what it became", exactly(messages=listing(WHOLE)))},
            parameters=[_ID, _in("header", "Idempotency-Key", KEY, "the same key posts once")],
            requestBody=_body(exactly("sender", text=TEXT, sender=MEMBER)),
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
                _in("query", "after", SEQ, "the event after which it begins"),
                _in("header", "Last-Event-ID", SEQ, "the same, and goes first"),
                _in("query", "ticket", TEXT, "instead of the token, where no header can be sent"),
            ],
        )
    },
    "/rooms/{id}/tickets": {
        "post": _operation(
            "ticket",
            "what lets an EventSource in, once",
            {"201": _json("a ticket for the event stream of the room", exactly(ticket=TEXT))},
            parameters=[_ID],
        )
    },
    "/rooms/{id}/interrupt": {
        "post": _operation(
            "interrupt",
            "stop what runs",
            {"200": _json("whether anything ran", exactly(interrupted=YES_NO))},
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
                            "schema": exactly(room=TEXT, seq=WHOLE, events=listing(ref("Event")))
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
            requestBody=_body({"oneOf": [exactly(participant=PARTICIPANT), exactly(person=MEMBER)]}),
        )
    },
    "/rooms/{id}/members/{name}": {
        "delete": _operation("leave", "send a participant out", _ROOM, parameters=[_ID, _NAME])
    },
    "/rooms/{id}/members/{name}/mode": {
        "put": _operation(
            "set_mode",
            "set whom somebody speaks to",
            {"200": _json("the mode", exactly(mode=TEXT))},
            parameters=[_ID, _NAME],
            requestBody=_body(exactly(mode=TEXT | {"description": "`group`, `direct:NAME` or `file:PATH`"})),
        )
    },
    "/rooms/{id}/members/{name}/model": {
        "put": _operation(
            "set_model",
            "let a participant speak through another model",
            _ROOM,
            parameters=[_ID, _NAME],
            requestBody=_body(exactly(model=TEXT | {"pattern": "[^ ]"})),
        )
    },
    "/rooms/{id}/members/{name}/compact": {
        "post": _operation(
            "compact",
            "have a participant summarise older context, in the background",
            {"202": _json("begun", exactly(compacting=YES_NO))},
            parameters=[_ID, _NAME],
        )
    },
    "/rooms/{id}/approvals/{approval}": {
        "post": _operation(
            "approve",
            "allow a call that waits for a person, or not",
            {"200": _json("what counts", exactly(allowed=YES_NO))},
            parameters=[_ID, _in("path", "approval", TEXT, "the `id` under which it is asked")],
            requestBody=_body(exactly(allow=YES_NO)),
        )
    },
    "/rooms/{id}/undo": {
        "post": _operation(
            "undo",
            "take back the newest message of a person, and what came of it",
            _ROOM,
            parameters=[_ID],
            requestBody=_body(exactly(message=WHOLE | {"description": "its id; what is undone stays so"})),
        )
    },
    "/rooms/{id}/clear": {
        "post": _operation("clear", "start everybody's context afresh", _ROOM, parameters=[_ID])
    },
    "/rooms/{id}/limits": {
        "put": _operation(
            "set_limits",
            "set where an exchange stops, from the next one on; what is not named stays",
            _ROOM,
            parameters=[_ID],
            requestBody=_body(LIMITS | {"minProperties": 1}),
        )
    },
    "/rooms/{id}/search": {
        "get": _operation(
            "search",
            "where all of some words occur, the best hits first",
            {"200": _json("hits", exactly(hits=listing(ref("Hit"))))},
            parameters=[
                _ID,
                _in("query", "q", TEXT | {"minLength": 1, "maxLength": 200}, "words", required=True),
                _in("query", "limit", {"type": "integer", "minimum": 1, "maximum": 100}),
            ],
        )
    },
    "/models": {
        "get": _operation(
            "models",
            "the models that the model server offers",
            {"200": _json("models", exactly(models=listing(TEXT)))},
        )
    },
    "/v1/models": {
        "get": _operation(
            "openai_models",
            "the room and its participants, as OpenAI's clients see them",
            {"200": _json("models", exactly(object={"const": "list"}, data=listing(ref("Model"))))},
            "OpenAiError",
        )
    },
    "/v1/models/org/main": {
        "get": _operation(
            "openai_room", "the room as a model", {"200": _json("a model", ref("Model"))}, "OpenAiError"
        )
    },
    "/v1/models/org/main/{name}": {
        "get": _operation(
            "openai_participant",
            "a participant as a model",
            {"200": _json("a model", ref("Model"))},
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
                        "application/json": {"schema": ref("Completion")},
                        "text/event-stream": {"schema": TEXT},
                    },
                }
            },
            "OpenAiError",
            requestBody=_body(ASKED),
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
