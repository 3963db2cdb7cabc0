"""`org trust`: let a folder's `org.toml` set what is otherwise the person's own to decide."""

import argparse
import os
import tomllib
from pathlib import Path

from org.cli.options import Parser
from org.config import find_places, load
from org.config.files import read_text_of
from org.config.places import PROJECT_FILE
from org.config.trust import distrust, trust
from org.errors import UsageError

# What says where the person's own files are; the rest of the environment would hide what the file asks for.
_PLACES = ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "ORG_CONFIG")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org trust",
        description="Trust a folder's org.toml as it is now: another server, higher limits, freer tools,"
        " the sandbox, what `org start` runs. When the file changes, it has to be trusted again.",
    )
    made.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: here")
    made.add_argument("--remove", action="store_true", help="trust it no longer")
    return made


def run(argv: list[str]) -> int:
    """Trust the file as it is now, and show what that allows. Raises `UsageError` without a file."""
    args = parser().parse_args(argv)
    env = {name: os.environ[name] for name in _PLACES if name in os.environ}
    places = find_places(args.folder, env)
    path = args.folder.resolve() / PROJECT_FILE if args.remove else places.project_file
    if path is None:
        raise UsageError(f"no {PROJECT_FILE} in {args.folder.resolve()} or above", "`org init` writes one")
    if args.remove:
        known = distrust(places.state, path)
        print(f"no longer trusted: {path.parent}" if known else f"was not trusted: {path.parent}")
        return 0
    text = read_text_of(path)
    asked = load(cwd=path.parent, flags={}, env=env).refused  # a broken file is an error, and not trusted
    start = tomllib.loads(text).get("generation", {}).get("start")
    if start is not None:
        asked = (*asked, f"org start runs {start!r}")
    trust(places.state, path, text)
    print(f"trusted: {path}, as it is now")
    print("\n".join(f"  allowed: {value}" for value in asked) or "  nothing in it was held back")
    return 0
