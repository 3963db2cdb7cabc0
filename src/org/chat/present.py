"""What is going on in a room right now, for readers who begin in the middle of it: a fold over its
passing events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from org.events import (
    Asked,
    CallFinished,
    CallOutput,
    CallStarted,
    Delta,
    Event,
    SoFar,
    Stepped,
    Stopped,
    TurnEnded,
    TurnStarted,
)
from org.tooling import ToolCall

KEPT = 32_768
"""Characters of one text that are kept: its end. What is missing before it is marked by `…`."""


class Tail:
    """The end of a text that grows."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > 2 * KEPT:
            self._parts = [str(self)]
            self._size = len(self._parts[0])

    def clear(self) -> None:
        self._parts.clear()
        self._size = 0

    def __str__(self) -> str:
        text = "".join(self._parts)
        return text if len(text) <= KEPT else f"…{text[1 - KEPT :]}"


@dataclass(slots=True)
class _Turn:
    started: TurnStarted
    text: Tail = field(default_factory=Tail)
    reasoning: Tail = field(default_factory=Tail)
    call: ToolCall | None = None
    output: Tail = field(default_factory=Tail)

    def so_far(self) -> SoFar:
        started = self.started
        said = str(self.text), str(self.reasoning)
        return SoFar(started.participant, started.turn, started.model, *said, self.call, str(self.output))


def _gone_on(told: SoFar) -> _Turn:
    turn = _Turn(TurnStarted(told.participant, told.turn, told.model), call=told.call)
    turn.text.add(told.text)
    turn.reasoning.add(told.reasoning)
    turn.output.add(told.output)
    return turn


class Present:
    """The turns that run and the calls that wait for a person. `events` tells them anew."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._asked: dict[str, Asked] = {}  # by participant: its calls are run one after another

    def events(self) -> list[SoFar | Asked]:
        return [*(turn.so_far() for turn in self._turns.values()), *self._asked.values()]

    def take(self, event: Event) -> None:
        match event:
            case TurnStarted(name):
                self._turns[name] = _Turn(event)
            case SoFar(name):
                self._turns[name] = _gone_on(event)
            case TurnEnded(name):
                self._turns.pop(name, None)
                self._asked.pop(name, None)
            case Stopped():
                self._turns.clear()
                self._asked.clear()
            case Asked(participant=name):
                self._asked[name] = event
            case Delta(participant=name) | Stepped(name) | CallOutput(name):
                self._go_on(name, event)
            case CallStarted(name) | CallFinished(name):
                self._asked.pop(name, None)
                self._go_on(name, event)
            case _:
                pass

    def _go_on(self, name: str, event: Delta | Stepped | CallStarted | CallOutput | CallFinished) -> None:
        turn = self._turns.get(name)
        if turn is None:
            return
        match event:
            case Delta(text, kind):
                (turn.text if kind == "text" else turn.reasoning).add(text)
            case Stepped():  # it says again what was shown, and stays
                turn.text.clear()
                turn.reasoning.clear()
            case CallStarted(_, call):
                turn.call = call
                turn.output.clear()
            case CallOutput(_, _, text):
                turn.output.add(text)
            case CallFinished():
                turn.call = None
                turn.output.clear()
