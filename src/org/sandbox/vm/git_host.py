"""git on this host, in a repository of the user's or in one of our own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from org.errors import EnvironmentProblem
from org.wording import one_line

_READ = 65_536
_MOST_SAID = 262_144  # bytes that are kept of what a git complains
_MOST_TOLD = 16_777_216  # bytes that one may answer
_MEMORY_KIB = 3 * 1024**2  # for what reads a guest's objects; a small delta may call for any size

# Whatever says where a repository is, or what may be spoken, is ours to say.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH")
_QUIET = {"core.hooksPath": "/dev/null", "gc.auto": "0", "maintenance.auto": "false", "color.ui": "false"}
_STRICT = {
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "fetch.unpackLimit": "1",
    "protocol.version": "0",
    "core.logAllRefUpdates": "always",
    "core.bigFileThreshold": "32m",
    "core.packedGitWindowSize": "32m",
    "core.packedGitLimit": "256m",
    "pack.threads": "1",
}
_BOUNDED = ("sh", "-c", 'ulimit -v "$0" 2> /dev/null; exec "$@"', str(_MEMORY_KIB))
_LINE_END = re.compile(rb"[\r\n]+")
# What git says last, and which says least.
_VAGUE = (
    "fatal: the remote end hung up",
    "fatal: fetch-pack: invalid",
    "fatal: early EOF",
    "fatal: Could not",
)


@dataclass(frozen=True, slots=True)
class Done:
    """How a git ended, what it answered, and the end of what it said beside."""

    code: int
    told: bytes
    said: bytes


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of this host. In one that is `own` no setting of the user or the system counts, and
    what is fetched into it is checked."""

    path: Path
    own: bool = False

    async def ask(self, *words: str) -> str:
        """What git answers. Raises `EnvironmentProblem` when it fails."""
        done = await self.run(words)
        if done.code:
            raise EnvironmentProblem(f"git failed in {self.path}: {reason(done.said)}")
        return done.told.decode(errors="surrogateescape").strip()

    async def asked(self, *words: str) -> str:
        """What git answers; nothing when it says no."""
        done = await self.run(words)
        return "" if done.code else done.told.decode(errors="surrogateescape").strip()

    async def run(
        self,
        words: Sequence[str],
        *,
        end: socket.socket | None = None,
        on_said: Callable[[bytes], None] = lambda line: None,
    ) -> Done:
        """Run git; the socket `end` becomes its own, and is closed here. `on_said` gets each line that it
        says beside its answer. Cancelling it ends all of it. Raises `EnvironmentProblem` without a git."""
        fds = () if end is None else (end.fileno(),)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv(words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env(),
                pass_fds=fds,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise EnvironmentProblem("git is not installed", "`apt install git`") from error
        finally:
            if end is not None:
                end.close()
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            told, said, _ = await asyncio.gather(
                _told(process.stdout), _said(process.stderr, on_said), process.wait()
            )
        finally:
            with suppress(ProcessLookupError):  # nothing of it is left, as a rule
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return Done(process.returncode or 0, told, said)

    def _argv(self, words: Sequence[str]) -> list[str]:
        settings = _QUIET | (_STRICT if self.own else {})
        where = ["--git-dir" if self.own else "-C", str(self.path)]
        pairs = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*(_BOUNDED if self.own else ()), "git", "--no-optional-locks", *where, *pairs, *words]

    def _env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        env |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        if self.own:
            return env | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        return env | {name: os.environ[name] for name in _KEPT if name in os.environ}


async def _told(stream: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while piece := await stream.read(_READ):
        data += piece
        if len(data) > _MOST_TOLD:
            raise EnvironmentProblem("git answered too much")
    return bytes(data)


async def _said(stream: asyncio.StreamReader, on_said: Callable[[bytes], None]) -> bytes:
    """Hear a stream to its end; the end of what came. A line that is too long comes in pieces."""
    kept = bytearray()
    line = b""
    while piece := await stream.read(_READ):
        kept += piece
        del kept[: max(0, len(kept) - _MOST_SAID)]
        *lines, line = _LINE_END.split(line + piece)
        for one in lines:
            on_said(one)
        if len(line) > _READ:
            line = b""
    return bytes(kept)


def reason(said: bytes) -> str:
    """What a git complained of, on one line fit for a terminal."""
    lines = [one_line(text.decode(errors="replace"), 300) for text in _LINE_END.split(said) if text.strip()]
    faults = [line for line in lines if line.startswith(("error:", "fatal:")) and not line.startswith(_VAGUE)]
    return (faults or lines[-1:] or ["it did not say why"])[0].removeprefix("error: ").removeprefix("fatal: ")
