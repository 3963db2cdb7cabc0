"""A Debian archive's index: paragraphs, versions, and what a set of packages needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import zip_longest
from typing import TypeAlias

from org.errors import EnvironmentProblem

Paragraph: TypeAlias = Mapping[str, str]

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Package:
    """One package as an index has it. `size` is in bytes; `base` is the archive it comes from."""

    name: str
    version: str
    path: str
    size: int
    sha256: str
    base: str
    depends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()
    needed: bool = False  # essential or required: part of every system


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file. Continuation lines stay in the value, with their newline."""
    for block in re.split(r"\n(?:[ \t]*\n)+", text):
        fields: dict[str, str] = {}
        last = ""
        for line in block.split("\n"):
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                if last:
                    fields[last] += "\n" + line
                continue
            last, _, value = line.partition(":")
            fields[last] = value.strip()
        if fields:
            yield fields


def packages(text: str, base: str) -> Iterator[Package]:
    """The packages of a `Packages` file. Raises `EnvironmentProblem` for one that lacks a field."""
    for fields in paragraphs(text):
        try:
            yield _package(fields, base)
        except (KeyError, ValueError) as error:
            raise EnvironmentProblem(f"a package without a usable field: {error}") from error


def _package(fields: Paragraph, base: str) -> Package:
    depends = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if fields.get(name))
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        path=fields["Filename"],
        size=int(fields["Size"]),
        sha256=fields["SHA256"].lower(),
        base=base,
        depends=tuple(_names(part.split("|")) for part in depends.split(",") if part.strip()),
        provides=_names(fields.get("Provides", "").split(",")),
        needed=fields.get("Essential") == "yes" or fields.get("Priority") == "required",
    )


def _names(parts: Iterable[str]) -> tuple[str, ...]:
    """Names without versions and architectures: within one release they fit each other."""
    return tuple(found[0] for part in parts if (found := _NAME.match(part.strip())))


def newest(all_packages: Iterable[Package]) -> dict[str, Package]:
    """Each name with its newest version; of equals the first one wins."""
    found: dict[str, Package] = {}
    for package in all_packages:
        known = found.get(package.name)
        if known is None or compare(package.version, known.version) > 0:
            found[package.name] = package
    return found


def closure(
    index: Mapping[str, Package], wanted: Sequence[str], without: Sequence[str] = ()
) -> list[Package]:
    """The needed and the wanted packages with all that they depend on, by name.

    Of alternatives the one that is there already is taken, else the first that exists. `without`
    are names that nobody gets (their dependants do without). Raises `EnvironmentProblem`.
    """
    providers: dict[str, list[str]] = {}
    for name in sorted(index):
        for virtual in index[name].provides:
            providers.setdefault(virtual, []).append(name)
    chosen: dict[str, Package] = {}
    provided: set[str] = set()
    queue = [name for name in sorted(index) if index[name].needed]
    waiting: list[tuple[str, ...]] = [(name,) for name in [*queue, *wanted]]
    while waiting:
        alternatives = waiting.pop(0)
        if any(name in chosen or name in provided or name in without for name in alternatives):
            continue
        name = _first(alternatives, index, providers)
        chosen[name] = index[name]
        provided.update(index[name].provides)
        waiting += index[name].depends
    return [chosen[name] for name in sorted(chosen)]


def _first(
    alternatives: Sequence[str], index: Mapping[str, Package], providers: Mapping[str, Sequence[str]]
) -> str:
    for name in alternatives:
        if name in index:
            return name
    for name in alternatives:
        if name in providers:
            return providers[name][0]
    raise EnvironmentProblem(f"no package `{' | '.join(alternatives)}`")


def compare(one: str, other: str) -> int:
    """Negative, 0 or positive as version `one` is older than, equal to or newer than `other`."""
    for mine, yours in zip(_split(one), _split(other), strict=True):
        order = _compare_part(mine, yours)
        if order:
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return (epoch, upstream, revision) if dash else (epoch, rest, "0")


def _compare_part(one: str, other: str) -> int:
    """Text and numbers by turns; in text `~` comes before the end, and letters before the rest."""
    pairs = zip_longest(re.findall(r"(\D*)(\d*)", one), re.findall(r"(\D*)(\d*)", other), fillvalue=("", ""))
    for (text, number), (other_text, other_number) in pairs:
        for mine, yours in zip_longest(text, other_text, fillvalue=""):
            if _weight(mine) != _weight(yours):
                return _weight(mine) - _weight(yours)
        difference = int(number or 0) - int(other_number or 0)
        if difference:
            return difference
    return 0


def _weight(character: str) -> int:
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) if character.isalpha() else ord(character) + 256


by_version = cmp_to_key(compare)
"""Sorts versions from old to new."""


def sums(release: str) -> dict[str, tuple[str, int]]:
    """The SHA256 section of a `Release` file: path -> (sum, size in bytes)."""
    fields = next(paragraphs(release), {})
    found = {}
    for line in fields.get("SHA256", "").split("\n"):
        words = line.split()
        if len(words) == 3:
            found[words[2]] = (words[0].lower(), int(words[1]))
    return found
