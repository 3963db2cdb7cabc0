"""`org completion`: a script that makes bash, zsh or fish complete verbs, options and rooms.

What is completed is read from the parsers of the verbs, so nothing is listed twice.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from org.cli import parsers
from org.cli.options import Parser
from org.config import find_places
from org.config.schema import POLICIES
from org.errors import UsageError

ROOMS = "org completion --rooms 2>/dev/null"
"""What a script runs to know the rooms of the moment."""

Source: TypeAlias = Literal["nothing", "rooms", "files", "folders"] | tuple[str, ...]
"""What may stand in a place: words, or what is looked up."""

_BY_METAVAR: dict[str, Source] = {
    "ROOM": "rooms",
    "FILE": "files",
    "DIR": "folders",
    "P": POLICIES,
    "PLACE": ("auto", "vm", "bubblewrap", "local"),
}


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Option:
    """`takes` is what stands after it, None for a flag."""

    names: tuple[str, ...]
    about: str
    takes: Source | None


@dataclass(frozen=True, slots=True)
class Command:
    """A verb (`show`), or a verb of a verb (`rooms rm`), and what may follow."""

    path: str
    about: str
    options: tuple[Option, ...] = ()
    words: Source = field(default="nothing")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="org completion",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print a completion script. Where it belongs:\n"
        "  bash  org completion bash > ~/.local/share/bash-completion/completions/org\n"
        "  zsh   org completion zsh > _org, in a folder of $fpath\n"
        "  fish  org completion fish > ~/.config/fish/completions/org.fish",
    )
    made.add_argument("shell", choices=tuple(_SCRIPTS), nargs="?", metavar="SHELL", help="bash, zsh or fish")
    made.add_argument("--rooms", action="store_true", help=argparse.SUPPRESS)
    return made


def run(argv: list[str]) -> int:
    """Print the script, or with `--rooms` the ids that it completes. Raises `UsageError`."""
    args = parser().parse_args(argv)
    if args.rooms:
        print("\n".join(room_ids(find_places(Path(), os.environ).rooms)))
        return 0
    if args.shell is None:
        raise UsageError("which shell? `bash`, `zsh` or `fish`", "`org completion --help` explains it")
    print(_SCRIPTS[args.shell](commands()), end="")
    return 0


def room_ids(folder: Path) -> list[str]:
    """The names of the rooms, by their folders alone: somebody waits at a half-typed line.

    None that a shell would take for more than a word.
    """
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def commands() -> list[Command]:
    """Every verb, and every verb of a verb after it."""
    found: list[Command] = []
    for verb, (about, made) in parsers().items():
        found += [Command(verb, about)] if made is None else _read(verb, about, made)
    return found


def _read(path: str, about: str, made: argparse.ArgumentParser) -> list[Command]:
    options: list[Option] = []
    words: Source = "nothing"
    below: list[Command] = []
    for action in made._actions:  # argparse has no other way to tell what it knows
        if isinstance(action, argparse._SubParsersAction):
            words = tuple(action.choices)
            for name, inner in action.choices.items():
                below += _read(f"{path} {name}", inner.description or "", inner)
        elif not action.option_strings:
            words = _source(action) if words == "nothing" else words
        elif action.help != argparse.SUPPRESS:
            takes = None if action.nargs == 0 else _source(action)
            options.append(Option(tuple(action.option_strings), action.help or "", takes))
    return [Command(path, about, tuple(options), words), *below]


def _source(action: argparse.Action) -> Source:
    if action.choices is not None:
        return tuple(map(str, action.choices))
    return _BY_METAVAR.get(str(action.metavar), "nothing")


def _top(known: Sequence[Command]) -> list[Command]:
    return [command for command in known if " " not in command.path]


def _quoted(text: str) -> str:
    """Text as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


# -- bash

_BASH = r"""# bash completion of org
_org() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local verb=${COMP_WORDS[1]} kind= words= options=
    # Bash cuts `--option=value` in three.
    if [[ $cur == "=" ]]; then cur=; elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    if ((COMP_CWORD == 1)) && [[ $cur != -* ]]; then
        COMPREPLY=($(compgen -W "@VERBS@" -- "$cur"))
        return
    fi
    case $verb in -*) verb=chat ;; esac  # options alone are those of chat
    if ((COMP_CWORD > 2)); then
        case "$verb ${COMP_WORDS[2]}" in @BELOW@) verb="$verb ${COMP_WORDS[2]}" ;; esac
    fi
    case "$verb $prev" in
@VALUES@
    *)
        case $verb in
@COMMANDS@
        esac
        ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        return
    fi
    case $kind in
    rooms) words="$(@ROOMS@)" ;;
    files | folders)
        compopt -o filenames
        if [[ $kind == files ]]; then kind=-f; else kind=-d; fi
        mapfile -t COMPREPLY < <(compgen "$kind" -- "$cur")
        return
        ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _org org
"""


def bash(known: Sequence[Command]) -> str:
    values = [
        f"    {' | '.join(_quoted(f'{command.path} {name}') for name in option.names)})"
        f" {_bash_source(option.takes)} ;;"
        for command in known
        for option in command.options
        if option.takes is not None
    ]
    follows = [
        f"        {_quoted(command.path)}) options={_quoted(' '.join(_names(command)))};"
        f" {_bash_source(command.words)} ;;"
        for command in known
    ]
    below = [_quoted(command.path) for command in known if " " in command.path]
    return _filled(
        _BASH,
        VERBS=" ".join(command.path for command in _top(known)),
        BELOW=" | ".join(below) or "''",
        VALUES="\n".join(values),
        COMMANDS="\n".join(follows),
        ROOMS=ROOMS,
    )


def _bash_source(source: Source) -> str:
    return f"kind={source}" if isinstance(source, str) else f"words={_quoted(' '.join(source))}"


def _names(command: Command) -> Iterator[str]:
    for option in command.options:
        yield from option.names


# -- zsh

_ZSH = r"""#compdef org
_org_rooms() {
    local -a rooms
    rooms=(${(f)"$(@ROOMS@)"})
    compadd -a rooms
}
_org() {
    local -a verbs
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        verbs=(
@VERBS@
        )
        _describe -t verbs verb verbs
        return
    fi
    case "$words[2] $words[3]" in
@BELOW@
    esac
    case $words[2] in
@COMMANDS@
    esac
}
if [[ $funcstack[1] == _org ]]; then _org "$@"; else compdef _org org; fi
"""


def zsh(known: Sequence[Command]) -> str:
    verbs = [
        f"            {_quoted(command.path + ':' + command.about.replace(':', chr(92) + ':'))}"
        for command in _top(known)
    ]
    below = [
        f"    ({_quoted(command.path + ' ')}*|{_quoted(command.path)}) if (( CURRENT > 3 )); then"
        f" shift 2 words; (( CURRENT -= 2 )); {_zsh_arguments(command)}; return; fi ;;"
        for command in known
        if " " in command.path
    ]
    follows = [
        f"    ({command.path}) shift words; (( CURRENT-- )); {_zsh_arguments(command)} ;;"
        for command in _top(known)
    ]
    follows += [f"    (-*) {_zsh_arguments(command)} ;;" for command in known if command.path == "chat"]
    return _filled(
        _ZSH,
        VERBS="\n".join(verbs),
        BELOW="\n".join(below),
        COMMANDS="\n".join(follows),
        ROOMS=ROOMS,
    )


def _zsh_arguments(command: Command) -> str:
    specs = []
    for option in command.options:
        about = "".join(f"\\{sign}" if sign in "[]:\\" else sign for sign in option.about)
        value = "" if option.takes is None else f":value:{_zsh_source(option.takes)}"
        specs += [_quoted(f"{name}[{about}]{value}") for name in option.names]
    specs.append(_quoted(f"*:word:{_zsh_source(command.words)}"))
    return f"_arguments {' '.join(specs)}"


def _zsh_source(source: Source) -> str:
    if isinstance(source, tuple):
        return f"({' '.join(source)})"
    return {"nothing": " ", "rooms": "_org_rooms", "files": "_files", "folders": "_files -/"}[source]


# -- fish


def fish(known: Sequence[Command]) -> str:
    lines = ["# fish completion of org", "complete -c org -f"]
    for command in _top(known):
        about = _fish_quoted(command.about)
        lines.append(f"complete -c org -n __fish_use_subcommand -a {command.path} -d {about}")
    for command in known:
        inner = (below for below in known if below.path.startswith(command.path + " "))
        start = f"complete -c org -n {_fish_quoted(_fish_condition(command, tuple(inner)))}"
        for option in command.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
            )
            value = "" if option.takes is None else f" {_fish_source(option.takes)}"
            lines.append(f"{start} {names}{value} -d {_fish_quoted(option.about)}")
        if command.words == "files":
            lines.append(f"{start} -F")
        elif command.words != "nothing":
            lines.append(f"{start} {_fish_source(command.words).removeprefix('-x ')}")
    return "\n".join(lines) + "\n"


def _fish_condition(command: Command, below: Sequence[Command]) -> str:
    condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path.split())
    if below:
        words = " ".join(inner.path.rpartition(" ")[2] for inner in below)
        condition += f"; and not __fish_seen_subcommand_from {words}"
    # Options alone are those of chat.
    return f"__fish_use_subcommand; or {condition}" if command.path == "chat" else condition


def _fish_source(source: Source) -> str:
    if isinstance(source, tuple):
        return f"-x -a {_fish_quoted(' '.join(source))}"
    found = {
        "nothing": "-x",
        "rooms": f"-x -a '({ROOMS})'",
        "files": "-r -F",
        "folders": "-x -a '(__fish_complete_directories)'",
    }
    return found[source]


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


_SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
