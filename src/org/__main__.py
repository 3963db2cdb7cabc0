"""The entry: finds the verb, imports it alone, and turns an expected error into one line and an exit code.

Standard library only, and as little of it as can be: `org --version` and `org --help` import nothing
else at all.
"""

import sys

VERBS = {
    "chat": ("org.cli.chat", "open a room and talk in it (the same as `org` alone)"),
    "run": ("org.cli.run", "say one thing, wait for the answers, print them"),
    "serve": ("org.cli.serve", "serve the rooms over HTTP, for the web page and for programs"),
    "vm": ("org.cli.vm", "a machine of its own for the models' commands: up, status, exec, shell, down"),
    "demo": ("org.cli.demo", "watch a room of three scripted models at work"),
    "models": ("org.cli.models", "list what the model server offers"),
    "rooms": ("org.cli.rooms", "list the rooms there are, or remove one"),
    "show": ("org.cli.show", "print what happened in a room"),
    "search": ("org.cli.search", "find words in all rooms"),
    "export": ("org.cli.export", "write a room as Markdown or JSON"),
    "extract": ("org.cli.extract", "find tool calls in a text, to try it on your own"),
    "doctor": ("org.cli.doctor", "prove what works here: the server, the sandbox's walls, the disk"),
    "config": ("org.cli.config", "print each setting and where it comes from"),
    "init": ("org.cli.init", "write a commented org.toml"),
    "trust": ("org.cli.trust", "allow a folder's org.toml to widen what is allowed"),
    "start": ("org.ops.cli.start", "serve a program's main, or its candidate beside it"),
    "stop": ("org.ops.cli.stop", "end what is served, when its requests are answered"),
    "status": ("org.ops.cli.status", "what is served, and how well"),
    "logs": ("org.ops.cli.logs", "what current or the candidate has said"),
    "candidate": (
        "org.ops.cli.candidate",
        "the next version of a program: edit it, commit it, see what it changes",
    ),
    "fitness": ("org.ops.cli.fitness", "judge the candidate: whether it may become main, and why"),
    "compare": ("org.ops.cli.compare", "say the same to main and to the candidate"),
    "promote": ("org.ops.cli.promote", "make the candidate main, and what is served"),
    "rollback": ("org.ops.cli.rollback", "take back the newest promote"),
    "history": ("org.ops.cli.history", "what was promoted and rolled back"),
    "recover": ("org.ops.cli.recover", "end what a kill or a power cut interrupted"),
    "completion": ("org.cli.completion", "print a completion script for bash, zsh or fish"),
}
ABOUT = ("--version", "-V", "--help", "-h", "help")


def main(argv: list[str] | None = None) -> int:
    """Run a command line (without the program's name); returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _about(words) if words and words[0] in ABOUT else _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        _forget_stdout()
        return 0
    return code


def _about(words: list[str]) -> int:
    if words[0] in ("--version", "-V"):
        from org import __version__

        sys.stdout.write(f"org {__version__}\n")
    else:
        sys.stdout.write(_help())
    return 0


def _run(words: list[str]) -> int:
    from importlib import import_module

    from org.errors import ExitCode, OrgError

    try:
        verb = _verb(words)
        module = import_module(VERBS[verb][0])
        rest = words[1:] if words and words[0] in VERBS else words
        if VERBS[verb][0].startswith("org.ops."):
            from org.ops.cli import edge

            return edge.run(verb, module, rest)
        code: int = module.run(rest)
        return code
    except OrgError as error:
        if "--debug" in words:
            raise
        sys.stderr.write(_plain(f"org: {error.message}") + "\n")
        for line in error.hint.splitlines():
            sys.stderr.write(_plain(f"     {line}") + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit:  # how argparse leaves when it has printed a verb's help
        return ExitCode.DONE


def _plain(text: str) -> str:
    """The text without what could drive a terminal: a server's words may be in it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _verb(words: list[str]) -> str:
    """The verb that is meant; options alone are those of `chat`. Raises `UsageError`."""
    first = words[0] if words else "-"
    if first in VERBS:
        return first
    if first.startswith("-"):
        return "chat"
    from difflib import get_close_matches

    from org.errors import UsageError

    near = get_close_matches(first, VERBS, 1)
    raise UsageError(
        f"there is no `org {first}`", f"did you mean `org {near[0]}`?" if near else "`org --help`"
    )


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in VERBS.items())
    return f"""\
usage: org [VERB] [OPTIONS]

A room in which people and language models talk, call tools and work.

{verbs}

`org VERB --help` explains one. `org` alone opens a room: it takes Ollama when it is up, another
server with `--base URL`, or a model file with `-m ./model.gguf`.
"""


def _forget_stdout() -> None:
    """Point standard output at nothing, so that closing it at exit does not fail once more."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
