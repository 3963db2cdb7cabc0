"""Kinds of participants. They differ by these values, not by code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from org.errors import UsageError


@dataclass(frozen=True, slots=True)
class Profile:
    """`tools` by name. `shows`: whether the room sees all that is said on the way, or the answer only
    (and what was addressed to somebody)."""

    name: str
    tools: tuple[str, ...] = ()
    shows: Literal["everything", "answer"] = "everything"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("agent", ("sh", "chat_mode")),
        Profile("python", ("python_run",), "answer"),
        Profile("simple"),
    )
}


def find(name: str) -> Profile:
    """The profile of that name. Raises `UsageError`."""
    if name not in PROFILES:
        raise UsageError(f"no profile is called `{name}`", "there are: " + ", ".join(PROFILES))
    return PROFILES[name]


def system_prompt(profile: Profile, name: str, others: Sequence[str], extra: str = "") -> str:
    """The system prompt of a participant, from the package's prompt files; `extra` is its own part.

    Small models copy examples, so that the names in them are names of the room.
    """
    folder = Path(__file__).with_name("prompts")
    parts = [(folder / f"{part}.md").read_text(encoding="utf-8").strip() for part in ("room", profile.name)]
    listed = ", ".join(f"@{other}" for other in others) or "nobody else yet"
    words = {"{name}": name, "{others}": listed, "{example}": others[-1] if others else "name"}
    text = "\n\n".join(parts)
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return f"{text}\n\n{extra.strip()}".strip()
