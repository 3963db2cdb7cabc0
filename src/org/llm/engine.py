"""llama.cpp's own HTTP server in a process of its own: `python -m org.llm.engine`.

Started by `org.llm.embedded`, not by people. Standard input carries one line of JSON with the
fields of `Options`, and then nothing until it ends: its end means that the parent is gone or wants
the server to stop. Standard output carries one line of JSON with the fields of `Started` once the
server answers. Standard error is the log; when the server cannot start, the exit status is 3 and
the log says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import xllamacpp

FAILED = 3
_PR_SET_PDEATHSIG = 1
_WARNINGS = 2  # llama.cpp's log levels: 1 errors, 2 warnings, 3 each request


@dataclass(frozen=True, slots=True)
class Options:
    """`ctx` counts tokens of one request, `parallel` requests at once; `threads` 0 means one for
    each physical core. `raw` leaves tool calls in the text. `parent` is the process to live for."""

    parent: int
    model: str
    alias: str
    ctx: int
    parallel: int
    threads: int
    raw: bool
    api_key: str


@dataclass(frozen=True, slots=True)
class Started:
    """`url` without `/v1`; `ctx` and `ctx_max` are tokens: what a request gets, what the model
    was trained for."""

    url: str
    ctx: int
    ctx_max: int
    threads: int


def physical_cores() -> int:
    """The number of physical cores this process may run on (hyper-threads share one)."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    siblings = {Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus}
    with contextlib.suppress(OSError):
        return len({path.read_text() for path in siblings})
    return len(cpus)


def _params(options: Options, threads: int) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.offline = True
    # Whoever can open a web page on this machine must not be able to use or watch the server.
    params.ui = False
    params.cors_origins = ""
    params.endpoint_slots = False
    params.api_keys = [options.api_key] if options.api_key else []
    params.use_jinja = True
    params.force_pure_content_parser = options.raw
    # The slots divide the context among them.
    params.n_ctx = options.ctx * options.parallel
    params.n_parallel = options.parallel
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # Prompts of other participants wait here for their next turn; at most a quarter of the memory.
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    params.cache_ram_mib = min(8192, memory_mib // 4)
    params.warmup = False  # the first prompt does the same, and is asked for
    params.verbosity = _WARNINGS
    return params


def _contexts(url: str, api_key: str) -> tuple[int, int]:
    """The context of a request and the one of the training, in tokens, as the server reports them."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"GET /v1/models HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    meta = json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["meta"]
    return meta["n_ctx"], meta["n_ctx_train"]


def main() -> int:
    """Serve until standard input ends. Returns the exit status."""
    report = os.dup(1)
    os.dup2(2, 1)  # whatever the engine prints is log
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    options = Options(**json.loads(line))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != options.parent:
            return 0
    watch = threading.Thread(target=_exit_at_end_of_input, daemon=True)
    watch.start()
    threads = options.threads or physical_cores()
    try:
        server = xllamacpp.Server(_params(options, threads))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    url = server.listening_address
    ctx, ctx_max = _contexts(url, options.api_key)
    os.write(report, json.dumps(asdict(Started(url, ctx, ctx_max, threads))).encode() + b"\n")
    os.close(report)
    watch.join()
    return 0


def _exit_at_end_of_input() -> None:
    """Exit at once: the server's own way out waits for the answers it is giving, and nobody reads them.

    While a model loads no other thread runs, so that the end is noticed after that; the kernel's
    signal does not wait.
    """
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
