"""Fetching over HTTP: a few files at a time, each checked by size and sum, each resumable."""

from __future__ import annotations

import hashlib
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.request import OpenerDirector

from org.errors import EnvironmentProblem

AT_A_TIME = 4
_CHUNK = 1 << 16
_IDLE_S = 30.0  # without a byte
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch: `size` in bytes, `path` where it goes."""

    url: str
    size: int
    sha256: str
    path: Path


class Stopped(Exception):
    """Somebody asked to stop."""


def opener(proxies: Mapping[str, str] | None = None) -> OpenerDirector:
    """What opens addresses, through `proxies` (scheme -> URL), or those of the environment."""
    return urllib.request.build_opener(urllib.request.ProxyHandler(dict(proxies) if proxies else None))


def fetch_text(url: str, opener: OpenerDirector) -> bytes:
    """A small file, whole. Raises `EnvironmentProblem`."""
    try:
        with opener.open(url, timeout=_IDLE_S) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, http.client.HTTPException) as error:
        raise EnvironmentProblem(f"cannot fetch {url}: {_reason(error)}") from error


def fetch_all(
    wanted: Sequence[Wanted],
    opener: OpenerDirector,
    on_bytes: Callable[[int, bool], None],
    stop: threading.Event,
) -> None:
    """Fetch all files, `AT_A_TIME` at once; `on_bytes(count, whole)` counts bytes as they come (a negative
    number where a file begins afresh) and says when a file is whole; files that were there already
    count too. It is called from other threads.

    What is there and right is kept, what is there in part is continued. Raises
    `EnvironmentProblem`, and `Stopped` soon after `stop` is set.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        tasks = [pool.submit(_fetch, one, opener, on_bytes, stop) for one in wanted]
        try:
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            failed = next((task for task in done if task.exception() is not None), None)
        finally:
            # The pool waits for its threads: after a failure they need not finish what they do.
            for task in tasks:
                task.cancel()
            if any(not task.done() for task in tasks):
                stop.set()
    if failed is not None:
        failed.result()


def _fetch(
    wanted: Wanted, opener: OpenerDirector, on_bytes: Callable[[int, bool], None], stop: threading.Event
) -> None:
    if is_right(wanted.path, wanted.size, wanted.sha256):
        on_bytes(wanted.size, True)
        return
    part = wanted.path.with_name(wanted.path.name + ".part")
    counted = 0

    def reached(position: int) -> None:
        nonlocal counted
        on_bytes(position - counted, False)
        counted = position

    for attempt in range(_TRIES):
        try:
            _continue(wanted, opener, part, reached, stop)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == _TRIES - 1 or isinstance(error, urllib.error.HTTPError):
                hint = "try again: what was fetched is kept"
                raise EnvironmentProblem(f"cannot fetch {wanted.url}: {_reason(error)}", hint) from error
    if not is_right(part, wanted.size, wanted.sha256):
        part.unlink()
        raise EnvironmentProblem(
            f"not what the archive's index promises: {wanted.url}", "try again, or name another `--mirror`"
        )
    part.replace(wanted.path)
    on_bytes(0, True)


def _continue(
    wanted: Wanted, opener: OpenerDirector, part: Path, reached: Callable[[int], None], stop: threading.Event
) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= wanted.size:  # longer than it may be: afresh
        part.unlink()
        have = 0
    request = urllib.request.Request(wanted.url, headers={"Range": f"bytes={have}-"} if have else {})
    with opener.open(request, timeout=_IDLE_S) as answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                if stop.is_set():
                    raise Stopped(wanted.url)
                file.write(chunk)
                reached(file.tell())
                if file.tell() > wanted.size:
                    return
    if part.stat().st_size < wanted.size:
        raise ConnectionError("the server ended it early")


def is_right(path: Path, size: int, sha256: str) -> bool:
    """Whether the file is there with that size and sum."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the answer, too
    elif isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
