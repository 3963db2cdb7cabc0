"""What a person can type in a room beside words: `/commands`, and `!cmd` for the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from org.chat.exchange import Limits
from org.chat.participant import ModelParticipant
from org.chat.state import State
from org.compose.session import Session
from org.config import parse_with
from org.errors import SandboxGone, UsageError
from org.events import CallFinished, Committed, Stepped
from org.messages import Usage
from org.ports import Command as SandboxCommand
from org.tools.clip import clip
from org.transcript import to_json_lines, to_markdown
from org.wording import address, clean, describe

LIMITS: dict[str, type] = {"turns": int, "seconds": float, "tokens": int, "tools": int}
"""The limits of an exchange, and what numbers they are."""


class Quit(Exception):
    """The person leaves."""


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command: its arguments and use in words, and what it does with (session, arguments)."""

    usage: str
    about: str
    run: Callable[[Session, str], Awaitable[str]]


async def command(session: Session, text: str) -> str | None:
    """Do what a line asks for, and answer what to print; None when the line is something to say.

    Raises `UsageError` for an unknown command or wrong arguments, `Quit` when the person leaves.
    """
    if text.startswith("!"):
        return await _shell(session, text[1:].strip())
    if not text.startswith("/"):
        return None
    name, rest = split(text, COMMANDS)
    return await COMMANDS[name].run(session, rest)


def split(text: str, names: Collection[str]) -> tuple[str, str]:
    """(the command's name, its arguments) of a line that begins with a slash. Raises `UsageError`."""
    name, _, rest = text[1:].partition(" ")
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean `/{near[0]}`?" if near else "/help lists them;"
        raise UsageError(f"there is no `/{name}`", f"{hint} to say it, begin with `@group`")
    return name, rest.strip()


def who(state: State) -> str:
    """Who is in a room, on which model, speaking to whom."""
    lines = []
    for name, member in state.members.items():
        joined = member.joined
        model = f"{joined.profile or 'participant'}, {joined.model}"
        what = "person" if joined.kind == "person" else model
        lines.append(f"  {name:14}{what}  -> {address(member.mode)}")
    return "\n".join(lines)


def newest_calls(events: Sequence[Committed]) -> str:
    """The newest tool calls and what they gave."""
    calls = [event for event in events if isinstance(event, CallFinished)][-5:]
    return "\n".join(f"{c.participant}: {clean(describe(c.call))}\n{clean(c.result.output)}" for c in calls)


def tools(allowed: Mapping[str, Sequence[tuple[str, str]]], place: str) -> str:
    """Who may call what: by participant (tool, policy)."""
    lines = []
    for name, found in allowed.items():
        words = ", ".join(f"{tool} ({policy})" for tool, policy in found) or "none"
        lines.append(f"  {name:14}{words}")
    return "\n".join([*lines, f"  commands run {place}", "  `/tools last` prints the newest results"])


def tokens(events: Sequence[Committed], contexts: Mapping[str, int]) -> str:
    """What each participant took, and how full its context is; `contexts` are their sizes."""
    lines = []
    for name, context in contexts.items():
        steps = [e.usage for e in events if isinstance(e, Stepped) and e.participant == name and e.usage]
        total = sum(steps, Usage())
        newest = steps[-1].prompt if steps else 0
        lines.append(
            f"  {name:14}{total.prompt:,} read ({total.cached:,} from cache), {total.completion:,} written; "
            f"context {newest:,} of {context:,}"
        )
    return "\n".join(lines)


def limits(now: Limits) -> str:
    """Where an exchange stops."""
    told = ", ".join(f"{name} {getattr(now, name):,}" for name in LIMITS)
    return f"  {told}  (for each message of yours)"


def limit_of(text: str) -> dict[str, Any]:
    """The limit that `NAME NUMBER` sets, none for no words. Raises `UsageError`."""
    words = text.split()
    if not words:
        return {}
    if len(words) != 2 or words[0] not in LIMITS:
        raise UsageError(
            f"not a limit: `{text}`", "it is /limits NAME NUMBER, NAME one of " + ", ".join(LIMITS)
        )
    try:
        return {words[0]: LIMITS[words[0]](words[1])}
    except ValueError:
        raise UsageError(f"not a number: `{words[1]}`") from None


def write_room(room: str, events: Sequence[Committed], name: str) -> str:
    """Write a room into a new file of that name, or one named after it. Raises `UsageError`."""
    path = Path(name).expanduser() if name else Path(f"{room}.md")
    if path.suffix == ".json":
        text = "".join(f"{line}\n" for line in to_json_lines(events))
    else:
        text = to_markdown(events, room)
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"`{path}` exists", "name another file: /export FILE") from None
    except OSError as error:
        raise UsageError(f"`{path}` cannot be written: {error.strerror}") from None
    return f"written: {path}"


async def _help(session: Session, rest: str) -> str:
    lines = [f"  {f'/{name} {c.usage}'.rstrip():30}{c.about}" for name, c in COMMANDS.items() if c.about]
    return "\n".join(
        [
            *lines,
            f"  {'!COMMAND':30}run a shell command where the tools run",
            f"  {'@name words':30}say something to one alone; `@group` to everyone",
            f"  {'#file:path words':30}put something into a file of the workspace",
        ]
    )


async def _who(session: Session, rest: str) -> str:
    return who(session.room.state)


async def _invite(session: Session, rest: str) -> str:
    try:
        member = parse_with(rest)
    except ValueError as error:
        raise UsageError(f"`/invite {rest}`: expected {error}", "for example /invite ann=simple") from None
    await session.room.invite(await session.participant(member, session.room.names))
    return ""


async def _kick(session: Session, rest: str) -> str:
    await session.room.kick(rest.removeprefix("@"))
    return ""


async def _mode(session: Session, rest: str) -> str:
    words = rest.split()
    if len(words) == 1 and words[0] in session.room.names:
        return f"{words[0]} -> {address(session.room.state.members[words[0]].mode)}"
    name = words.pop(0) if len(words) > 1 else session.settings.name
    if not words:
        return f"{name} -> {address(session.room.state.members[name].mode)}"
    return f"{name} -> {address(await session.room.set_mode(name, words[0]))}"


async def _set_model(session: Session, rest: str) -> str:
    words = rest.split()
    if not words:
        return who(session.room.state)
    model = words[-1]
    names = (
        [words[0].removeprefix("@")] if len(words) > 1 else [p.introduction.name for p in _models(session)]
    )
    for name in names:
        await session.set_model(name, model)
    return f"{', '.join(names)}: {model} from now on"


async def _tools(session: Session, rest: str) -> str:
    if rest == "last":
        return newest_calls(session.room.events)
    allowed = {p.introduction.name: [(t.spec.name, t.policy) for t in p.tools] for p in _models(session)}
    return tools(allowed, session.place)


async def _tokens(session: Session, rest: str) -> str:
    contexts = {p.introduction.name: p.sampling.context_tokens for p in _models(session)}
    return tokens(session.room.events, contexts)


async def _limits(session: Session, rest: str) -> str:
    session.room.limits = replace(session.room.limits, **limit_of(rest))
    return limits(session.room.limits)


async def _compact(session: Session, rest: str) -> str:
    names = [rest.removeprefix("@")] if rest else [p.introduction.name for p in _models(session)]
    done = []
    for name in names:
        if await _one(session, name).compact(session.room.aside(name)):
            done.append(name)
    return f"compacted: {', '.join(done)}" if done else "there is nothing to compact yet"


async def _undo(session: Session, rest: str) -> str:
    message = await session.room.undo()
    return f"taken back: {message.content}"


async def _clear(session: Session, rest: str) -> str:
    await session.room.clear()
    return "everybody starts afresh; the journal keeps what was said"


async def _export(session: Session, rest: str) -> str:
    return write_room(session.id, session.room.events, rest)


async def _quit(session: Session, rest: str) -> str:
    raise Quit


async def _shell(session: Session, command_line: str) -> str:
    if session.sandbox is None:
        raise UsageError(f"commands run {session.place}")
    if not command_line:
        raise UsageError("there is no command behind `!`")
    try:
        result = await session.sandbox.exec(SandboxCommand(["/bin/sh", "-c", command_line], timeout_s=600))
    except SandboxGone as error:
        raise UsageError(error.message, error.hint) from error
    output = clip(result.head, result.tail, result.left_out)
    ending = "" if result.exit_code == 0 else f"\n(exit {result.exit_code})"
    return (output + ending).strip("\n") or "(no output)"


COMMANDS: dict[str, Command] = {
    "help": Command("", "this list", _help),
    "who": Command("", "who is here, on which model, talking to whom", _who),
    "invite": Command("ID=PROFILE[:MODEL]", "let a participant in", _invite),
    "kick": Command("ID", "send a participant out", _kick),
    "mode": Command("[ID] MODE", "whom one talks to: group, direct:ID, file:PATH", _mode),
    "model": Command("[ID] NAME", "change the model of one or of all", _set_model),
    "tools": Command("[last]", "who may call what; what the newest calls gave", _tools),
    "tokens": Command("", "tokens used, and how full each context is", _tokens),
    "limits": Command("[NAME NUMBER]", "where an exchange stops", _limits),
    "compact": Command("[ID]", "summarise older context now", _compact),
    "undo": Command("", "take back your last message and what came of it", _undo),
    "export": Command("[FILE.md|.json]", "write the room into a file", _export),
    "clear": Command("", "start everybody's context afresh", _clear),
    "exit": Command("", "leave (Ctrl-D does too)", _quit),
    "quit": Command("", "", _quit),
}


def _models(session: Session) -> list[ModelParticipant]:
    return [p for p in session.room.participants.values() if isinstance(p, ModelParticipant)]


def _one(session: Session, name: str) -> ModelParticipant:
    for participant in _models(session):
        if participant.introduction.name == name:
            return participant
    raise UsageError(f"no participant is called `{name}`")
