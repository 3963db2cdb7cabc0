"""Which of the things that happen in a room come of what was posted with one key. Pure."""

from __future__ import annotations

from collections.abc import Collection

from org.chat.state import State
from org.events import Event, Invited, Posted, TurnEnded


class Caused:
    """The messages with that key, the turns in which they, or what was said in such turns, are read, and
    what is said in those. `takes` is to be shown every event from before the first of them on."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._messages: set[int] = set()
        self._turns: set[str] = set()  # who is in the middle of one

    def takes(self, event: Event) -> bool:
        """Whether the event is a part of one of the turns."""
        match event:
            case Posted(message):
                if event.key == self.key or message.cause in self._messages or message.sender in self._turns:
                    self._messages.add(message.id)
            case Invited(name, _, causes) if not self._messages.isdisjoint(causes):
                self._turns.add(name)
            case TurnEnded(name) if name in self._turns:
                self._turns.remove(name)
                return True
            case _:
                pass
        return getattr(event, "participant", "") in self._turns

    def over(self, state: State, participants: Collection[str]) -> bool:
        """Whether all that came of it has ended: nobody speaks because of it, or has yet to read it."""
        members = (state.members[name] for name in participants if name in state.members)
        unread = any(message.id in self._messages for member in members for message in member.unread)
        return not (self._turns or unread)
