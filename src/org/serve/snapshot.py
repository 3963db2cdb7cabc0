"""A room as the API shows it: plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from org.chat.participant import ModelParticipant
from org.chat.state import Member
from org.journal import RoomInfo
from org.serve.served import Served


def listed(room: RoomInfo, *, here: bool) -> dict[str, Any]:
    """One line of the list of rooms; `here` says that it is open in this process."""
    return {
        "id": room.id,
        "created": room.created,
        "last": room.last,
        "messages": room.messages,
        "members": list(room.participants),
        "open": here,
        "busy": "" if here else room.busy,
        "problem": room.problem,
    }


def describe(served: Served, busy: str = "") -> dict[str, Any]:
    """Who is in a room, what runs, and what it may take. `busy` is who else has it open.

    `seq` is the id of the newest event that this takes into account: an event stream `after` it goes
    on from here. Of a room that nobody has open nothing runs: what did ended with its process.
    """
    session = served.session
    members = served.state.members
    limits = session.room.limits if session else None
    return {
        "id": served.id,
        "seq": len(served.events),
        "open": session is not None,
        "busy": busy,
        "place": session.place if session else "",
        "participants": [
            _participant(member, served) for member in members.values() if member.joined.kind == "model"
        ],
        "people": [
            {"name": member.joined.name, "mode": str(member.mode)}
            for member in members.values()
            if member.joined.kind == "person"
        ],
        "limits": {
            "turns": limits.turns,
            "seconds": limits.seconds,
            "tokens": limits.tokens,
            "tools": limits.tools,
        }
        if limits
        else None,
        "usage": _usage(served),
        "running": [
            {"participant": name, "turn": member.memory.open_turn}
            for name, member in members.items()
            if member.memory and member.memory.open_turn and (session or busy)
        ],
        "asking": [asdict(asked) for asked in served.asking.waiting],
    }


def _participant(member: Member, served: Served) -> dict[str, Any]:
    joined = member.joined
    usage = served.usage.get(joined.name)
    found = served.session and served.session.room.participants.get(joined.name)
    model = found if isinstance(found, ModelParticipant) else None
    return {
        "name": joined.name,
        "profile": joined.profile,
        "model": joined.model,
        "mode": str(member.mode),
        "unread": len(member.unread),
        "tokens": usage.total if usage else 0,
        "context": model.sampling.context_tokens if model else 0,
        "tools": [{"name": tool.spec.name, "policy": tool.policy} for tool in model.tools] if model else [],
    }


def _usage(served: Served) -> dict[str, int]:
    """Tokens over the life of the room."""
    usages = served.usage.values()
    return {
        "prompt": sum(usage.prompt for usage in usages),
        "completion": sum(usage.completion for usage in usages),
        "cached": sum(usage.cached for usage in usages),
    }
