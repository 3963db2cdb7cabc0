"""The state of a room as a fold over its committed events. Pure.

Live and on resume the same code runs over the same events, so a resumed room sends the same
prompts and owes the same answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from org.chat.context import Memory
from org.errors import UsageError
from org.events import (
    CallFinished,
    Cleared,
    Committed,
    Compacted,
    Invited,
    Joined,
    Left,
    ModeChanged,
    ModelChanged,
    Nudged,
    Posted,
    Stepped,
    TurnEnded,
    counting,
)
from org.messages import EVERYONE, Audience, Message


@dataclass(slots=True)
class Member:
    """A participant or a person of the room: standing audience, inbox and view."""

    joined: Joined
    mode: Audience = EVERYONE
    unread: list[Message] = field(default_factory=list)
    memory: Memory | None = None  # of models only


class State:
    """Who is in the room, what was said, who has not read it."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.gone: set[str] = set()
        """Who left: words for them are refused, not taken for text and heard by everyone."""
        self.transcript: list[Message] = []
        self.next_id = 1
        self.turns = 0
        self._by_id: dict[int, Message] = {}

    @classmethod
    def of(cls, events: Iterable[Committed]) -> State:
        """The state after these events; what was undone has not happened, but its numbers stay taken."""
        state = cls()
        all_events = list(events)
        for event in counting(all_events):
            state.apply(event)
        for event in all_events:
            if isinstance(event, Posted):
                state.next_id = max(state.next_id, event.message.id + 1)
            elif isinstance(event, Invited):
                state.turns = max(state.turns, event.turn)
        return state

    def member(self, name: str) -> Member:
        """Raises `UsageError` when nobody of that name is here."""
        if name not in self.members:
            raise UsageError(f"nobody here is called `{name}`", self.present)
        return self.members[name]

    @property
    def present(self) -> str:
        """Who is here, in words."""
        return "here are: " + ", ".join(self.members)

    def apply(self, event: Committed) -> None:
        match event:
            case Posted(message):
                self._post(message)
            case Joined():
                memory = Memory(event) if event.kind == "model" else None
                self.members[event.name] = Member(event, memory=memory)
                self.gone.discard(event.name)
            case Left():
                if self.members.pop(event.name, None):
                    self.gone.add(event.name)
            case ModeChanged():
                if event.name in self.members:
                    self.members[event.name].mode = event.audience
            case ModelChanged():
                if event.name in self.members:
                    member = self.members[event.name]
                    member.joined = replace(member.joined, model=event.model)
            case Cleared():
                for member in self.members.values():
                    member.unread.clear()
                    if member.memory:
                        member.memory.apply(event)
            case Invited() | Stepped() | CallFinished() | Nudged() | Compacted() | TurnEnded():
                self._turn(event)
            case _:
                pass

    def _post(self, message: Message) -> None:
        self.transcript.append(message)
        self.next_id = message.id + 1
        self._by_id[message.id] = message
        for name, member in self.members.items():
            if member.memory and name != message.sender and message.audience.includes(name):
                member.unread.append(message)

    def _turn(self, event: Invited | Stepped | CallFinished | Nudged | Compacted | TurnEnded) -> None:
        member = self.members.get(event.participant)
        messages: list[Message] = []
        if isinstance(event, Invited):
            self.turns = max(self.turns, event.turn)
            messages = [self._by_id[i] for i in event.causes if i in self._by_id]
            if member:
                read = set(event.causes)  # of who comes late it may be all that was ever said
                member.unread = [m for m in member.unread if m.id not in read]
        if member is None or member.memory is None:
            return
        # A turn that outlives its participant must not reach one who came later under the same name.
        if isinstance(event, Invited | Compacted) or event.turn == member.memory.open_turn:
            member.memory.apply(event, messages)
