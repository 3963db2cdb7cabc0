"""The shapes of OpenAI's chat completions: what is asked, and what is answered. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from org.chat.participant import Sampling
from org.messages import Usage
from org.serve.refusal import Refusal

ROOM_MODEL = "org/main"
"""The id of the room as a whole; a participant's is this and its name behind a slash."""
STOPS = 4
"""How many texts an answer may end at."""

GO_ON = "(go on)"
"""What stands where a user says nothing, so that there is something to answer."""

NOT_YOURS = "a room runs tools of its own, and none of a client's"

Finish = Literal["stop", "length"]


class Said(NamedTuple):
    """One message of the conversation so far."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `participant` is who is to answer, empty for the room as a whole; `system` is what
    the client tells the model beforehand; the last of `said` is the user's. `room` names a room that
    is joined. What is None was not asked for."""

    model: str
    participant: str
    said: tuple[Said, ...]
    system: str = ""
    room: str = ""
    stream: bool = False
    usage: bool = False
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def sampling(self, usual: Sampling) -> Sampling:
        """How the models are asked, which usually are asked like that."""
        return replace(
            usual,
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            max_tokens=min(self.max_tokens or usual.max_tokens, usual.longest),
            seed=self.seed,
            stop=self.stop,
        )


# -- what is asked


def read_asked(data: bytes) -> Asked:
    """A request from its body. Raises `Refusal`."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise _off("", "the body: expected a JSON object")
    _refuse_what_cannot_be_done(body)
    system, said = _conversation(_take(body, "messages", list, "a list"))
    room = _room(body)
    model = _take(body, "model", str, f"the id of one, as `{ROOM_MODEL}`") or ""
    options = _take(body, "stream_options", dict, "an object") or {}
    limits = [_number(body, name, int, 1, 2**31 - 1) for name in ("max_completion_tokens", "max_tokens")]
    return Asked(
        model=model,
        participant=_participant(model),
        said=_with_an_end(said, room),
        system=system,
        room=room,
        stream=bool(_take(body, "stream", bool, "true or false")),
        usage=bool(_take(options, "include_usage", bool, "true or false", "stream_options.")),
        temperature=_number(body, "temperature", float, 0, 2),
        top_p=_number(body, "top_p", float, 0, 1),
        max_tokens=next((limit for limit in limits if limit is not None), None),
        seed=_number(body, "seed", int, -(2**63), 2**63 - 1),
        stop=_stops(body.get("stop")),
    )


def _refuse_what_cannot_be_done(body: Mapping[str, Any]) -> None:
    """What a client relies on when it asks for it is never left out silently."""
    for name, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if body.get(name) and body.get(choice) != "none":
            raise _off(
                name, f"`{name}`: the room runs tools of its own, and none of a client's", "leave it out"
            )
    if _number(body, "n", int, 1, 128) not in (None, 1):
        raise _off("n", "`n`: a room gives one answer", "ask again for another")
    form = _take(body, "response_format", dict, "an object") or {}
    if form.get("type", "text") != "text":
        raise _off("response_format", "`response_format`: a room answers in text", "leave it out")


def _participant(model: str) -> str:
    """Raises `Refusal` for a model that cannot be one of ours."""
    if model == ROOM_MODEL:
        return ""
    room, _, participant = model.rpartition("/")
    if room != ROOM_MODEL or not participant:
        raise no_model(model)
    return participant


def _room(body: Mapping[str, Any]) -> str:
    metadata = _take(body, "metadata", dict, "an object") or {}
    return _take(metadata, "room", str, "the id of a room", "metadata.") or ""


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(stops, list)
        or len(stops) > STOPS
        or not all(isinstance(text, str) and text for text in stops)
    ):
        raise _off("stop", f"`stop`: expected a text, or at most {STOPS} of them")
    return tuple(stops)


def _conversation(messages: Sequence[Any] | None) -> tuple[str, list[Said]]:
    """(what the client tells beforehand, what was said)."""
    system: list[str] = []
    said: list[Said] = []
    for place, message in enumerate(messages or ()):
        where = f"messages[{place}]"
        if not isinstance(message, dict):
            raise _off(where, f"`{where}`: expected an object")
        role = message.get("role")
        if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
            raise _off(where, f"`{where}`: {NOT_YOURS}")
        text = _text(message.get("content"), f"{where}.content", optional=role == "assistant")
        if role in ("system", "developer"):
            system.append(text)
        elif role in ("user", "assistant"):
            said.append(Said(role, text))
        else:
            known = "`system`, `developer`, `user` or `assistant`"
            raise _off(f"{where}.role", f"`{where}.role`: expected {known}")
    if not messages:
        raise _off("messages", "`messages`: expected at least one")
    return "\n\n".join(system), said


def _with_an_end(said: Sequence[Said], room: str) -> tuple[Said, ...]:
    """What was said, with something of a user's at its end; nobody's words are made up in a room that
    is there."""
    if said and said[-1].role == "user" and said[-1].text.strip():
        return tuple(said)
    if room:
        raise _off("messages", "`messages`: the last one must be a user's, with words to post in the room")
    return *(one for one in said if one.text.strip()), Said("user", GO_ON)


def _text(content: object, where: str, *, optional: bool) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if not isinstance(content, list):
        raise _off(where, f"`{where}`: expected text, or a list of parts of text")
    texts: list[str] = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            shown = f"`{kind[:40]}` cannot be read" if isinstance(kind, str) else "that is no part of one"
            raise _off(f"{where}[{place}]", f"`{where}[{place}]`: a room reads text; {shown}")
        if not isinstance(part.get(kind), str):
            raise _off(f"{where}[{place}].{kind}", f"`{where}[{place}].{kind}`: expected text")
        texts.append(part[kind])
    return "".join(texts)


def _take(body: Mapping[str, Any], name: str, kind: type, expected: str, path: str = "") -> Any:
    """A value of that type; None when it is not there, or null."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise _off(path + name, f"`{path}{name}`: expected {expected}")
    return value


def _number(body: Mapping[str, Any], name: str, kind: type, least: int, most: int) -> Any:
    value = body.get(name)
    kinds = (int, float) if kind is float else (int,)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        what = "a number" if kind is float else "a whole number"
        raise _off(name, f"`{name}`: expected {what} between {least} and {most}")
    return value


def no_model(id: str) -> Refusal:
    return Refusal(
        404,
        f"there is no model `{id[:100]}`",
        "`GET /v1/models` lists them",
        param="model",
        code="model_not_found",
    )


def _off(param: str, message: str, hint: str = "") -> Refusal:
    return Refusal(400, message, hint, param=param or None)


# -- what is answered


@dataclass(frozen=True, slots=True)
class Heading:
    """What all parts of one answer say of it. `created` is Unix time in seconds."""

    id: str
    created: int
    model: str

    def chunk(
        self, delta: Mapping[str, str], finish: Finish | None = None, *, with_usage: bool = False
    ) -> bytes:
        """One event of a stream. With `with_usage` the usage comes at its end, and each says so."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event_of(
            self._fields("chat.completion.chunk", [choice]) | ({"usage": None} if with_usage else {})
        )

    def usage(self, usage: Usage) -> bytes:
        """The event of a stream that only tells the usage."""
        return event_of(self._fields("chat.completion.chunk", []) | {"usage": tokens(usage)})

    def whole(self, content: str, reasoning: str, finish: Finish, usage: Usage) -> dict[str, Any]:
        """The answer that is no stream."""
        message = {"role": "assistant", "content": content, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return self._fields("chat.completion", [choice]) | {"usage": tokens(usage)}

    def _fields(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def tokens(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI counts it."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def event_of(data: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: %b\n\n" % encode(data)


DONE = b"data: [DONE]\n\n"
COMMENT = b": \n\n"


def encode(data: Mapping[str, Any]) -> bytes:
    """JSON in ASCII: half a surrogate pair, which models do write, has no other form."""
    return json.dumps(data, separators=(",", ":")).encode()


def models(participants: Sequence[str], created: int) -> list[dict[str, Any]]:
    """The models that there are: the room as a whole, and each participant."""
    ids = [ROOM_MODEL, *(f"{ROOM_MODEL}/{name}" for name in participants)]
    return [{"id": id, "object": "model", "created": created, "owned_by": "org"} for id in ids]
