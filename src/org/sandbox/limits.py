"""What a command may use, and how a shell is told so."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace

_SHELLS = {"sh", "bash", "dash"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may use.

    `processes` counts threads too. `memory` is bytes: address space of each process, and where a
    cgroup can be made also memory of all together. `file_size` is bytes of each file written,
    `tmp` bytes of each temporary folder held in memory, `cpu_s` seconds of each process.
    """

    processes: int = 256
    memory: int = 2 * 1024**3
    file_size: int = 256 * 1024**2
    tmp: int = 256 * 1024**2
    cpu_s: int = 600


def within(limits: Limits) -> Limits:
    """`limits`, lowered where this process itself may have no more: a shell cannot raise its own."""
    return replace(
        limits,
        processes=_lower(limits.processes, resource.RLIMIT_NPROC),
        memory=_lower(limits.memory, resource.RLIMIT_AS),
        file_size=_lower(limits.file_size, resource.RLIMIT_FSIZE),
        cpu_s=_lower(limits.cpu_s, resource.RLIMIT_CPU),
    )


def _lower(wanted: int, kind: int) -> int:
    _, most = resource.getrlimit(kind)
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


def limited(argv: Sequence[str], limits: Limits, sh: str, *, processes: bool) -> list[str]:
    """`argv` behind the limits, set by a shell's own `ulimit`: the parent needs no `preexec_fn`.

    `sh` is the file that `/bin/sh` really is; shells differ in the words of `ulimit`. `processes`
    says whether to limit their number. When `argv` is itself `sh -c SCRIPT` the limits go in front
    of the script, on its first line: that saves starting one more program, and lines keep their
    numbers.
    """
    count = limits.processes if processes else 0
    if len(argv) > 2 and argv[1] == "-c" and argv[0].rpartition("/")[2] in _SHELLS:
        name = argv[0].rpartition("/")[2]
        script = _ulimit(limits, count, sh if name == "sh" else name, posix=name == "sh") + argv[2]
        return [argv[0], "-c", script, *argv[3:]]
    front = _ulimit(limits, count, sh, posix=True) + 'exec "$@"'
    return ["/bin/sh", "-c", front, "sh", *argv]


def _ulimit(limits: Limits, processes: int, shell: str, *, posix: bool) -> str:
    bash = shell.rpartition("/")[2] == "bash"
    block = 1024 if bash and not posix else 512
    values = [
        ("c", 0),
        ("v", limits.memory // 1024),
        ("f", limits.file_size // block),
        ("t", limits.cpu_s),
    ]
    if processes:
        values.append(("u" if bash else "p", processes))
    return "".join(f"ulimit -{letter} {value}; " for letter, value in values)
