"""What `org chat`, `org run` and `org demo` take on the command line, and the settings it gives."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from org.config import Settings, load
from org.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in the one form that errors have here; every verb takes `--debug`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument("--debug", action="store_true", help="print whole tracebacks and every event")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"`{self.prog} --help` explains it")


def add_room_options(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("who takes part")
    who.add_argument("-m", "--model", metavar="NAME", help="the model of all who have none of their own; "
                     "a name of the server's, or a GGUF file")  # fmt: skip
    who.add_argument("--base", metavar="URL", help="the model server")
    who.add_argument("--with", dest="members", metavar="ID=PROFILE[:MODEL]", action="append", help="a "
                     "participant (agent, python or simple) instead of the roster; repeatable")  # fmt: skip
    who.add_argument("--policy", metavar="P", help="who speaks next: in-turn, parallel or mention")
    where = parser.add_argument_group("where it works")
    where.add_argument("-C", dest="folder", metavar="DIR", type=Path, help="work in this folder of yours "
                       "instead of one of the room's own")  # fmt: skip
    where.add_argument("--sandbox", metavar="PLACE", help="where commands run: auto, vm, bubblewrap or local")
    where.add_argument("--unsafe-local", action="store_true",
                       help="run commands on this machine itself, without a wall")  # fmt: skip
    where.add_argument("-y", "--yes", action="store_true", help="run what would be asked about")
    limits = parser.add_argument_group("where it stops")
    for name, kind in (("turns", int), ("seconds", float), ("tokens", int), ("tools", int)):
        limits.add_argument(f"--max-{name}", metavar="N", type=kind)


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that hold with these options. Raises `ConfigError`."""
    folder = args.folder or Path()
    if not folder.is_dir():
        raise UsageError(f"no such folder: `{folder}`")
    flags: dict[str, object] = {
        "model": args.model,
        "base": args.base,
        "policy": args.policy,
        "sandbox.place": args.sandbox,
        "with": args.members,
        "yes": args.yes,
    }
    for name in ("turns", "seconds", "tokens", "tools"):
        flags[f"limits.{name}"] = getattr(args, f"max_{name}")
    return load(cwd=folder, flags=flags, env=os.environ)
