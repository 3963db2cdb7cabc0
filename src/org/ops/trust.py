"""Whether the person lets a program say how it is started: `org trust` was said for its `org.toml`.

What counts is `[generation]`, and of the very commit that would be started. All that is on main was let in
there: a commit of the user's comes in when it changes nothing of that, or is trusted; a candidate by the
gate, which lets nothing of it change unless it is told to. So what main has been may be served again, as by
`org rollback`, without another word.

`trust.json` in the user's state folder belongs to `org trust`; here it is only read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from org.errors import ConfigError
from org.ops import history, place, refs, settings, verdicts
from org.ops.git import Git
from org.ops.layout import state_folder
from org.ops.program import Program
from org.ops.settings import FILE


def require(env: Mapping[str, str], folder: Path, text: str, let_in: Iterable[str] = ()) -> None:
    """Raises `ConfigError` unless that text starts what the folder's `org.toml` did when it was trusted, or,
    of a folder that is trusted, what one that was `let_in` does."""
    if not holds(env, folder, text, let_in):
        named = place.called(str(folder))
        raise ConfigError(
            f"not trusted: {named}/{FILE}, as it is on main, says what is started here",
            f"read it, then `org trust {named}`",
        )


def holds(env: Mapping[str, str], folder: Path, text: str, let_in: Iterable[str] = ()) -> bool:
    """Whether `require` has nothing against it."""
    trusted = _trusted(env, folder)
    if trusted is None:
        return False
    if text == trusted or _starts_the_same(text, trusted):
        return True
    return any(_starts_the_same(text, known) for known in let_in)


def require_commit(program: Program, git: Git, commit: str) -> None:
    """The same of a commit that main is or was."""
    require(os.environ, program.checkout.folder, text_of(git, commit), _let_in(git))


def require_taken_in(program: Program, git: Git, main: str, theirs: str) -> None:
    """The same of a commit of the user's that main is to become, if it starts anything else than main."""
    text = text_of(git, theirs)
    if _starts(text) and not _starts_the_same(text, text_of(git, main)):
        require(os.environ, program.checkout.folder, text)


def text_of(git: Git, commit: str) -> str:
    """How a commit is started, as it says itself; empty when it does not."""
    missing, text = git.ask("cat-file", "blob", f"{commit}:{FILE}", fine=(0, 128))
    return "" if missing else text


def _let_in(git: Git) -> Iterator[str]:
    """What the gate has let in here, and what that was judged beside, the newest first."""
    for promote in reversed(history.read(git, refs.read(git)).promotes):
        verdict = verdicts.read(git, promote.commit)
        if verdict is not None and verdict.get("verdict") == "pass":
            yield from (text_of(git, promote.commit), text_of(git, promote.main))


def _trusted(env: Mapping[str, str], folder: Path) -> str | None:
    path = state_folder(env) / "trust.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}", "remove it, then run `org trust` again"
        ) from error
    folders = stored.get("folders") if isinstance(stored, dict) else None
    trusted = folders.get(str(folder)) if isinstance(folders, dict) else None
    return trusted if isinstance(trusted, str) else None


def _starts_the_same(one: str, other: str) -> bool:
    return bool(_starts(one)) and _starts(one) == _starts(other)


def _starts(text: str) -> str:
    """`[generation]` in one form, in which 1, 1.0 and true differ; empty when there is none."""
    try:
        table = settings.parse(text).get("generation")
    except ConfigError:
        return ""
    return json.dumps(table, sort_keys=True, default=repr) if table else ""
