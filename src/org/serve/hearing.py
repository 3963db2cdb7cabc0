"""What comes of an exchange for a client that takes it for one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from org.chat.participant import ModelParticipant
from org.chat.room import Room
from org.errors import ModelError
from org.events import Event, Stepped, Stopped, TurnEnded
from org.messages import Usage
from org.serve.caused import Caused
from org.serve.completions import Finish
from org.serve.dialogue import Piece, Telling

Tell: TypeAlias = Callable[[Piece], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended for the client."""

    finish: Finish
    usage: Usage


class Hearing:
    """An observer of one exchange: tells what is said, of `only` one or of all, and what came of it."""

    def __init__(self, room: Room, only: str, tell: Tell, caused: Caused | None = None) -> None:
        participants = room.participants
        self._room = room
        self._caused = caused  # what it hears of; None is all
        self._tell = tell
        self._telling = Telling(
            named=not only and len(participants) > 1,
            only=only,
            whole=[
                name
                for name, one in participants.items()
                if isinstance(one, ModelParticipant) and one.profile.shows == "answer"
            ],
        )
        self._ended = asyncio.Event()  # a turn
        self._usage = Usage()
        self._cut = self._answered = False
        self._failure = ""

    def __call__(self, event: Event) -> None:
        if self._caused and not self._caused.takes(event):
            return
        for piece in self._telling.feed(event):
            self._tell(piece)
        match event:
            case Stepped():
                self._usage += event.usage or Usage()
                self._cut = event.finish == "length"
            case TurnEnded():
                if event.status == "failed":
                    self._failure = f"{event.participant}'s turn failed: {event.detail}"
                self._answered |= event.status == "answered"
                self._ended.set()
            case _:
                pass

    async def over(self) -> Stopped:
        """Wait until all that it hears of has ended; the room may go on with what others said."""
        assert self._caused is not None
        while not self._caused.over(self._room.state, self._room.participants):
            self._ended.clear()
            await self._ended.wait()
        return Stopped("failed" if self._failure else "quiet")

    def outcome(self, stopped: Stopped) -> Outcome:
        """Raises `ModelError` when there is no answer because models failed."""
        if stopped.reason == "failed" and not (self._answered or self._cut):
            raise ModelError(self._failure or stopped.detail)
        if self._failure:
            self._tell(self._telling.remark(self._failure))
        limited = stopped.reason in ("turns", "seconds", "tokens", "tools", "interrupted")
        return Outcome("length" if limited or self._cut else "stop", self._usage)
