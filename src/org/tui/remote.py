"""The `/commands` of whoever joined a room of a server: the same as where it runs, done over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from org import commands
from org.commands import Quit, split
from org.errors import UsageError
from org.tui.attached import Attached
from org.wording import address


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command: its arguments and use in words, and what it does with (room, arguments)."""

    usage: str
    about: str
    run: Callable[[Attached, str], Awaitable[str]]


async def command(room: Attached, text: str) -> str | None:
    """Do what a line asks for, and answer what to print; None when the line is something to say.

    Raises `UsageError` for an unknown command or wrong arguments, `Quit` when the person leaves, and
    what requests raise.
    """
    if text.startswith("!"):
        raise UsageError("`!` runs commands only where the room runs", "ask a participant to run it")
    if not text.startswith("/"):
        return None
    name, rest = split(text, COMMANDS)
    return await COMMANDS[name].run(room, rest)


async def _help(room: Attached, rest: str) -> str:
    lines = [f"  {f'/{name} {c.usage}'.rstrip():30}{c.about}" for name, c in COMMANDS.items() if c.about]
    return "\n".join(lines)


async def _who(room: Attached, rest: str) -> str:
    return commands.who(room.ledger.state)


async def _invite(room: Attached, rest: str) -> str:
    await room.ask("POST", "/members", {"participant": rest})
    return ""


async def _kick(room: Attached, rest: str) -> str:
    await room.ask("DELETE", _member(rest.removeprefix("@")))
    return ""


async def _mode(room: Attached, rest: str) -> str:
    words = rest.split()
    modes = {name: member.mode for name, member in room.ledger.state.members.items()}
    if len(words) == 1 and words[0] in modes:
        return f"{words[0]} -> {address(modes[words[0]])}"
    name = words.pop(0) if len(words) > 1 else room.person
    if not words:
        return f"{name} -> {address(modes[name])}"
    answer = await room.ask("PUT", _member(name, "/mode"), {"mode": words[0]})
    return f"{name} -> {answer['mode']}"


async def _model(room: Attached, rest: str) -> str:
    words = rest.split()
    if not words:
        return commands.who(room.ledger.state)
    names = [words[0].removeprefix("@")] if len(words) > 1 else _models(room)
    for name in names:
        await room.ask("PUT", _member(name, "/model"), {"model": words[-1]})
    return f"{', '.join(names)}: {words[-1]} from now on"


async def _tools(room: Attached, rest: str) -> str:
    if rest == "last":
        return commands.newest_calls(room.ledger.events)
    participants = (await room.ask("GET", ""))["participants"]
    allowed = {p["name"]: [(tool["name"], tool["policy"]) for tool in p["tools"]] for p in participants}
    return commands.tools(allowed, room.place)


async def _tokens(room: Attached, rest: str) -> str:
    participants: list[dict[str, Any]] = (await room.ask("GET", ""))["participants"]
    return commands.tokens(room.ledger.events, {p["name"]: p["context"] for p in participants})


async def _limits(room: Attached, rest: str) -> str:
    if limit := commands.limit_of(rest):
        await room.ask("PUT", "/limits", limit)
    else:
        await room.ask("GET", "")  # somebody else may have set them
    return commands.limits(room.limits)


async def _compact(room: Attached, rest: str) -> str:
    names = [rest.removeprefix("@")] if rest else _models(room)
    for name in names:
        await room.ask("POST", _member(name, "/compact"))
    return f"older context is being summarised: {', '.join(names)}"


async def _undo(room: Attached, rest: str) -> str:
    """The message that the person sees as the newest is the one that is meant."""
    for message in reversed(room.ledger.state.transcript):
        if message.role == "person":
            await room.ask("POST", "/undo", {"message": message.id}, again=True)
            return f"taken back: {message.content}"
    raise UsageError("there is nothing to undo")


async def _export(room: Attached, rest: str) -> str:
    return commands.write_room(room.id, room.ledger.events, rest)


async def _clear(room: Attached, rest: str) -> str:
    await room.ask("POST", "/clear", again=True)
    return "everybody starts afresh; the journal keeps what was said"


async def _quit(room: Attached, rest: str) -> str:
    raise Quit


_RUN: Mapping[str, Callable[[Attached, str], Awaitable[str]]] = {
    "help": _help,
    "who": _who,
    "invite": _invite,
    "kick": _kick,
    "mode": _mode,
    "model": _model,
    "tools": _tools,
    "tokens": _tokens,
    "limits": _limits,
    "compact": _compact,
    "undo": _undo,
    "export": _export,
    "clear": _clear,
    "exit": _quit,
    "quit": _quit,
}
COMMANDS: Mapping[str, Command] = {
    name: Command(known.usage, known.about, _RUN[name]) for name, known in commands.COMMANDS.items()
}


def _member(name: str, rest: str = "") -> str:
    return f"/members/{quote(name, safe='')}{rest}"


def _models(room: Attached) -> list[str]:
    members = room.ledger.state.members
    return [name for name, member in members.items() if member.joined.kind == "model"]
