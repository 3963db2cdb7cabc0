"""How what is said in a room reaches whom it is for: by the addresses in it, into files too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from org.chat.ledger import Ledger
from org.chat.routing import route
from org.errors import OrgError
from org.events import Committed, Posted
from org.lock import ChannelLock
from org.messages import EVERYONE, Audience, Message, Role
from org.ports import Sandbox

ROOM = "room"
"""The sender of what the room itself says."""

FILE_TIMEOUT_S = 30.0

NAMED_REFUSALS = 5
"""How many different refusals are told of one text; the rest are counted."""

REFUSAL_LENGTH = 300
"""Characters of one refusal: a path can be as long as the text that it was read from."""


class Delivery:
    """Posts what is said. `files` takes what is addressed to files; `news` is set after every post."""

    def __init__(self, ledger: Ledger, files: Sandbox | None, news: asyncio.Event) -> None:
        self._ledger = ledger
        self._files = files
        self._file_lock = ChannelLock("a file of the workspace")
        self._news = news

    async def deliver(
        self,
        sender: str,
        role: Role,
        text: str,
        cause: int | None = None,
        hop: int = 0,
        *,
        only_addressed: bool = False,
        stamp: tuple[str, str] = ("", ""),
    ) -> tuple[Sequence[Committed], list[str]]:
        """(what was posted, why the rest was not), by the addresses in a text."""
        state = self._ledger.state
        routed = route(text, sender, {*state.members, *state.gone}, state.member(sender).mode)
        refusals = [str(refusal) for refusal in routed.refused]
        accepted: list[tuple[Audience, str]] = []
        for segment in routed.segments:
            if only_addressed and not segment.addressed:
                continue
            audience = segment.audience
            left = [name for name in audience.names if name not in self._ledger.state.members]
            if left:
                refusals.append(f"{' and '.join(left)} left and did not get your words")
                audience = Audience.only(*[name for name in audience.names if name not in left])
            elif audience.kind == "file" and (
                problem := await self._write_file(audience.path, segment.content)
            ):
                refusals.append(problem)
                continue
            if audience.kind != "direct" or audience.names:
                accepted.append((audience, segment.content))
        return await self._post(sender, role, accepted, cause, hop, stamp), _bounded(refusals)

    async def announce(
        self, text: str, audience: Audience = EVERYONE, cause: int | None = None, hop: int = 0
    ) -> None:
        """Post what the room itself says."""
        await self._post(ROOM, "system", [(audience, text)], cause, hop)

    async def _write_file(self, path: str, content: str) -> str:
        """Append to a file of the workspace; why that could not be done, or empty."""
        if self._files is None:
            return f"this room has no workspace: nothing was written to `{path}`"
        try:
            async with self._file_lock.hold(FILE_TIMEOUT_S):
                await self._files.write_file(path, f"{content}\n".encode(errors="replace"), append=True)
        except OrgError as error:
            return f"nothing was written to `{path}`: {error.message}"
        return ""

    async def _post(
        self,
        sender: str,
        role: Role,
        contents: Sequence[tuple[Audience, str]],
        cause: int | None,
        hop: int,
        stamp: tuple[str, str] = ("", ""),
    ) -> Sequence[Committed]:
        """Post messages, numbered in the order in which they are written."""

        def make() -> list[Committed]:
            now = time.time()
            return [
                Posted(Message(number, sender, role, audience, content, now, cause, hop), *stamp)
                for number, (audience, content) in enumerate(contents, self._ledger.state.next_id)
            ]

        posted = await self._ledger.write(make)
        self._news.set()
        return posted


def _bounded(refusals: Sequence[str]) -> list[str]:
    """What is told of refusals: each once, the first few, and how many there are beside."""
    short = (
        refusal if len(refusal) <= REFUSAL_LENGTH else f"{refusal[:REFUSAL_LENGTH]}…" for refusal in refusals
    )
    told = list(dict.fromkeys(short))
    more = len(told) - NAMED_REFUSALS
    return [*told[:NAMED_REFUSALS], f"and {more} more"] if more > 0 else told
