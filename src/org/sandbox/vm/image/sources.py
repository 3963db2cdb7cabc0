"""Where packages come from: the archives that this machine's own apt knows, or one that is given. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from org.sandbox.vm.image.index import paragraphs

_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: `uri` without a slash at its end, `keyring` a path or empty for apt's own."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keyring: str = ""


def one_line(text: str) -> Iterable[Source]:
    """The binary sources of a `sources.list`."""
    for line in text.splitlines():
        match = _LINE.match(line.split("#")[0].strip())
        if match:
            keyring = re.search(r"signed-by=(\S+)", match["options"] or "")
            yield Source(
                match["uri"].rstrip("/"),
                (match["suite"],),
                tuple(match["components"].split()),
                keyring[1] if keyring else "",
            )


def deb822(text: str) -> Iterable[Source]:
    """The enabled binary sources of a `*.sources` file. A key that is written there is not used."""
    for fields in paragraphs(text):
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes").lower() == "no":
            continue
        keyring = fields.get("Signed-By", "")
        for uri in fields.get("URIs", "").split():
            yield Source(
                uri.rstrip("/"),
                tuple(fields.get("Suites", "").split()),
                tuple(fields.get("Components", "").split()),
                keyring if keyring.startswith("/") else "",
            )


def candidates(sources: Iterable[Source], suite: str) -> Sequence[Source]:
    """The archives over http(s) that may hold `suite`, each once, likely ones first.

    A host with another release of the same distribution has the right archives under another
    suite, so those with a component `main` are worth a question too.
    """
    usable = [
        source
        for source in sources
        if source.uri.startswith(("http://", "https://")) and "main" in source.components
    ]
    usable.sort(key=lambda source: not any(name.startswith(suite) for name in source.suites))
    first: dict[str, Source] = {}
    for source in usable:
        first.setdefault(source.uri, source)
    return list(first.values())
