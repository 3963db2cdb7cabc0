"""The model servers of a session: their clients, those started here, and what they are asked about models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from org.config import Member, Settings
from org.errors import ModelError, ServerUnreachable, UsageError
from org.events import Joined
from org.llm.client import ChatClient
from org.llm.embedded import EmbeddedServer

OLLAMA_CONTEXT = 4096
"""What Ollama gives a model that is not loaded yet, below 24 GB of video memory."""

UNKNOWN_CONTEXT = 8192
CONTEXT_PROBE_S = 3.0
"""How long a room waits to be told the size of a context; a server that stalls is asked later."""
CONNECT_PROBE_S = 2.0
ANSWER_PROBE_S = 10.0
"""A list of models needs no model: even a busy server answers within this."""


class Context(NamedTuple):
    """The size of a model's context in tokens, and whether its server has not told it yet."""

    tokens: int
    guessed: bool = False


class Servers:
    """The clients of a session, one for each base URL, and the servers that it started itself."""

    def __init__(
        self,
        settings: Settings,
        stack: AsyncExitStack,
        progress: Callable[[str], None],
        engines: Mapping[Path, str] | None = None,
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._progress = progress
        self._clients: dict[str, ChatClient] = {}
        self._engines = dict(engines or {})
        self._contexts: dict[tuple[str, str], Context] = {}
        self._silent: set[str] = set()

    async def context_of(self, client: ChatClient, model: str, *, again: bool = False) -> int:
        """The size of a model's context as its server runs it, in tokens; a guess while the server does
        not tell. Asked once, and once more with `again` when it was a guess."""
        key = client.base_url, model
        known = self._contexts.get(key)
        if known is None and client.base_url in self._silent and not again:
            known = self._contexts[key] = Context(UNKNOWN_CONTEXT, guessed=True)
        if known is None or (known.guessed and again):
            try:
                async with asyncio.timeout(CONTEXT_PROBE_S):
                    known = await _context_of(client, model)
            except TimeoutError:
                self._silent.add(client.base_url)
                known = known or Context(UNKNOWN_CONTEXT, guessed=True)
            self._contexts[key] = known
        return known.tokens

    def guesses(self, client: ChatClient, model: str) -> bool:
        """Whether what `context_of` said is a guess."""
        known = self._contexts.get((client.base_url, model))
        return known is not None and known.guessed

    async def of(self, member: Member, joined: Joined | None = None) -> tuple[ChatClient, str]:
        """(client, model) for a participant. Raises `UsageError` when no model was chosen."""
        chosen = member.model or self._settings.model
        source = self._settings.sources["participant" if member.model else "model"]
        if joined and (not chosen or self._settings.sources.get("model") != "flag"):
            chosen = joined.model
        if not chosen:
            raise UsageError(
                "no model was chosen", "take one with `-m NAME` or ORG_MODEL; `org models` lists them"
            )
        return await self.of_model(member, chosen, self._folder_of(source))

    async def of_model(self, member: Member, model: str, folder: Path = Path()) -> tuple[ChatClient, str]:
        """(client, name) of a model of a participant's server, or of a model file, relative to `folder`."""
        if model.endswith(".gguf"):
            try:
                path = (folder / Path(model).expanduser()).resolve()
            except (RuntimeError, ValueError):  # nobody's home, or no path
                raise UsageError(f"no such model file: `{model}`") from None
            return await self._file(path)
        return await self.client(member.base or self._settings.base), model

    async def client(self, base: str) -> ChatClient:
        if base not in self._clients:
            timeouts = self._settings.client
            self._clients[base] = await self._stack.enter_async_context(
                ChatClient(
                    base,
                    api_key=self._settings.api_key(base),
                    connect_timeout_s=timeouts.connect_timeout_s,
                    idle_timeout_s=timeouts.idle_timeout_s,
                )
            )
        return self._clients[base]

    def _folder_of(self, source: str) -> Path:
        """What a relative path is relative to: a settings file means its own folder."""
        places = self._settings.places
        files = (places.project_file, places.user_file)
        return next((file.parent for file in files if file and str(file) == source), Path())

    async def _file(self, path: Path) -> tuple[ChatClient, str]:
        """A model file, served by llama.cpp in a child process of ours. The whole path is the model's
        name, so that a room that is resumed from anywhere finds the file again."""
        if path not in self._engines:
            if not path.is_file():
                raise UsageError(f"no such model file: `{path}`")
            self._progress(f"loading {path.name}")
            server = await self._stack.enter_async_context(EmbeddedServer(path, str(path)))
            self._engines[path] = server.base_url
        return await self.client(self._engines[path]), str(path)


async def list_models(settings: Settings) -> tuple[ChatClient, list[str]]:
    """The client of the chosen server, to be closed, and the models that it offers.

    Raises `ServerUnreachable` soon when nothing is there, or nothing that answers.
    """
    client = ChatClient(
        settings.base, api_key=settings.api_key(settings.base), connect_timeout_s=CONNECT_PROBE_S
    )
    try:
        async with asyncio.timeout(ANSWER_PROBE_S):
            return client, await client.models()
    except TimeoutError as error:
        await client.aclose()
        raise ServerUnreachable(
            f"no answer from the model server at {settings.base} within {ANSWER_PROBE_S:g} s"
        ) from error
    except BaseException:
        await client.aclose()
        raise


async def _context_of(client: ChatClient, model: str) -> Context:
    try:
        props = await client.get_json("//props")
        settings = props.get("default_generation_settings")
        if isinstance(settings, dict) and (told := _count(settings.get("n_ctx"))):
            return Context(told)
    except ServerUnreachable:
        return Context(UNKNOWN_CONTEXT, guessed=True)
    except ModelError:
        pass  # not llama.cpp's own server
    try:
        loaded = (await client.get_json("//api/ps")).get("models", 0)
    except ServerUnreachable:
        return Context(UNKNOWN_CONTEXT, guessed=True)
    except ModelError:
        return Context(UNKNOWN_CONTEXT)  # nor Ollama: nobody tells
    if not isinstance(loaded, list | None):
        return Context(UNKNOWN_CONTEXT)
    for entry in loaded or ():
        names = (entry.get("name"), entry.get("model")) if isinstance(entry, dict) else ()
        if model in names or f"{model}:latest" in names:
            return Context(_count(entry.get("context_length")) or OLLAMA_CONTEXT)
    return Context(OLLAMA_CONTEXT, guessed=True)  # not loaded before it is asked something


def _count(value: object) -> int:
    """A number of tokens out of a server's answer, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
