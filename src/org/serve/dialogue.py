"""What is said in a room as one text, and such a text as what was said. Pure.

Where several speak, each paragraph that somebody begins has the name in front: `coder: Done.` A model
never writes another's name like that (its reply would end there) nor its own (it is taken off), so
that the text can be taken apart again when it comes back as the history of the next request.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from org.chat.routing import Fence, Segment, is_pass, route
from org.chat.state import State
from org.events import CallStarted, Committed, Delta, Event, Invited, Joined, Posted, Stepped, TurnEnded
from org.messages import EVERYONE, Audience, Message, Role
from org.serve.completions import Said
from org.wording import describe

Kind: TypeAlias = Literal["content", "reasoning_content"]

UNASKED = "(nobody asked)"
"""What stands before words of a participant to which nothing led."""


class Piece(NamedTuple):
    """The next part of the text, or of the thoughts beside it."""

    kind: Kind
    text: str


@dataclass(slots=True)
class _Voice:
    """What one participant says in one step, as far as it was not told yet."""

    pieces: list[Piece] = field(default_factory=list)
    begun: set[Kind] = field(default_factory=set)
    """What it has said something of."""
    told: set[Kind] = field(default_factory=set)
    """Of what something was told."""
    held: dict[Kind, str] = field(default_factory=dict)
    """Blanks that count only if more comes."""
    ended: bool = False


class Telling:
    """Fed with the events of an exchange, gives what is said in it, piece by piece.

    One speaks at a time: what others say meanwhile is told when that one's step is over, whole or from
    its beginning on. `named` puts names in front; `only` leaves out all others; the words of `whole`
    are told when their step is over, since they are an answer only if no call goes with them.
    """

    def __init__(self, *, named: bool, only: str = "", whole: Collection[str] = ()) -> None:
        self._named = named
        self._only = only
        self._whole = frozenset(whole)
        self._voices: list[tuple[str, _Voice]] = []  # in the order in which they began
        self._began: set[Kind] = set()

    def feed(self, event: Event) -> list[Piece]:
        """What can be told now."""
        match event:
            case Delta(participant=name) if self._tells(name):
                if event.kind == "reasoning":
                    self._say(name, "reasoning_content", event.text)
                elif name not in self._whole:
                    self._say(name, "content", event.text)
            case Stepped(participant=name) if self._tells(name):
                on_the_way = name in self._whole and event.calls
                self._end(name, event.text, "reasoning_content" if on_the_way else "content")
            case CallStarted(participant=name) if self._tells(name):
                self._end(name, f"[{describe(event.call)}]", "reasoning_content")
            case TurnEnded(participant=name) if self._tells(name):
                self._end(name, event.text, "content")
            case _:
                pass
        return list(self._take())

    def remark(self, text: str) -> Piece:
        """Something about what was said, beside it."""
        gap = "\n\n" if "reasoning_content" in self._began else ""
        return Piece("reasoning_content", f"{gap}[{text}]")

    def _tells(self, name: str) -> bool:
        return not self._only or name == self._only

    def _voice(self, name: str) -> _Voice:
        for other, voice in self._voices:
            if other == name and not voice.ended:
                return voice
        self._voices.append((name, _Voice()))
        return self._voices[-1][1]

    def _say(self, name: str, kind: Kind, text: str) -> None:
        voice = self._voice(name)
        text = voice.held.pop(kind, "") + text if kind in voice.begun else text.lstrip()
        shown = text.rstrip()
        voice.held[kind] = text[len(shown) :]
        if shown:
            voice.begun.add(kind)
            voice.pieces.append(Piece(kind, shown))

    def _end(self, name: str, text: str, kind: Kind) -> None:
        """A step is over, in which that was said, as it streamed or only now."""
        voice = self._voice(name)
        if "content" not in voice.begun and not is_pass(text):
            self._say(name, kind, f"\n\n{text}" if kind in voice.begun and text else text)
        voice.ended = True

    def _take(self) -> Iterator[Piece]:
        while self._voices:
            name, voice = self._voices[0]
            for kind, text in voice.pieces:
                yield Piece(kind, text if kind in voice.told else self._head(name, kind) + text)
                voice.told.add(kind)
            voice.pieces.clear()
            if not voice.ended:
                return
            del self._voices[0]

    def _head(self, name: str, kind: Kind) -> str:
        """What stands before the first words of a step."""
        gap = "\n\n" if kind in self._began else ""
        self._began.add(kind)
        return gap + (f"{name}: " if self._named else "")


# -- and back


def recall(members: Sequence[Joined], said: Sequence[Said], at: float, *, routed: bool) -> list[Committed]:
    """What happened in a room in which that was said, one person and the others being models.

    With `routed` texts are read as the room reads them: by who speaks and whom they address. Otherwise
    everything is between the person and the only model. `at` is Unix time in seconds.
    """
    room = _Recalled(members, at, routed)
    for role, text in said:
        if role == "user":
            room.heard(text)
        else:
            room.answered(text)
    return room.events


class _Recalled:
    def __init__(self, members: Sequence[Joined], at: float, routed: bool) -> None:
        self.events: list[Committed] = []
        self._state = State()
        self._at = at
        self._routed = routed
        self._person = next(member.name for member in members if member.kind == "person")
        self._models = {member.name: member for member in members if member.kind == "model"}
        self._add(*members)

    def heard(self, text: str) -> None:
        self._post(self._person, "person", text)

    def answered(self, text: str) -> None:
        names = list(self._models)
        parts = _speakers(text, names) if self._routed else [(names[0], text.strip())]
        for name, words in parts:
            if words:
                self._turn(name, words)

    def _turn(self, name: str, text: str) -> None:
        if not self._state.members[name].unread:
            self._message("room", "system", Audience.only(name), UNASKED)
        turn = self._state.turns + 1
        causes = tuple(message.id for message in self._state.members[name].unread)
        self._add(Invited(name, turn, causes, self._models[name].limit), Stepped(name, turn, text))
        self._post(name, "model", text)
        self._add(TurnEnded(name, turn, "answered"))

    def _post(self, sender: str, role: Role, text: str) -> None:
        segments: Sequence[Segment] = [Segment(EVERYONE, text)]
        if self._routed:
            segments = route(text, sender, self._state.members, EVERYONE).segments
        for segment in segments:
            if segment.content.strip():
                self._message(sender, role, segment.audience, segment.content)

    def _message(self, sender: str, role: Role, audience: Audience, content: str) -> None:
        self._add(Posted(Message(self._state.next_id, sender, role, audience, content, self._at)))

    def _add(self, *events: Committed) -> None:
        for event in events:
            self._state.apply(event)
            self.events.append(event)


def _speakers(text: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """(who, what) in order; nobody twice in a row. What stands before a name is the first one's."""
    begins = re.compile(rf"({'|'.join(re.escape(name) for name in names)}): ?")
    found: list[tuple[str, list[str]]] = [(names[0], [])]
    fence, after_blank = Fence(), True
    for line in text.split("\n"):
        head = None if fence.takes(line) or not after_blank else begins.match(line)
        if head is not None:
            line = line[head.end() :]
            fence.takes(line)
            if head[1] != found[-1][0]:
                found.append((head[1], []))
        after_blank = not line.strip()
        found[-1][1].append(line)
    return [(name, "\n".join(lines).strip()) for name, lines in found]
