"""What `org start --systemd` prints: a unit that supervises a program in the foreground. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_UNIT = """\
[Unit]
Description=org: {colour} of {name}
After=network.target

[Service]
Type=exec
WorkingDirectory={folder}
ExecStart={start}
# The supervisor becomes its next image, and what it serves goes on.
ExecReload=/bin/kill -HUP $MAINPID
# A supervisor that was killed finds what it served when it is started again.
KillMode=process
TimeoutStopSec={stop_s}
Restart=on-failure

[Install]
WantedBy=default.target
"""


def unit(colour: str, name: str, folder: str, start: Sequence[str], drain_s: float) -> str:
    """`start` are the words that serve it in the foreground, in that folder."""
    return _UNIT.format(
        colour=colour,
        name=_escaped(name),
        folder=_escaped(folder),
        start=" ".join(map(_quoted, start)),
        stop_s=int(drain_s) + 15,
    )


def _quoted(word: str) -> str:
    backslash, quote = "\\", '"'
    safe = word.replace(backslash, backslash * 2).replace(quote, backslash + quote).replace("$", "$$")
    return f'"{_escaped(safe)}"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
