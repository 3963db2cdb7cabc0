"""What `org start --systemd` prints: a unit that supervises a program in the foreground. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from org.ops.plan import PASSED_ON

_UNIT = """\
[Unit]
Description=org: current of {name}
After=network.target

[Service]
Type=exec
WorkingDirectory={folder}
{environment}\
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


_OF_A_SESSION = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "XDG_RUNTIME_DIR"})
"""What systemd gives by itself, or what ends with a session."""


def file_name(name: str) -> str:
    """What the unit of a program is called; one supervisor serves both its colours."""
    return f"org-{re.sub('[^A-Za-z0-9_.-]', '_', name)}.service"


def unit(name: str, folder: str, start: Sequence[str], drain_s: float, env: Mapping[str, str]) -> str:
    """`start` are the words that serve it in the foreground, in that folder; of `env` it is given where
    things are and which model, and no key."""
    return _UNIT.format(
        name=_escaped(name),
        environment="".join(_environment(env)),
        folder=_escaped(folder),
        start=" ".join(map(_quoted, start)),
        stop_s=int(drain_s) + 15,
    )


def _environment(env: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(env.keys() & (PASSED_ON - _OF_A_SESSION)):
        if "@" not in env[name]:  # a proxy's password is not for a file
            yield f"Environment={_literal(f'{name}={env[name]}')}\n"


def _quoted(word: str) -> str:
    """In a command line, where variables are filled in."""
    return _literal(word).replace("$", "$$")


def _literal(word: str) -> str:
    backslash, quote = "\\", '"'
    safe = word.replace(backslash, backslash * 2).replace(quote, backslash + quote).replace("\n", "\\n")
    return f'"{_escaped(safe)}"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
