"""How these verbs take their words and say what came of it: lines for a person, or one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from org.errors import Conflict, EnvironmentProblem, ExitCode, OrgError, UsageError
from org.ops import place, plain

JSON_VERSION = 1


class Parser(argparse.ArgumentParser):
    """Says what is wrong in the one form that errors have here; every verb takes `--debug` and `--here`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.add_argument("--debug", action="store_true", help="print whole tracebacks")
        self.add_argument("--here", action="store_true", default=argparse.SUPPRESS, help="act on this host, "
                          "also when a machine is up")  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"`{self.prog} --help` explains it")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True, slots=True)
class Answer:
    """`reason` is one word for programs; `lines` go to standard output, `notes` to standard error. `page` is
    a file to be written, when it has a name, and what is to be in it."""

    reason: str
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    code: ExitCode = ExitCode.DONE
    page: tuple[str, str] = ("", "")


def give(as_json: bool, answer: Answer) -> int:
    """Say what came of a verb; gives its exit code."""
    if as_json:
        _write(*answer.page)
        _print_json(answer.code, answer.reason, answer.details)
        return answer.code
    for line in answer.notes:
        print(f"org: {plain.line(line)}", file=sys.stderr)
    show("".join(f"{line}\n" for line in answer.lines))
    if _write(*answer.page):
        show(f"written: {place.called(answer.page[0])}\n")
    return answer.code


def show(text: str) -> None:
    """Write text to standard output as it is; in a terminal without what could drive that, for who knows
    who wrote it."""
    if sys.stdout.isatty():
        sys.stdout.write("".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))
    sys.stdout.flush()


def require_writable(path: str) -> None:
    """To be asked before a page is made that takes long. Raises `EnvironmentProblem`."""
    try:
        made = not os.path.exists(path)
        with open(path, "ab"):
            pass
        if made:
            os.unlink(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(path: str, text: str) -> bool:
    """Write a page of ours to the file that somebody named; whether they named one."""
    if not path:
        return False
    try:
        Path(path).write_bytes(plain.text(text).encode())
    except OSError as error:
        raise _unwritable(path, error) from error
    return True


def _unwritable(path: str, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(f"cannot write {place.called(path)}: {error.strerror}", "name another file")


def give_error(error: OrgError) -> int:
    """Say an expected error as a JSON object; gives the exit code."""
    code = ExitCode(error.exit_code)
    files = {"files": list(error.files)} if isinstance(error, Conflict) else {}
    _print_json(code, code.name.lower(), {"message": error.message, "hint": error.hint, **files})
    return code


def say_error(error: OrgError) -> int:
    """Say an expected error in lines for a person; gives the exit code."""
    lines = (f"org: {error.message}", *(f"     {line}" for line in error.hint.splitlines()))
    print(*map(plain.line, lines), sep="\n", file=sys.stderr)
    return ExitCode(error.exit_code)


def _print_json(code: ExitCode, reason: str, details: Mapping[str, object]) -> None:
    told = {"v": JSON_VERSION, "code": int(code), "reason": reason, "where": place.name(), **details}
    print(json.dumps(told))
