"""llama.cpp's own HTTP server, from the `xllamacpp` package, in a child process.

    async with EmbeddedServer(Path("qwen3-4b.gguf"), "qwen3") as server:
        ...  # server.base_url is "http://127.0.0.1:PORT/v1"

The server listens on loopback only, offers no web page and fetches nothing. The child dies with
this process, however this process ends. `org.llm.engine` is the child's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from org.errors import EnvironmentProblem

DEFAULT_CTX = 8192
_GRACE_S = 3.0
_TAIL = 8192  # bytes of the log that are read back
_STAMP = re.compile(r"^[\d.]+ [A-Z] +")  # time and level of a line of the log
_LOAD_ERROR = "error loading model: "


class EmbeddedServer:
    """One model behind `/v1/chat/completions`, for as long as the context is open.

    `alias` is the model's name in requests. `ctx` is the context of one request in tokens; a model
    trained for less gets less. `parallel` is the number of requests that run at the same time,
    others wait; each needs memory for its own context. `threads` 0 means one for each physical
    core. `raw` leaves tool calls in the text instead of reporting them. `api_key` is demanded of
    clients when it is not empty. `on_wait(seconds)` is called about once a second while the model
    loads.

    Enter it in a thread that lives on: the kernel ends the child with the thread that started it.
    Entering raises `EnvironmentProblem` when the package is missing, the model cannot be served or
    is not ready within `deadline_s` seconds.
    """

    def __init__(
        self,
        model: Path,
        alias: str,
        *,
        ctx: int = DEFAULT_CTX,
        parallel: int = 1,
        threads: int = 0,
        raw: bool = False,
        api_key: str = "",
        on_wait: Callable[[float], None] | None = None,
        deadline_s: float = 600.0,
    ) -> None:
        self.model = model
        self.alias = alias
        self._options = {
            "model": str(model),
            "alias": alias,
            "ctx": ctx,
            "parallel": parallel,
            "threads": threads,
            "raw": raw,
            "api_key": api_key,
        }
        self._on_wait = on_wait
        self._deadline_s = deadline_s
        self._closing = contextlib.AsyncExitStack()
        self.base_url = ""
        self.pid = 0
        self.ctx = 0
        self.ctx_max = 0
        self.threads = 0
        self.parallel = parallel

    @property
    def description(self) -> str:
        """What was chosen for this model, in one line for people."""
        if self.ctx < self.ctx_max:
            ctx = f"context {self.ctx} tokens (the model allows {self.ctx_max}, for more memory)"
        else:
            ctx = f"context {self.ctx} tokens (all that the model was trained for)"
        many = "one request" if self.parallel == 1 else f"{self.parallel} requests"
        return f"{ctx}, threads: {self.threads}, {many} at a time"

    async def __aenter__(self) -> EmbeddedServer:
        if importlib.util.find_spec("xllamacpp") is None:
            raise EnvironmentProblem(
                "the embedded engine is not installed",
                "install org with its extra, in its source folder: pipx install --force '.[embedded]'",
            )
        _check_file(self.model)
        async with contextlib.AsyncExitStack() as stack:
            log = stack.enter_context(_log())
            # -P: a module in the user's folder must not be taken for one of ours. A session of its
            # own: Ctrl-C at the terminal is for this process to interpret.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "org.llm.engine"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            stack.push_async_callback(_stop, process)
            self.pid = process.pid
            assert process.stdin is not None and process.stdout is not None
            options = {"parent": os.getpid(), **self._options}
            with contextlib.suppress(ConnectionError):  # a child that is gone already: its log says why
                process.stdin.write(json.dumps(options).encode() + b"\n")
                await process.stdin.drain()
            line = await self._first_line(process.stdout)
            if not line:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
                raise _failure(self.model, await process.wait(), log.read().decode(errors="replace"))
            started = json.loads(line)
            self.base_url = started["url"] + "/v1"
            self.ctx, self.ctx_max = started["ctx"], started["ctx_max"]
            self.threads = started["threads"]
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def _first_line(self, output: asyncio.StreamReader) -> bytes:
        begun = time.monotonic()
        reading = asyncio.ensure_future(output.readline())
        try:
            while not reading.done():
                waited = time.monotonic() - begun
                if waited >= self._deadline_s:
                    raise EnvironmentProblem(
                        f"`{self.model}` is not loaded after {waited:.0f} s",
                        "try a smaller model, or a faster disk",
                    )
                await asyncio.wait([reading], timeout=min(1.0, self._deadline_s - waited))
                if self._on_wait is not None and not reading.done():
                    self._on_wait(time.monotonic() - begun)
            return reading.result()
        finally:
            reading.cancel()


def _log() -> IO[bytes]:
    """A file without a name: it never reaches the terminal, and goes when the last one closes it."""
    return tempfile.TemporaryFile()


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the child: it has nothing to save, so a signal will do, and a harder one if it is stuck."""
    try:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _check_file(model: Path) -> None:
    """Raise `EnvironmentProblem` unless `model` looks like a GGUF file that we may read."""
    try:
        with model.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EnvironmentProblem(f"the model file cannot be read: `{model}`: {error.strerror}") from error
    if magic != b"GGUF":
        raise EnvironmentProblem(
            f"the model file is not a GGUF file: `{model}`", "download a file whose name ends in .gguf"
        )


def _failure(model: Path, status: int, log: str) -> EnvironmentProblem:
    """What to say of a child that ended with `status` before it was ready."""
    lines = [_STAMP.sub("", line.strip()) for line in log.splitlines() if line.strip()]
    loading = [line.partition(_LOAD_ERROR)[2] for line in lines if _LOAD_ERROR in line]
    hint = "\n".join(lines[-5:])
    if -status == signal.SIGKILL:
        reason = "the engine was killed, perhaps for want of memory"
        hint = "choose a smaller model or a smaller context"
    elif status < 0:
        reason = f"the engine was ended by {signal.Signals(-status).name}"
    elif loading:
        reason = loading[-1]
        hint = "download the file again, or choose a model that llama.cpp knows"
    else:
        reason = lines[-1] if lines else f"the engine ended with status {status}"
    return EnvironmentProblem(f"the model cannot be served: `{model}`: {reason}", hint)
