"""The real engine for tests: llama.cpp's server on models that recite scripts.

`tests/scripts.toml` holds the scripts of the shared server; a system prompt picks one by its
marker `[[name]]`. See the fixtures `engine` and `scripted` in conftest.py.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from org.llm.embedded import EmbeddedServer
from org.llm.scripted import scripted_model

MODEL = "scripted"
SCRIPTS: Mapping[str, Sequence[str]] = {
    name: script["steps"]
    for name, script in tomllib.loads(Path(__file__).with_name("scripts.toml").read_text("utf-8")).items()
}


def call(name: str, **arguments: Any) -> str:
    """A tool call as the scripted models write one. The keys must follow the tool's schema."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


class Engine:
    """A running server. `base_url` ends in `/v1`; `model` is the name to ask for."""

    def __init__(self, server: EmbeddedServer, api_key: str) -> None:
        self.base_url = server.base_url
        self.pid = server.pid
        self.model = server.alias
        self.api_key = api_key

    def freeze(self) -> None:
        """Stop the process: connections stay open and nothing comes. Returns when it has stopped.

        Thaw or kill it before its context ends, which waits for it otherwise.
        """
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process in the middle of whatever it says."""
        os.kill(self.pid, signal.SIGKILL)

    def connect(self, body: Mapping[str, Any]) -> http.client.HTTPConnection:
        """A connection on which `body` was posted to `/v1/chat/completions`; close it."""
        url = urlsplit(self.base_url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        text = json.dumps({"model": self.model, **body})
        connection.request("POST", url.path + "/chat/completions", text, headers)
        return connection

    def post(self, **body: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer of one completion, not streamed."""
        connection = self.connect(body)
        try:
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ask(self, script: str, *messages: Mapping[str, Any], **body: Any) -> dict[str, Any]:
        """The message that the next step of `script` answers to `messages`."""
        system = {"role": "system", "content": f"You are tested. [[{script}]]"}
        status, answer = self.post(messages=[system, *messages], **body)
        assert status == 200, answer
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message


@asynccontextmanager
async def serving(
    models: Path,
    scripts: Mapping[str, Sequence[str]],
    *,
    ctx: int = 32_768,
    parallel: int = 4,
    **options: Any,
) -> AsyncIterator[Engine]:
    """An engine of its own on `scripts`; `options` are those of `EmbeddedServer`."""
    model = scripted_model(scripts, models)
    async with EmbeddedServer(model, MODEL, ctx=ctx, parallel=parallel, threads=1, **options) as server:
        yield Engine(server, options.get("api_key", ""))
