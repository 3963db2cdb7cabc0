"""The turns of a room: who speaks now, what comes of it, and when the exchange is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from org.chat.delivery import Delivery
from org.chat.exchange import CUTTING, Exchange, Limits
from org.chat.ledger import Ledger
from org.chat.routing import is_pass
from org.chat.schedule import Schedule, Seat, next_speaker
from org.errors import JournalError, ModelError, OrgError
from org.events import Committed, Invited, Notice, Stopped, StopReason, TurnEnded, TurnStarted, TurnStatus
from org.messages import Audience, Message, Usage, View
from org.ports import Participant, Turn


class Turns:
    """One exchange after another, each in a task of its own.

    `participants` are those who are here at the time; `news` is set when something was posted.
    """

    def __init__(
        self,
        ledger: Ledger,
        delivery: Delivery,
        participants: Mapping[str, Participant],
        schedule: Schedule,
        limits: Limits,
        news: asyncio.Event,
    ) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._participants = participants
        self._schedule = schedule
        self._news = news
        self._exchange = Exchange(limits)
        self._running: asyncio.Task[Stopped] | None = None
        self._speaking: dict[asyncio.Task[None], str] = {}
        self._replies: dict[str, asyncio.Task[str]] = {}

    # -- exchanges

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def usage(self) -> Usage:
        """Tokens of the newest exchange so far."""
        return self._exchange.usage

    async def run(self, limits: Limits) -> Stopped:
        """The exchange that runs, or when none does a new one within these limits, to its end. Giving
        up the wait does not stop it."""
        if self._running is None:
            self._exchange = Exchange(limits)
            self._running = asyncio.create_task(self._run(self._exchange, limits.seconds))
        return await asyncio.shield(self._running)

    async def ended(self) -> None:
        """Wait out an exchange that is ending already."""
        while self._running is not None and self._exchange.halt is not None:
            await asyncio.wait([self._running])

    def interrupt(self) -> bool:
        """Stop the exchange now; returns whether one ran."""
        if self._running is None:
            return False
        self._halt("interrupted")
        return True

    async def stop(self) -> None:
        """Interrupt the exchange, and wait for its end."""
        if self._running is not None:
            self.interrupt()
            await asyncio.shield(self._running)

    def silence(self, name: str) -> None:
        """Cut short whoever speaks under this name."""
        if name in self._replies:
            self._replies[name].cancel()

    async def _run(self, exchange: Exchange, seconds: float) -> Stopped:
        timer = None
        if seconds > 0:
            timer = asyncio.get_running_loop().call_later(seconds, self._halt, "seconds")
        try:
            self._invite()
            while self._speaking:
                self._news.clear()
                await self._news.wait()
                for task in [task for task in self._speaking if task.done()]:
                    del self._speaking[task]
                    task.result()  # a bug in a turn ends the room's work here
                self._invite()
        finally:
            if timer is not None:
                timer.cancel()
            if self._speaking:
                self._halt("interrupted")
                await asyncio.gather(*self._speaking, return_exceptions=True)
                self._speaking.clear()
            self._running = None
        stopped = exchange.stopped()
        await self._ledger.commit(stopped)
        return stopped

    def _halt(self, reason: StopReason) -> None:
        """End the exchange for this reason; whoever speaks is cut short, except by a mere count."""
        if self._exchange.halt not in CUTTING:
            self._exchange.halt = reason
            if reason in CUTTING:
                for reply in self._replies.values():
                    reply.cancel()

    # -- turns

    def _invite(self) -> None:
        """Begin the turns of all whose turn it is now."""
        exchange, state = self._exchange, self._ledger.state
        members = state.members
        while exchange.halt is None:
            roster = [
                Seat(name, participant.introduction.model, members[name].unread)
                for name, participant in self._participants.items()
                if name in members
            ]
            name = next_speaker(self._schedule, roster, self._speaking.values(), exchange.last_speaker)
            if not name:
                return
            if reason := exchange.full():
                self._halt(reason)
                return
            exchange.turns += 1
            exchange.last_speaker = name
            causes = tuple(members[name].unread)
            state.turns += 1
            turn = self.occasion(name, state.turns, causes)
            task = asyncio.create_task(self._turn(self._participants[name], turn))
            task.add_done_callback(lambda _: self._news.set())
            self._speaking[task] = name

    async def _turn(self, participant: Participant, turn: Turn) -> None:
        began = time.monotonic()
        name = turn.participant
        member = self._ledger.state.members.get(name)
        memory = member.memory if member else None
        introduction = participant.introduction
        causes = tuple(message.id for message in turn.causes)
        await self._ledger.commit(Invited(name, turn.id, causes, introduction.limit))
        self._ledger.emit(TurnStarted(name, turn.id, introduction.model))
        status, text, detail = await self._answer(participant, turn)
        if text:
            await turn.post(text, False)
        # A participant that commits no steps, or was cut short, finds its words in the end of its turn.
        seen = memory is None or memory.view.since(-1)[0].role == "assistant"
        seconds = round(time.monotonic() - began, 3)
        await turn.commit(TurnEnded(name, turn.id, status, seconds, detail, "" if seen else text))

    async def _answer(self, participant: Participant, turn: Turn) -> tuple[TurnStatus, str, str]:
        """(how a turn ended, what is to be posted, why it was cut short or failed)."""
        name = turn.participant
        if self._is_cut(participant, name):
            return "interrupted", "", ""
        reply = self._replies[name] = asyncio.create_task(participant.respond(turn))
        try:
            text = await reply
        except asyncio.CancelledError:
            return "interrupted", "", ""
        except JournalError:
            raise  # it is the room that cannot go on
        except OrgError as error:
            self._ledger.emit(Notice(f"{name}'s turn failed: {error.message}", error.hint, name))
            return "failed", error.said if isinstance(error, ModelError) else "", error.message
        finally:
            del self._replies[name]
        silent = not text.strip()
        if self._is_cut(participant, name):
            return "interrupted", "" if is_pass(text) else text.strip(), ""
        if silent and (limit := self._exchange.spent()):
            self._halt(limit)
            return "interrupted", "", f"limit reached: {limit}"
        return ("passed", "", "") if silent or is_pass(text) else ("answered", text, "")

    def _is_cut(self, participant: Participant, name: str) -> bool:
        """Whether a turn is interrupted, or its participant was sent out."""
        return self._exchange.halt in CUTTING or self._participants.get(name) is not participant

    def occasion(self, name: str, turn_id: int, causes: tuple[Message, ...]) -> Turn:
        """What a participant is handed to speak with."""
        exchange, state = self._exchange, self._ledger.state
        memory = state.members[name].memory
        participant = self._participants.get(name)

        async def commit(event: Committed) -> None:
            exchange.note(event)
            await self._ledger.commit(event)

        async def post(text: str, addressed: bool) -> None:
            # Who was sent out while it spoke is not heard any more: the end of its turn keeps its words.
            if self._participants.get(name) is participant:
                await self._reply(name, causes, text, only_addressed=addressed)

        return Turn(
            id=turn_id,
            participant=name,
            causes=causes,
            names=tuple(state.members),
            view=lambda: memory.view if memory else View(),
            commit=commit,
            emit=self._ledger.emit,
            post=post,
            limit=lambda: exchange.spent() or "",
        )

    async def _reply(
        self, name: str, causes: tuple[Message, ...], text: str, *, only_addressed: bool
    ) -> None:
        """Post what a participant said. An address that names nobody goes back to it, once an exchange."""
        exchange = self._exchange
        cause = causes[-1].id if causes else None
        hop = 1 + max((message.hop for message in causes), default=0)
        posted, refusals = await self._delivery.deliver(
            name, "model", text, cause, hop, only_addressed=only_addressed
        )
        for event in posted:
            exchange.note(event)
        for refusal in refusals:
            self._ledger.emit(Notice(f"{name}: {refusal}", participant=name))
        if refusals and name not in exchange.refused and exchange.halt is None:
            exchange.refused.add(name)
            await self._delivery.announce("\n".join(refusals), Audience.only(name), cause, hop)
