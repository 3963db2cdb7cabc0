"""Rooms for one exchange each, of which nothing is kept: no journal, no workspace.

They share what would take long to have anew for each: the clients of the model servers, what is known
of the models, and that the sandbox works.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from org.chat.participant import Sampling
from org.compose.opening import Opening
from org.compose.places import choose_place
from org.compose.rooms import enter_room
from org.compose.servers import Servers
from org.compose.session import Session
from org.config import Member, Settings
from org.errors import EnvironmentProblem
from org.events import Event, Joined
from org.ports import Sandbox
from org.sandbox.bubblewrap import Bubblewrap
from org.sandbox.vm.place import VirtualMachine
from org.serve.completions import Said
from org.serve.dialogue import recall
from org.serve.refusal import Refusal

MAX_FORKS = 64
"""How many there may be at once."""

Choose: TypeAlias = Callable[[Settings], Awaitable[str]]
"""Finds the model of all who have none of their own. Raises `UsageError`, `EnvironmentProblem`."""


async def chosen(settings: Settings) -> str:
    """The model that was set, if one was."""
    return settings.model or ""


class Forks:
    """What opens them. Use it as an async context manager, around all of them. `observers` says who is
    shown every event of one, given its name."""

    def __init__(
        self,
        settings: Settings,
        opening: Opening,
        choose: Choose = chosen,
        observers: Callable[[str], Sequence[Callable[[Event], None]]] = lambda name: (),
    ) -> None:
        self._settings = settings
        self._opening = opening
        self._choose = choose
        self._observers = observers
        self._stack = AsyncExitStack()
        self._servers: Servers | None = None
        self._preparing = asyncio.Lock()
        self._walls_stand = False
        self._taken: set[int] = set()
        self._mark = secrets.token_hex(4)  # a machine may serve two of us, while one hands over

    async def __aenter__(self) -> Forks:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def members(self) -> Sequence[Member]:
        """Who is in such a room."""
        return self._settings.participants

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._taken)

    @asynccontextmanager
    async def open(
        self,
        members: Sequence[Member],
        said: Sequence[Said],
        *,
        routed: bool,
        sampling: Callable[[Sampling], Sampling],
    ) -> AsyncIterator[Session]:
        """A room of these members in which that was said; with `routed`, as rooms read what is said.

        Raises `Refusal` when there are too many, and what `open_session` raises.
        """
        servers = await self._shared()
        settings = replace(self._settings, participants=tuple(members))
        if not routed:  # who is alone need not be called by name
            settings = replace(settings, policy="in-turn")
        opening = replace(self._opening, ask=None, sampling=sampling)
        async with AsyncExitStack() as stack:
            name = self._name(stack)
            workspace = opening.folder or await _workspace(stack)
            sandbox, place = await self._place(stack, workspace, "" if opening.folder else name)
            session = Session(settings, opening, name, workspace, sandbox, place, servers)
            names = [settings.name, *(member.id for member in members)]
            async with self._preparing:  # what one starts or finds out, the others share
                participants = [
                    await session.participant(member, [other for other in names if other != member.id])
                    for member in members
                ]
            entered = [Joined(settings.name, "person"), *(p.introduction for p in participants)]
            history = recall(entered, said, time.time(), routed=routed)
            await enter_room(session, stack, participants, history, None)
            for observer in self._observers(name):
                session.room.observe(observer)
            yield session

    def _name(self, stack: AsyncExitStack) -> str:
        """The first that is free, so that folders in a machine are used again."""
        if len(self._taken) >= MAX_FORKS:
            headers = {"Retry-After": "1"}
            raise Refusal(429, f"{MAX_FORKS} completions are in the works already", "ask again", headers)
        number = next(n for n in range(1, MAX_FORKS + 1) if n not in self._taken)
        self._taken.add(number)
        stack.callback(self._taken.discard, number)
        return f"fork-{self._mark}-{number}"

    async def _shared(self) -> Servers:
        """The model is chosen when it is first needed, and then stays."""
        async with self._preparing:
            if self._servers is None:
                settings = replace(self._settings, model=await self._choose(self._settings))
                opening = self._opening
                self._servers = Servers(settings, self._stack, opening.progress, opening.engines)
            return self._servers

    async def _place(
        self, stack: AsyncExitStack, workspace: Path, in_machine: str
    ) -> tuple[Sandbox | None, str]:
        sandbox, place = await choose_place(
            self._settings,
            workspace,
            unsafe_local=self._opening.unsafe_local,
            in_machine=in_machine,
            tried=self._walls_stand,
        )
        if isinstance(sandbox, VirtualMachine):
            stack.push_async_callback(sandbox.clear)
        self._walls_stand = isinstance(sandbox, Bubblewrap)
        return sandbox, place


async def _workspace(stack: AsyncExitStack) -> Path:
    """An empty folder until the stack is closed. Raises `EnvironmentProblem`."""
    try:
        folder = TemporaryDirectory(prefix="org-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"no workspace can be made: {error.strerror}", "name a folder that can be written in TMPDIR"
        ) from error
    stack.push_async_callback(asyncio.to_thread, folder.cleanup)
    return Path(folder.name)
