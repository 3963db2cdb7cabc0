"""Which model a room talks to when nobody said, and what to say when there is no server."""

from __future__ import annotations

import asyncio
import importlib.util
import sys

from org.compose.servers import list_models
from org.config import Settings
from org.errors import EnvironmentProblem, OrgError, ServerUnreachable, UsageError
from org.wording import clean

SUGGESTED = "qwen3:8b"
"""A model that calls tools well and runs on most machines."""


async def choose_model(settings: Settings, *, interactive: bool) -> str:
    """The model that is set, else the server's only one, else the one that a person picks.

    Empty when each participant has a model of its own. `interactive` says that somebody sits at
    standard input and can see standard error. Raises `UsageError` when there are several and nobody
    picks, `EnvironmentProblem` without a server or a model.
    """
    if settings.model:
        return settings.model
    if all(member.model for member in settings.participants):
        return ""
    offered = await offered_models(settings)
    if not offered:
        raise no_model(settings)
    if len(offered) == 1:
        return offered[0]
    if interactive:
        return await _ask(offered)
    raise UsageError(
        f"{settings.base} offers {len(offered)} models and none was chosen: {', '.join(offered)}",
        f"take one with `-m {offered[0]}` or ORG_MODEL",
    )


async def offered_models(settings: Settings) -> list[str]:
    """The ids that the chosen server lists. Raises `EnvironmentProblem` when nothing answers there,
    `ModelError` when it answers with an error."""
    try:
        client, offered = await list_models(settings)
    except ServerUnreachable as error:
        raise no_server(error, settings) from error
    await client.aclose()
    return [clean(model) for model in offered]


def no_server(error: OrgError, settings: Settings) -> EnvironmentProblem:
    """What was tried, and the ways out."""
    source = settings.sources["base"]
    tried = "" if source in ("default", "flag") else f" (from {source})"
    return EnvironmentProblem(
        f"{error.message}{tried}",
        "there are three ways on:\n"
        f"- start Ollama (`ollama serve`) and fetch a model: `ollama pull {SUGGESTED}`\n"
        "- use another OpenAI-compatible server: `--base http://HOST:PORT/v1`, or ORG_BASE\n"
        f"- use a model file, without a server: `-m ./model.gguf`{_engine_note()}",
    )


def no_model(settings: Settings) -> EnvironmentProblem:
    """A server without a single model."""
    return EnvironmentProblem(
        f"the model server has no model: {settings.base}",
        f"fetch one with `ollama pull {SUGGESTED}`, or use a file: `-m ./model.gguf`{_engine_note()}",
    )


def has_engine() -> bool:
    """Whether model files can be run without a server."""
    return importlib.util.find_spec("xllamacpp") is not None


def _engine_note() -> str:
    return "" if has_engine() else " (first: `pipx install --force '.[embedded]'`)"


async def _ask(offered: list[str]) -> str:
    width = len(str(len(offered)))
    print("Which model shall the room talk to?", file=sys.stderr)
    for number, model in enumerate(offered, 1):
        print(f"  {number:{width}}  {model}", file=sys.stderr)
    while True:
        print("Number or name [1]: ", end="", file=sys.stderr, flush=True)
        await _readable(sys.stdin.fileno())
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise UsageError("no model was chosen", "take one with `-m NAME` or ORG_MODEL")
        answer = line.strip() or "1"
        if answer in offered:
            return answer
        if answer.isdecimal() and 0 < int(answer) <= len(offered):
            return offered[int(answer) - 1]
        print(f"There is no `{clean(answer)}` among them.", file=sys.stderr)


async def _readable(fd: int) -> None:
    """Wait until there is a line. Reading right away would keep Ctrl-C from ending the wait."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
