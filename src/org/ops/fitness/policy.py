"""What a candidate may not do at all, seen from its files alone, before anything of it is run."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from org.errors import ConfigError
from org.ops import settings
from org.ops.git import Git
from org.ops.settings import FILE

MOST_BYTES = 10 << 20
"""Of one file."""
_LINK, _MODULE, _FILES = "120000", "160000", ("100644", "100755")
_GONE = "000000"
_MARKERS = ("^<<<<<<< ", "^=======$", "^>>>>>>> ")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A path as the merge has it: `mode` is 000000 when it is gone, `object` what it holds."""

    path: str
    mode: str
    object: str


def changes(git: Git, main: str, merge: str) -> list[Change]:
    """All paths that the merge changes on main."""
    said = git.ask("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", main, merge)[1]
    fields = iter(said.split("\0"))
    found = []
    for about, path in zip(fields, fields, strict=False):
        _, mode, _, object, _ = about.split()
        found.append(Change(path, mode, object))
    return found


def findings(
    git: Git, main: str, merge: str, protected: Sequence[str], *, allow_protected: bool
) -> list[str]:
    """What is wrong with a merge, a line each."""
    found = changes(git, main, merge)
    wrong = [line for change in found for line in _wrong(git, change)]
    wrong += _too_large(git, found)
    wrong += _unfinished(git, merge, {change.path for change in found})
    if not allow_protected:
        touched = [change.path for change in found if is_protected(change.path, protected)]
        if any(change.path == FILE for change in found) and _table(git, main) != _table(git, merge):
            touched.append(f"[generation] in {FILE}")
        if touched:
            more = f" and {len(touched) - _SHOWN} more" if len(touched) > _SHOWN else ""
            named = ", ".join(map(_shown, touched[:_SHOWN]))
            wrong.append(f"changes what is protected: {named}{more} (`--allow-protected` lets it)")
    return wrong


def is_protected(path: str, protected: Sequence[str]) -> bool:
    """Whether a path is named, lies in a folder that is (`name/`), or fits a pattern with `*`."""
    return any(path.startswith(one) if one.endswith("/") else fnmatchcase(path, one) for one in protected)


def _wrong(git: Git, change: Change) -> Iterator[str]:
    name = _shown(change.path)
    if not change.path.isprintable():
        yield f"a name that cannot be shown: {name}"
    if change.mode == _MODULE:
        yield f"another repository inside: {name}"
    elif change.mode == _LINK:
        target = git.ask("cat-file", "blob", change.object)[1]
        if _leads_out(change.path, target):
            yield f"a link that leads out: {name}"
    elif change.mode not in (*_FILES, _GONE):
        yield f"an odd mode, {change.mode}: {name}"


def _too_large(git: Git, found: Sequence[Change]) -> Iterator[str]:
    there = [change for change in found if change.mode in _FILES]
    asked = "".join(f"{change.object}\n" for change in there)
    sizes = git.run("cat-file", "--batch-check=%(objectsize)", input=asked).split()
    for change, size in zip(there, map(int, sizes), strict=True):
        if size > MOST_BYTES:
            yield f"{_shown(change.path)} has {size >> 20} MiB; {MOST_BYTES >> 20} are allowed"


def _unfinished(git: Git, merge: str, paths: set[str]) -> Iterator[str]:
    """Files with all three marks of a conflict."""
    for mark in _MARKERS:
        said = git.ask("grep", "-l", "-z", "-I", "-E", "-e", mark, merge, fine=(0, 1))[1]
        paths &= {line.partition(":")[2] for line in said.split("\0")}
    for path in sorted(paths):
        yield f"an unfinished merge: {_shown(path)} has marks of a conflict"


def _leads_out(path: str, target: str) -> bool:
    if target.startswith("/") or "\0" in target:
        return True
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == ".."


def _table(git: Git, commit: str) -> Any:
    """`[generation]` as a commit has it, or None when it has none that can be read."""
    missing, text = git.ask("cat-file", "blob", f"{commit}:{FILE}", fine=(0, 128))
    try:
        return None if missing else settings.parse(text).get("generation")
    except ConfigError:
        return None


def _shown(path: str) -> str:
    return path if path.isprintable() else json.dumps(path)
