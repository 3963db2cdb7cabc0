"""Commands and files in a guest, over the port `org.ctl`: the host's half of `agent.py`."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from org.errors import Busy, EnvironmentProblem, OrgError, SandboxGone, UsageError
from org.ports import Command, ExecResult
from org.sandbox.vm import frames
from org.sandbox.vm.link import Link
from org.sandbox.vm.talk import Talk

_GRACE_S = 15.0  # beyond a command's own time, for the guest to end it and say so
_ANSWER_S = 30.0
_BYTES_PER_S = 262_144  # the slowest that a file may cross
_CODES = range(-64, 256)
_MOST_JOBS = 1000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and as whom commands run in the guest, with what at most.

    `workspace` is an absolute path there, made when it is missing; `memory` in bytes and `pids` bound
    each command with all that it starts.
    """

    workspace: str = "/srv/org/work"
    user: str = "job"
    env: Mapping[str, str] = field(default_factory=dict)
    memory: int = 268_435_456
    pids: int = 256


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, with the most bytes of memory it had, and whether it was ended for want of it."""

    result: ExecResult
    peak: int
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A command that stays. `code` is None while it runs; `started` is Unix time by the guest's clock."""

    name: str
    pid: int
    argv: tuple[str, ...]
    started: float
    code: int | None


class Attached:
    """A command whose streams are one's own: nothing of them is left out, nothing is kept."""

    def __init__(self, link: Link, talk: Talk) -> None:
        self.code: int | None = None
        """The exit code, once `next` returned None."""
        self.out_of_memory = False
        """Whether somebody in it was ended for want of memory, likewise."""
        self._link = link
        self._talk = talk

    async def next(self) -> tuple[int, bytes] | None:
        """(1 or 2 for the stream, some bytes), or None at the end. Raises `SandboxGone`."""
        frame = await self._talk.next()
        if frame.kind == frames.CLOSE:
            answer = _answer(self._talk)
            self.code = _whole(self._link, answer, "code", _CODES)
            self.out_of_memory = answer.get("oom") is True
            return None
        return (2 if frame.kind == frames.ERR else 1), frame.payload

    async def write(self, data: bytes) -> None:
        """To its standard input, as it takes it."""
        await self._talk.write(data)

    def finish(self) -> None:
        """End its standard input."""
        self._talk.finish()

    def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal changed."""
        self._talk.note({"size": [rows, columns]})


class Channel:
    """A `Sandbox` in a guest, and what else its agent does. Any number of calls may run at a time."""

    def __init__(self, link: Link, surroundings: Surroundings | None = None) -> None:
        self._link = link
        self._where = surroundings or Surroundings()

    @property
    def missing(self) -> tuple[str, ...]:
        """What the guest's kernel does not enforce, a sentence each; nothing in a guest of ours."""
        told = self._link.about.get("missing")
        return tuple(_line(text) for text in told[:20]) if isinstance(told, list) else ()

    @property
    def session(self) -> str:
        """Changes with each start of the guest's agent and each restore of a snapshot."""
        return _line(self._link.about.get("session"))

    # -- the port

    async def exec(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> ExecResult:
        return (await self.run(command, on_output)).result

    async def read_file(self, path: str, limit: int = 1_048_576) -> bytes:
        request = {**self._at(), "op": "read", "path": path, "limit": limit}
        return await self._fetch(request, limit)

    async def write_file(self, path: str, data: bytes, *, append: bool = False) -> None:
        request = {**self._at(), "op": "write", "path": path, "append": append}
        async with self._asked(request, _ANSWER_S + len(data) / _BYTES_PER_S) as talk:
            await talk.write(data)
            talk.finish()
            await _closed(talk)

    # -- more about commands

    async def run(self, command: Command, on_output: Callable[[bytes], None] | None = None) -> Ran:
        """`exec`, with what it took. `python3 -S -c CODE` comes from an interpreter that runs already."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        collecting = _Collecting(self._link, command.output_limit)
        request = self._exec(command.argv) | {
            "timeout_s": command.timeout_s,
            "limit": command.output_limit,
            "scratch": command.scratch,
            "stdin": bool(command.stdin),
        }
        async with self._asked(request, command.timeout_s + _GRACE_S) as talk:
            feeding = loop.create_task(_feed(talk, command.stdin))
            try:
                while (frame := await talk.next()).kind != frames.CLOSE:
                    collecting.take(frame)
                    if frame.kind == frames.DATA and on_output is not None:
                        on_output(frame.payload)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            answer = _answer(talk, started=False)
        head, tail, left_out = collecting.finish(answer)
        code = _whole(self._link, answer, "code", _CODES)
        peak = _whole(self._link, answer, "peak", range(1 << 50))
        late = answer.get("timed_out") is True
        result = ExecResult(code, head, tail, left_out, late, loop.time() - started)
        return Ran(result, peak, answer.get("oom") is True)

    async def python(
        self,
        code: str,
        on_output: Callable[[bytes], None] | None = None,
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        output_limit: int = 16_384,
    ) -> ExecResult:
        """Run code in a fresh process of an interpreter that runs already, in a folder of its own."""
        argv = ("python3", "-S", "-c", code)
        return await self.exec(Command(argv, stdin, timeout_s, output_limit, scratch=True), on_output)

    @asynccontextmanager
    async def attached(
        self,
        argv: Sequence[str],
        *,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> AsyncIterator[Attached]:
        """Run a command with its streams one's own, in a terminal of (rows, columns) if given.

        `cwd` is a folder of the workspace, or absolute. Leaving the context ends the command.
        """
        request = self._exec(argv) | {
            "stdin": True,
            "apart": terminal is None,
            "cwd": cwd,
            "terminal": terminal,
        }
        request["env"] = {**self._where.env, **(env or {})}
        async with self._asked(request, None) as talk:
            yield Attached(self._link, talk)

    # -- commands that stay

    async def detach(
        self, name: str, argv: Sequence[str], *, cwd: str = "", env: Mapping[str, str] | None = None
    ) -> int:
        """Start a command that outlives this connection; its number in the guest.

        Raises `Busy` when a command of that name runs.
        """
        request = self._exec(argv) | {"op": "start", "name": name, "cwd": cwd}
        request["env"] = {**self._where.env, **(env or {})}
        return _whole(self._link, await self._ask(request), "pid", range(1 << 22))

    async def jobs(self) -> tuple[Job, ...]:
        """The commands that were started to stay, ended ones too until they are stopped."""
        told = (await self._ask({"op": "jobs"})).get("jobs")
        if not isinstance(told, list) or len(told) > _MOST_JOBS:
            raise _broken(self._link, "a list of jobs that is none")
        return tuple(self._job(one) for one in told)

    async def stop(self, name: str, grace_s: float = 5.0) -> int:
        """Ask such a command to end, end it after `grace_s`, forget it; its exit code."""
        answer = await self._ask({"op": "stop", "name": name, "grace_s": grace_s}, grace_s)
        return _whole(self._link, answer, "code", _CODES)

    async def log(self, name: str, size: int = 65_536) -> bytes:
        """The last bytes that such a command said; some 256 KiB of them are kept."""
        return await self._fetch({"op": "log", "name": name, "size": size}, size)

    async def follow(self, name: str, on_output: Callable[[bytes], None], size: int = 65_536) -> int:
        """Hear what such a command says, its last `size` bytes first, until it has ended; its exit code."""
        request = {"op": "log", "name": name, "size": size, "follow": True}
        async with self._asked(request, None) as talk:
            while (frame := await talk.next()).kind != frames.CLOSE:
                if frame.kind != frames.DATA:
                    raise _broken(self._link, f"a frame of kind {frame.kind} in a log")
                on_output(frame.payload)
            return _whole(self._link, _answer(talk), "code", _CODES)

    # -- the guest itself

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Seconds until the agent answered. Raises `SandboxGone`."""
        try:
            return await self._link.ping(timeout_s)
        except TimeoutError as error:
            raise SandboxGone(f"the machine did not answer within {timeout_s:g} s") from error

    async def restored(self, *, machine_id: str = "", hostname: str = "") -> None:
        """To be called first after a snapshot was restored: the guest gets this clock, randomness of its
        own and a new session; `machine_id` (32 hexadecimal digits) and `hostname` unless empty."""
        answer = await self._ask(
            {
                "op": "restored",
                "now": time.time(),
                "seed": secrets.token_hex(64),
                "machine": machine_id,
                "hostname": hostname,
            }
        )
        self._link.about["session"] = answer.get("session")

    # -- how

    def _at(self) -> dict[str, Any]:
        return {"workspace": self._where.workspace, "user": self._where.user}

    def _exec(self, argv: Sequence[str]) -> dict[str, Any]:
        where = self._where
        bounds = {"memory": where.memory, "pids": where.pids}
        return {"op": "exec", "argv": list(argv), "env": dict(where.env), **bounds, **self._at()}

    async def _ask(self, request: Mapping[str, Any], work_s: float = 0.0) -> dict[str, Any]:
        """The answer to a request for which the guest may work so long."""
        async with self._asked(request, work_s + _ANSWER_S) as talk:
            return await _closed(talk)

    async def _fetch(self, request: Mapping[str, Any], limit: int) -> bytes:
        data = bytearray()
        async with self._asked(request, _ANSWER_S + limit / _BYTES_PER_S) as talk:
            while (frame := await talk.next()).kind != frames.CLOSE:
                data += frame.payload
                if len(data) > limit:
                    raise _broken(self._link, "more bytes than were asked for")
            _answer(talk)
        return bytes(data)

    @asynccontextmanager
    async def _asked(self, request: Mapping[str, Any], timeout_s: float | None) -> AsyncIterator[Talk]:
        """A channel with that request. What the guest has not finished when it is left is ended first.

        Raises `SandboxGone` when the guest does not answer in time, or ends before it answered; what
        was asked for may then have happened or not.
        """
        if len(frames.told(frames.OPEN, 0, request)) > frames.MOST_ASKED:
            raise UsageError("the command's words are too long")
        talk = self._link.open(request)
        timer = None
        if timeout_s is not None:
            late = f"it did not answer a request within {timeout_s:g} s"
            timer = asyncio.get_running_loop().call_later(timeout_s, self._link.fail, late)
        try:
            yield talk
        except SandboxGone as error:
            if self._link.gone is None:
                raise
            name = _line(request["op"] if "argv" not in request else " ".join(request["argv"][:1]))
            raise SandboxGone(f"{error.message}; whether `{name}` was done is unknown", error.hint) from error
        finally:
            if timer is not None:
                timer.cancel()
            await talk.end()

    def _job(self, told: Any) -> Job:
        match told:
            case {"name": str(name), "argv": list(argv), "started": float(started)} if math.isfinite(started):
                code = None if told.get("code") is None else _whole(self._link, told, "code", _CODES)
                pid = _whole(self._link, told, "pid", range(1 << 22))
                return Job(_line(name), pid, tuple(_line(word) for word in argv[:8]), started, code)
        raise _broken(self._link, "a job that is none")


class _Collecting:
    """Output as it comes: the first `limit` bytes, then the end of what is more than these."""

    def __init__(self, link: Link, limit: int) -> None:
        self._link = link
        self._limit = limit
        self._shown = bytearray()
        self._tail = bytearray()

    def take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.DATA:
            self._shown += frame.payload
        elif frame.kind == frames.TAIL:
            self._tail += frame.payload
        else:
            raise _broken(self._link, f"a frame of kind {frame.kind} in an output")
        if len(self._shown) > self._limit or len(self._tail) > self._limit - self._limit // 2:
            raise _broken(self._link, "more output than its limit")

    def finish(self, answer: Mapping[str, Any]) -> tuple[bytes, bytes, int]:
        """(head, tail, bytes left out between them); everything is head when nothing was left out."""
        total = _whole(self._link, answer, "total", range(1 << 60))
        head_limit = self._limit // 2
        tail_limit = self._limit - head_limit
        left_out = max(0, total - self._limit)
        if len(self._shown) != min(total, self._limit) or len(self._tail) != min(left_out, tail_limit):
            raise _broken(self._link, "an output whose parts do not fit")
        if left_out == 0:
            return bytes(self._shown), b"", 0
        end = self._shown[head_limit:] + self._tail
        return bytes(self._shown[:head_limit]), bytes(end[len(end) - tail_limit :]), left_out


async def _feed(talk: Talk, data: bytes) -> None:
    if data:
        await talk.write(data)
        talk.finish()


async def _closed(talk: Talk) -> dict[str, Any]:
    """The guest's last word, whatever else it says before."""
    while (await talk.next()).kind != frames.CLOSE:
        pass
    return _answer(talk)


def _answer(talk: Talk, *, started: bool = True) -> dict[str, Any]:
    """What the guest answered. Raises the error that it answered with."""
    answer = talk.closed or {}
    if "error" not in answer:
        return answer
    message = _line(answer.get("message"))
    kinds: dict[object, type[OrgError]] = {"usage": UsageError, "busy": Busy}
    if not started and answer["error"] == "environment":
        raise SandboxGone(f"no command can be started: {message}")
    raise kinds.get(str(answer["error"]), EnvironmentProblem)(message)


def _whole(link: Link, answer: Mapping[str, Any], name: str, allowed: range) -> int:
    """A number of an answer. A guest that gives none is gone."""
    value = answer.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise _broken(link, f"an answer without `{name}`")
    return value


def _broken(link: Link, what: str) -> SandboxGone:
    """The guest sent what it may not: the link is at its end."""
    link.fail(f"it broke the protocol: {what}")
    return SandboxGone(f"the machine broke the protocol: {what}")


def _line(text: object) -> str:
    """Words of the guest, fit for a message: one line, printable, not longer than a few lines."""
    shown = text if isinstance(text, str) else ""
    return "".join(char if char.isprintable() else "?" for char in shown[:400])
