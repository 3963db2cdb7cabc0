"""The contract between a generation of the program and whoever starts it, version 1.

It is handed everything in the environment: a listening socket (`ORG_LISTEN_FD`), a pipe on which it is
told to go (`ORG_GO_FD`), one on which it says how far it is (`ORG_ACK_FD`), the path of a Unix socket
on which it answers `GET /health` from the start (`ORG_HEALTH_SOCK`), and the commit and a nonce that
this answer must name. It says `ready`, is told `go`, says `accepting`; on SIGTERM `draining`, and
`drained` before it ends. Any of them may be missing: then that step is left out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass

from org.errors import EnvironmentProblem

VERSION = "1"


@dataclass(frozen=True, slots=True)
class Contract:
    """What this process was handed. A number is a file descriptor, -1 for none."""

    listen_fd: int = -1
    go_fd: int = -1
    ack_fd: int = -1
    health_socket: str = ""
    commit: str = ""
    nonce: str = ""

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Contract:
        """Raises `EnvironmentProblem` for another version, or for what is no file descriptor."""
        version = env.get("ORG_CONTRACT", VERSION)
        if version != VERSION:
            raise EnvironmentProblem(
                f"ORG_CONTRACT={version}: this version of org knows {VERSION}", "start it with that one"
            )
        return cls(
            _descriptor(env, "ORG_LISTEN_FD"),
            _descriptor(env, "ORG_GO_FD"),
            _descriptor(env, "ORG_ACK_FD"),
            env.get("ORG_HEALTH_SOCK", ""),
            env.get("ORG_COMMIT", ""),
            env.get("ORG_NONCE", ""),
        )

    @property
    def takes_over(self) -> bool:
        """Whether there may be one before us, which still has rooms open."""
        return self.go_fd >= 0

    def say(self, word: str) -> None:
        """Tell how far we are. Whoever started us may be gone: that is no reason to stop serving."""
        if self.ack_fd >= 0:
            try:
                os.write(self.ack_fd, f"{word}\n".encode())
            except BrokenPipeError:
                return

    async def go(self) -> bool:
        """Wait to be told to go. False when whoever would tell us is gone."""
        if self.go_fd < 0:
            return True
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()

        def read() -> None:
            if not told.done():
                told.set_result(bool(os.read(self.go_fd, 64)))

        os.set_blocking(self.go_fd, False)
        loop.add_reader(self.go_fd, read)
        try:
            return await told
        finally:
            loop.remove_reader(self.go_fd)


def _descriptor(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not text:
        return -1
    if not text.isdecimal():
        raise EnvironmentProblem(f"{name}={text}: not the number of an open file")
    number = int(text)
    # What this process runs (tools, a model server) must not inherit it.
    try:
        os.set_inheritable(number, False)
    except OSError as error:
        raise EnvironmentProblem(f"{name}={text}: {error.strerror}") from error
    return number
