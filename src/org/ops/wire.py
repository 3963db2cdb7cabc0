"""Lines of JSON over a Unix socket, between processes of one user."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_LINE = 1 << 20
"""Bytes of one line."""
VERSION = 1
"""Of what a supervisor is asked, and what it answers."""


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is this user, or root."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", found)[1] in (os.geteuid(), 0)


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A path of the same socket that is short enough for one, whatever the folder's name is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def line(what: Mapping[str, Any]) -> bytes:
    return json.dumps(what).encode() + b"\n"
