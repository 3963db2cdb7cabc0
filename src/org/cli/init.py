"""`org init`: a commented `org.toml` to start from."""

import argparse
from pathlib import Path

from org.cli.options import Parser
from org.config import starter_toml
from org.config.places import PROJECT_FILE
from org.errors import EnvironmentProblem, UsageError


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="org init", description="Write a commented org.toml.")
    made.add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="where; default: here"
    )
    return made


def run(argv: list[str]) -> int:
    """Write the file. Raises `UsageError` when there is one already: it is never overwritten."""
    path = parser().parse_args(argv).folder / PROJECT_FILE
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_toml())
    except FileExistsError:
        raise UsageError(f"there is one already: {path}", "edit it, or remove it first") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be written: {error.strerror}") from error
    print(f"written: {path}\nnext: take the `#` from the lines you want to set, then `org config`")
    return 0
