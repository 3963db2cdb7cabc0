"""What the sandbox tests share."""

import asyncio
import os
import uuid

from org.sandbox.process import gone


def token() -> str:
    """A word that stands in no other process's arguments."""
    return f"token-{uuid.uuid4().hex}"


def alive(word: str) -> list[int]:
    """The processes with `word` in their arguments; those that have ended have none."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word.encode() in arguments:
            found.append(int(name))
    return found


def there(pid: int) -> bool:
    """Whether the process is still in the table, be it as a zombie."""
    return os.path.exists(f"/proc/{pid}")


async def ended(word: str) -> None:
    """Wait until the processes with `word` in their arguments, killed already, are gone."""
    for pid in alive(word):
        pidfd = os.pidfd_open(pid)
        await gone(pidfd)
        os.close(pidfd)


class Heard:
    """An `on_output` that keeps what came and says when the first of it did."""

    def __init__(self) -> None:
        self.data = b""
        self.any = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        self.data += data
        self.any.set()
