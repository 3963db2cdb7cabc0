"""`python -m org.ops VERB`: the verbs of generations by themselves, with everything else of org broken."""

from __future__ import annotations

import sys
from importlib import import_module

from org.errors import ExitCode
from org.ops.cli import edge

VERBS = (
    *("start", "stop", "status", "logs"),
    *("candidate", "fitness", "compare", "promote", "rollback", "history", "recover"),
)


def main(argv: list[str]) -> int:
    """Run a command line (without the program's name); gives its exit code."""
    verb, *words = argv or ["--help"]
    if verb not in VERBS:
        print(f"usage: python -m org.ops {{{','.join(VERBS)}}} ...", file=sys.stderr)
        return ExitCode.USAGE
    try:
        return edge.run(verb, import_module(f"org.ops.cli.{verb}"), words)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
