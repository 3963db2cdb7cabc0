"""What the programs that are started around a guest are told of their surroundings: next to nothing."""

from __future__ import annotations

import os


def bare() -> dict[str, str]:
    """Where programs are. Nothing of what else whoever started the machine had set, keys above all."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}


# Where this Python finds itself and its packages, and whose certificates it takes.
_OURS = ("HOME", "PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


def ours() -> dict[str, str]:
    """What the process needs that a machine lives in. What is secret comes to it another way."""
    return bare() | {name: os.environ[name] for name in _OURS if name in os.environ}
