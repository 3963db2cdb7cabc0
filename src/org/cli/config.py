"""`org config`: every setting that holds here, and where it comes from."""

import argparse
import dataclasses
import json
import os
from pathlib import Path

from org.cli.options import Parser
from org.config import Member, Settings, load

JSON_VERSION = 1


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org config", description="Print each setting and its source.")
    made.add_argument("-C", dest="folder", metavar="DIR", type=Path, default=Path(), help="look from DIR")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: list[str]) -> int:
    """Print the settings of a folder as a table or as JSON. Raises `ConfigError`."""
    args = parser().parse_args(argv)
    settings = load(cwd=args.folder, flags={}, env=os.environ)
    print(as_json(settings) if args.json else as_table(settings))
    return 0


def as_json(settings: Settings) -> str:
    places = settings.places
    document = {
        "version": JSON_VERSION,
        "settings": [
            {"key": entry.key, "value": entry.value, "source": entry.source} for entry in settings.entries()
        ],
        "files": {"user": places.user_file, "project": places.project_file},
        "folders": {"config": places.config, "state": places.state, "cache": places.cache},
        "warnings": settings.warnings,
    }
    return json.dumps(document, indent=1, default=_plain)


def as_table(settings: Settings) -> str:
    rows = [(entry.key, _words(entry.value), entry.source) for entry in settings.entries()]
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    value_width = min(value_width, 40)
    lines = [f"{key:{key_width}}  {value:{value_width}}  {source}" for key, value, source in rows]
    places = settings.places
    lines += ["", f"user file:    {places.user_file or f'none ({places.config}/config.toml)'}"]
    lines += [f"project file: {places.project_file or 'none (`org init` writes one)'}"]
    lines += [f"state:        {places.state}", f"cache:        {places.cache}"]
    lines += [f"warning: {warning}" for warning in settings.warnings]
    return "\n".join(lines)


def _plain(value: object) -> object:
    if isinstance(value, Member):
        return {name: given for name, given in dataclasses.asdict(value).items() if given is not None}
    return str(value)


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_member_words(member) for member in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "not set" if value is None else str(value)


def _member_words(member: Member) -> str:
    """As `--with` takes it."""
    return f"{member.id}={member.profile}" + (f":{member.model}" if member.model else "")
