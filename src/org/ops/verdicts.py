"""What the gate said of a merge, kept as a Git note on that very commit: canonical JSON, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from org.errors import EnvironmentProblem
from org.ops.git import Git

_REF = "refs/notes/org"


def record(git: Git, merge: str, verdict: Mapping[str, object]) -> dict[str, object]:
    """Keep a verdict in place of an earlier one; gives it as it is kept.

    `verdict` holds at least `verdict` (`pass`, `fail` or `inconclusive`); `merge` is set here.
    """
    kept = {**verdict, "merge": merge}
    git.run("notes", f"--ref={_REF}", "add", "--force", "--file=-", merge, input=canonical(kept))
    return kept


def read(git: Git, merge: str) -> dict[str, object] | None:
    """The verdict on exactly this merge, or None."""
    text = git.run("log", "--no-walk", f"--notes={_REF}", "--format=%N", merge)
    if not text.strip():
        return None
    verdict = _parse(merge, text)
    if verdict is None:
        raise EnvironmentProblem(f"the verdict on {merge} cannot be read", "`org fitness` makes a new one")
    return verdict


def read_all(git: Git, merges: Sequence[str]) -> list[dict[str, object]]:
    """The verdicts on these merges; one that cannot be read is `read`'s to complain of."""
    if not merges:
        return []
    words = ("log", "-z", "--no-walk", "--stdin", f"--notes={_REF}", "--format=%H %N")
    said = git.ask(*words, input="".join(f"{merge}\n" for merge in merges))[1]
    found = (_parse(*line.split(" ", 1)) for line in said.split("\0") if line)
    return [verdict for verdict in found if verdict is not None]


def _parse(merge: str, text: str) -> dict[str, object] | None:
    try:
        verdict = json.loads(text)
    except ValueError:
        return None
    return verdict if isinstance(verdict, dict) and verdict.get("merge") == merge else None


def canonical(verdict: Mapping[str, object]) -> str:
    """One text for one value: sorted keys, no blanks, no NaN."""
    return json.dumps(verdict, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(verdict: Mapping[str, object]) -> str:
    return "sha256:" + hashlib.sha256(canonical(verdict).encode()).hexdigest()
