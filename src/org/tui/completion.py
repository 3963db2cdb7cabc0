"""What a word being typed may become. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from org.chat.routing import GROUP, Refusal, route
from org.messages import Audience
from org.wording import address

LIMITS = ("turns", "seconds", "tokens", "tools")
MODES = ("group", "direct:", "file:")
_ARGUMENTS: Mapping[str, Sequence[str]] = {"limits": LIMITS, "mode": MODES, "tools": ("last",)}
_NAMING = ("kick", "mode", "model", "compact")


def candidates(text: str, names: Collection[str], commands: Collection[str]) -> tuple[int, list[str]]:
    """(where the word before the cursor begins, what it may become); `text` is all before the cursor."""
    start = max(text.rfind(" "), text.rfind("\n"), text.rfind("\t")) + 1
    word = text[start:]
    if text.startswith("/") and start == 0:
        words = [f"/{name}" for name in commands]
    elif text.startswith("/"):
        name = text[1:].split()[0] if text[1:].split() else ""
        words = [*_ARGUMENTS.get(name, ()), *(sorted(names) if name in _NAMING else ())]
    elif word.startswith("@"):
        words = [f"@{name}" for name in (*names, GROUP)]
    elif word.startswith("#"):
        words = ["#file:"]
    else:
        words = []
    if not word and not text.startswith("/"):
        return start, []
    return start, [found for found in words if found.startswith(word)]


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom what is typed is for, in words. `wrong` when it would not be delivered as written."""

    words: str
    kind: str = "group"  # group, direct, file, command, shell
    wrong: bool = False


def aim(text: str, person: str, names: Collection[str], standing: Audience, place: str) -> Aim:
    """Whom the text is for as it stands now."""
    if text.startswith("!"):
        return Aim(f"a command, run {place}", "shell")
    if text.startswith("/"):
        return Aim("a command for the room", "command")
    routed = route(text, person, names, standing)
    if routed.refused:
        refusal: Refusal = routed.refused[0]
        _, found, near = refusal.problem.replace("`", "").rpartition("perhaps you mean")
        return Aim(f"perhaps you mean{near}" if found else near, wrong=True)
    audiences = list(dict.fromkeys(segment.audience for segment in routed.segments))
    if not audiences:
        # An address with nothing behind it yet is one already.
        again = route(f"{text} x", person, names, standing)
        audiences = [segment.audience for segment in again.segments] or [standing]
    kinds = [audience.kind for audience in audiences]
    kind = next((kind for kind in kinds if kind != "group"), "group")
    return Aim(", then ".join(_words(audience) for audience in audiences), kind)


def _words(audience: Audience) -> str:
    private = " alone" if audience.kind == "direct" else ""
    return f"{address(audience)}{private}"
