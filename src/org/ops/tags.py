"""A tag for each promote and rollback: derived from the history, and made again where it is missing."""

from __future__ import annotations

from org.ops import verdicts
from org.ops.git import COMMITTER, Git
from org.ops.history import Entry, History, Promote
from org.ops.refs import TAGS, Refs


def name_of(entry: Entry) -> str:
    return f"{'promote' if isinstance(entry, Promote) else 'rollback'}/{entry.number}"


def rebuild(git: Git, refs: Refs, history: History) -> list[str]:
    """Make the tags that are missing or point elsewhere, remove those of what never was; names them."""
    wanted = {TAGS + name_of(entry): entry for entry in history.entries}
    moves = {
        name: f"update {name} {make(git, entry, _verdict(git, entry))}\n"
        for name, entry in wanted.items()
        if name not in refs.by_name or refs.by_name[name].commit != entry.commit
    }
    for name in refs.by_name.keys() - wanted.keys():
        if name.startswith((f"{TAGS}promote/", f"{TAGS}rollback/")):
            moves[name] = f"delete {name}\n"
    if moves:
        git.run("update-ref", "--stdin", input="".join(moves.values()))
    return [name.removeprefix(TAGS) for name in moves]


def make(git: Git, entry: Entry, verdict: str) -> str:
    """The object of a tag: the same whenever it is made. `verdict` is the digest of a promote's."""
    text = f"object {entry.commit}\ntype commit\ntag {name_of(entry)}\n"
    text += f"tagger {COMMITTER} {entry.at} +0000\n"
    if isinstance(entry, Promote):
        text += f"\nPromote {entry.number}: {entry.branch}\n\nOrg-Verdict: {verdict}\n"
    else:
        text += f"\nRoll back promote {entry.of.number}: {entry.of.branch}\n"
    return git.run("mktag", input=text)


def _verdict(git: Git, entry: Entry) -> str:
    verdict = verdicts.read(git, entry.commit) if isinstance(entry, Promote) else None
    return verdicts.digest(verdict) if verdict else "none"
