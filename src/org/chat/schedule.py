"""Whose turn it is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from org.messages import Message

Policy: TypeAlias = Literal["in-turn", "parallel", "mention"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Whose turn it is.

    `in-turn`: one after another in the order of the roster. `parallel`: all who have something
    unread, at most `parallel` at once and `per_model` of one model; turns of one model are grouped,
    so that a server need not swap models. `mention`: only who is addressed by name, one by one.
    """

    policy: Policy = "in-turn"
    parallel: int = 4
    per_model: int = 1


class Seat(NamedTuple):
    """A participant as the schedule sees it; `model` is empty when it has none."""

    name: str
    model: str
    unread: Sequence[Message]


def next_speaker(schedule: Schedule, roster: Sequence[Seat], speaking: Collection[str], last: str) -> str:
    """Who is to be invited now, or empty. `speaking` are those whose turn it is; `last` was invited last."""
    if len(speaking) >= (schedule.parallel if schedule.policy == "parallel" else 1):
        return ""
    start = next((place for place, seat in enumerate(roster, 1) if seat.name == last), 0)
    in_order = (*roster[start:], *roster[:start])
    waiting = [seat for seat in in_order if seat.name not in speaking and _has_reason(seat, schedule.policy)]
    if schedule.policy == "parallel":
        waiting = _grouped(schedule, roster, waiting, speaking, last)
    return waiting[0].name if waiting else ""


def _has_reason(seat: Seat, policy: Policy) -> bool:
    """What the room announces to everyone is read at the next occasion; it is none itself."""
    return any(
        message.audience.kind == "direct" or (policy != "mention" and message.role != "system")
        for message in seat.unread
    )


def _grouped(
    schedule: Schedule, roster: Sequence[Seat], waiting: Sequence[Seat], speaking: Collection[str], last: str
) -> list[Seat]:
    """Who may be asked now, those of the model that was asked last first; but nobody overtakes who
    has waited since an earlier round."""
    busy = Counter(seat.model for seat in roster if seat.name in speaking)
    free = [seat for seat in waiting if not seat.model or busy[seat.model] < schedule.per_model]
    model = next((seat.model for seat in roster if seat.name == last), "")
    return sorted(free, key=lambda seat: (seat.unread[0].hop, seat.model != model))
