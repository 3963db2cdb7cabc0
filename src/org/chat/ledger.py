"""Where a room writes down what happens: durable first, then in its state, then shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from org.chat.state import State
from org.events import Committed, Event, Undone
from org.ports import Journal


class Ledger:
    """The committed events of a room in order, the state they amount to, and who is shown them.

    `history` are the events of a journal to go on from; without a journal nothing is kept.
    """

    def __init__(self, journal: Journal | None, history: Iterable[Committed] = ()) -> None:
        self.events: list[Committed] = list(history)
        self.state = State.of(self.events)
        self._journal = journal
        self._writing = asyncio.Lock()
        self._observers: tuple[Callable[[Event], None], ...] = ()

    def observe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Show every event to `observer`; returns what ends that."""
        self._observers = (*self._observers, observer)

        def end() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)

        return end

    def emit(self, event: Event) -> None:
        """Show an event that is not kept."""
        for observer in self._observers:
            observer(event)

    async def commit(self, *events: Committed) -> None:
        """Write these events, all or none. Raises `JournalError`."""
        await self.write(lambda: events)

    def take(self, *events: Committed) -> None:
        """Take in events that are durable elsewhere: into the state, then shown."""
        self._apply(events)

    async def write(self, make: Callable[[], Sequence[Committed]]) -> Sequence[Committed]:
        """Write the events that `make` builds from the state as it then is.

        Once begun it is done whole, however often the caller is cancelled meanwhile: the journal
        never knows more than the state.
        """
        if self._journal is None:
            events = make()
            self._apply(events)
            return events
        writing = asyncio.ensure_future(self._write_durably(self._journal, make))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            writing.result()
            raise

    async def _write_durably(
        self, journal: Journal, make: Callable[[], Sequence[Committed]]
    ) -> Sequence[Committed]:
        async with self._writing:
            events = make()
            if events:
                await journal.append(events)
                self._apply(events)
            return events

    def _apply(self, events: Sequence[Committed]) -> None:
        self.events.extend(events)
        if any(isinstance(event, Undone) for event in events):  # once, however many were undone
            self.state = State.of(self.events)
        else:
            for event in events:
                self.state.apply(event)
        for event in events:
            self.emit(event)
