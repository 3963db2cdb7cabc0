"""What is drawn at once: the events of one frame, as few as tell the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from org.events import Delta, Event


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with the pieces of each speaker put together, between two of any other kind."""
    made: list[Event] = []
    pieces: dict[str, tuple[Literal["text", "reasoning"], list[str]]] = {}

    def close(name: str) -> None:
        kind, parts = pieces.pop(name)
        made.append(Delta("".join(parts), kind, name))

    for event in events:
        if not isinstance(event, Delta):
            for name in list(pieces):
                close(name)
            made.append(event)
            continue
        name = event.participant
        if name in pieces and pieces[name][0] != event.kind:
            close(name)
        pieces.setdefault(name, (event.kind, []))[1].append(event.text)
    for name in list(pieces):
        close(name)
    return made
