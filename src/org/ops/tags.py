"""A tag for each promote and rollback: derived from the history, and made again where it is missing."""

from __future__ import annotations

from org.ops import verdicts
from org.ops.git import Git
from org.ops.history import Entry, History, Promote
from org.ops.refs import TAGS, Refs


def name_of(entry: Entry) -> str:
    return f"{'promote' if isinstance(entry, Promote) else 'rollback'}/{entry.number}"


def rebuild(git: Git, refs: Refs, history: History) -> list[str]:
    """Make the tags that are missing or point elsewhere; gives their names."""
    wanted = {TAGS + name_of(entry): entry for entry in history.entries}
    missing = {
        name: entry
        for name, entry in wanted.items()
        if name not in refs.by_name or refs.by_name[name].commit != entry.commit
    }
    moves = [f"update {name} {_make(git, entry)}\n" for name, entry in missing.items()]
    if moves:
        git.run("update-ref", "--stdin", input="".join(moves))
    return [name.removeprefix(TAGS) for name in missing]


def _make(git: Git, entry: Entry) -> str:
    """The same tag whenever it is made."""
    text = f"object {entry.commit}\ntype commit\ntag {name_of(entry)}\n"
    text += f"tagger org <org@localhost> {entry.at} +0000\n"
    if isinstance(entry, Promote):
        verdict = verdicts.read(git, entry.commit)
        said = verdicts.digest(verdicts.canonical(verdict)) if verdict else "none"
        text += f"\nPromote {entry.number}: {entry.branch}\n\nOrg-Verdict: {said}\n"
    else:
        text += f"\nRoll back promote {entry.of.number}: {entry.of.branch}\n"
    return git.run("mktag", input=text)
