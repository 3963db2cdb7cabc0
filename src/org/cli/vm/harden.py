"""`org vm harden`: the walls of a machine that was made by another program."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

from org.cli.vm.verb import Call, Verb
from org.errors import ExitCode, UsageError
from org.sandbox.harden import rules, script


def _options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the rules of a firewall for a machine of yours that another program runs (VirtualBox, Lima), "
        "as a script to be read and run there: `org vm harden --print | sudo sh`. Nothing is changed here."
    )
    parser.add_argument("--print", action="store_true", help="print the script")
    parser.add_argument("--model", metavar="HOST:PORT", help="the model server, as that machine reaches it "
                        "(default: from the settings)")  # fmt: skip
    parser.add_argument(
        "--ssh", metavar="ADDRESS", default="", help="let SSH in from this address or network"
    )


async def _harden(call: Call) -> int:
    args = call.args
    if not args.print:
        raise UsageError("nothing is changed from here", "`org vm harden --print` prints what to run there")
    host, port = _server(args.model or "", call.settings.base)
    print(script(rules(host, port, args.ssh)), end="")
    return ExitCode.DONE


def _server(given: str, base: str) -> tuple[str, int]:
    """Host and port of the model server. Raises `UsageError`."""
    url = urlsplit(f"//{given}" if given else base)
    try:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
    except (KeyError, ValueError) as error:
        raise UsageError(f"no address with a port: {given or base}", "`--model 10.0.2.2:11434`") from error
    return url.hostname or "", port


VERBS = {"harden": Verb("print the firewall for a machine of another program", _options, _harden)}
